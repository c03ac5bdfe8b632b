"""Transcribe waves with a device file, in one of the runtimes that it is for.

  asrcompress decode --model device/svd-0.25 --data data --set dev-clean-2 --out greedy
  asrcompress decode --model device/svd-0.25 --data data --set dev-clean-2 --out hlg \\
      --graph graph/HLG.fst --words lang/words.txt

Writes OUT/tokens.txt (greedy search), OUT/hyp.txt (words: over a graph, or of BPE tokens) and OUT/decode.json: the
real-time factor with features and search, seconds to load. `asrcompress score` takes the texts.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runtime", default="sherpa-onnx", help="sherpa-onnx, or onnxruntime (greedy search only)")
    parser.add_argument("--model", type=Path, required=True, help="folder with tokens.txt and the ONNX files")
    parser.add_argument("--data", type=Path, help="folder of prepared sets")
    parser.add_argument("--set", help="the prepared set, whose waves are read")
    parser.add_argument("--wavs", type=Path, nargs="+", metavar="FILE", help="audio files instead of a set; their "
                        "names are numbered where two are the same")
    parser.add_argument("--graph", type=Path, metavar="HLG.fst", help="search over it; greedy without")
    parser.add_argument("--words", type=Path, help="words.txt of the graph's lang folder")
    parser.add_argument("--ref", type=Path, help="transcripts: also write ref.tokens.txt, as `greedy` does")
    parser.add_argument("--lang", type=Path, help="the lang folder, for the pronunciations of --ref")
    parser.add_argument("--max-active", type=int, default=3000, help="most states kept a frame, over a graph; "
                        "fewer than 21 are 21")
    parser.add_argument("--language", help="of a Whisper of many languages (default: en)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="a folder")


def run(args: argparse.Namespace) -> None:
    import json
    import time

    from asrcompress import runtimes
    from asrcompress.decoding import greedy
    from asrcompress.errors import UserError
    from asrcompress.files import atomic
    from asrcompress.lang import text
    from asrcompress.lang.tokens import read_symbols
    from asrcompress.runtimes.base import waves_of_files, waves_of_set
    from asrcompress.runtimes.sherpa_onnx import is_whisper

    if bool(args.wavs) == bool(args.data and args.set):
        raise UserError("give either --data and --set, or --wavs")
    if bool(args.graph) != bool(args.words):
        raise UserError("--graph and --words belong together: HLG.fst, and the words.txt it was built with")
    if bool(args.ref) != bool(args.lang) or (args.ref and args.graph):
        raise UserError("--ref and --lang belong together, and to greedy search: transcripts become tokens")
    runtime = runtimes.find(args.runtime)
    started = time.perf_counter()
    recognizer = runtime.load(args.model, args.threads, args.graph, args.max_active, args.language)
    loaded = time.perf_counter() - started
    waves = waves_of_files(args.wavs) if args.wavs else waves_of_set(args.data, args.set)
    found = runtime.decode(recognizer, waves, args.words)
    if args.ref:
        print(greedy.write_scorable(args.out, found.tokens, args.ref, args.lang))
    elif not args.graph:
        text.write(args.out / "tokens.txt", found.tokens)
    tokens = read_symbols(args.model / "tokens.txt")
    if args.graph or is_whisper(args.model) or any(token.startswith("▁") for token in tokens):
        text.write(args.out / "hyp.txt", found.words)
    report = {"runtime": args.runtime, "rtf": round(found.rtf, 6), "load_seconds": round(loaded, 4),
              "audio_seconds": round(found.audio, 3), "utts": len(found.tokens), "threads": args.threads,
              "empty": sum(not tokens for tokens in found.tokens.values())}
    with atomic(args.out / "decode.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{args.out}: {report['utts']} utterances, RTF {found.rtf:.4f}, loaded in {loaded:.2f} s, "
          f"{report['empty']} without a token")
