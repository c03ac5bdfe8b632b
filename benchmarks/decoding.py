"""WER and speed of the k2 search and of kaldi-decoder, on the same graph and the same posteriors, side by side.

  python benchmarks/decoding.py --archive dev.post --graph graph --words lang/words.txt --ref dev.text

Both get the same beam, the same most active states and the same acoustic scale. RTF is CPU seconds per second of
audio, because k2 prunes in a second thread; `wall` is the time on the clock. kaldi-decoder is Kaldi's FasterDecoder,
which looks for one best path and makes no lattice; `pip install kaldi-decoder` brings it.
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from asrcompress.decoding.archive import Archive
from asrcompress.errors import UserError
from asrcompress.lang import text
from asrcompress.lang.tokens import read_symbols

Row = dict[str, float]


def k2_search(args: argparse.Namespace) -> tuple[dict[str, str], Row]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "hyp")
        subprocess.run([args.k2_python, "-m", "asrcompress.cli", "search", "--archive", args.archive, "--graph",
                        args.graph / "HLG.npz", "--words", args.words, "--out", out, "--acoustic-scale",
                        str(args.acoustic_scale), "--search-beam", str(args.beam), "--max-active",
                        str(args.max_active)], check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
        return text.read(out), json.loads(Path(f"{out}.json").read_text())


def kaldi_search(args: argparse.Namespace) -> tuple[dict[str, str], Row]:
    import kaldi_decoder
    import kaldifst

    archive, names = Archive(args.archive), {number: word for word, number in read_symbols(args.words).items()}
    options = kaldi_decoder.FasterDecoderOptions(beam=args.beam, max_active=args.max_active)
    graph = kaldifst.StdVectorFst.read(str(args.graph / "HLG.fst"))  # named, as the decoder does not keep it alive
    decoder = kaldi_decoder.FasterDecoder(graph, options)
    found, start, cpu = {}, time.perf_counter(), time.process_time()
    for utt in archive.utts:
        log_probs = archive[utt].astype(np.float32) * args.acoustic_scale
        decoder.decode(kaldi_decoder.DecodableCtc(log_probs))
        ok, best = decoder.get_best_path()
        ids = kaldifst.get_linear_symbol_sequence(best)[2] if ok else []
        found[utt] = " ".join(names[number] for number in ids)
    audio = sum(map(archive.frames, archive.utts)) * archive.frame_seconds
    return found, {"rtf": (time.process_time() - cpu) / audio, "wall_rtf": (time.perf_counter() - start) / audio,
                   "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def wer(ref: dict[str, str], hyp: dict[str, str]) -> float:
    import kaldialign

    errors = sum(kaldialign.edit_distance(ref[utt].split(), hyp[utt].split())["total"] for utt in hyp)
    return 100 * errors / sum(len(ref[utt].split()) for utt in hyp)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--graph", type=Path, required=True, help="folder with HLG.npz and HLG.fst")
    parser.add_argument("--words", type=Path, required=True)
    parser.add_argument("--ref", type=Path, required=True, help="reference transcripts")
    parser.add_argument("--acoustic-scale", type=float, default=1.0)
    parser.add_argument("--beam", type=float, default=20.0)
    parser.add_argument("--max-active", type=int, default=7000)
    parser.add_argument("--k2-python", default=os.environ.get("K2_PYTHON", "python"))
    args = parser.parse_args()
    for name in ("archive", "graph", "words", "ref"):
        setattr(args, name, getattr(args, name).resolve())
    ref = text.read(args.ref)
    print(f"beam {args.beam:g}, {args.max_active} states, acoustic scale {args.acoustic_scale:g}\n"
          f"{'search':15} {'WER %':>7} {'RTF':>8} {'wall':>8} {'peak MiB':>9}")
    for name, search in (("asrcompress, k2", k2_search), ("kaldi-decoder", kaldi_search)):
        hyp, row = search(args)
        print(f"{name:15} {wer(ref, hyp):7.2f} {row['rtf']:8.4f} {row['wall_rtf']:8.4f} "
              f"{row['peak_rss_bytes'] / 2**20:9.0f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"{error}") from None
