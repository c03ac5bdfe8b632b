"""Search a posterior archive over HLG for the best words, with lattice rescoring if asked (k2 environment).

  asrcompress search --archive dev.post --graph graph/HLG.npz --words lang/words.txt --acoustic-scale 0.8 --out dev.txt
  asrcompress search --archive held-out.post --graph graph/HLG.npz --words lang/words.txt \\
    --acoustic-scale 0.5,0.7,1.0 --blank-penalty 0,0.5 --lattice-scale 0.7 --out sweep

With several scales, or where --out is a folder already, it gets a file for each: ac0.5.txt, or ac0.5-lm0.9-bp1.txt
where the language model's scale and the blank's penalty vary too, or are not 1 and 0. Beside each file of hypotheses
stands FILE.json: real-time factor, peak memory, counts.
"""

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from asrcompress.errors import UserError

if TYPE_CHECKING:
    from asrcompress.fsa.decode import Setting

NEEDS_K2 = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", type=Path, required=True, help="posterior archive")
    parser.add_argument("--graph", type=Path, required=True, help="HLG.npz")
    parser.add_argument("--words", type=Path, required=True, help="words.txt of the lang folder")
    parser.add_argument("--out", type=Path, required=True, help="hypotheses to write, or a folder for several scales")
    parser.add_argument("--rescore", type=Path, metavar="G.npz", help="rescore the lattices with this language model")
    parser.add_argument("--acoustic-scale", default="1.0", metavar="S[,S...]", help="factor on the log-posteriors")
    parser.add_argument("--lm-scale", default="1.0", metavar="S[,S...]", help="factor on the --rescore language model")
    parser.add_argument("--blank-penalty", default="0", metavar="P[,P...]",
                        help="taken from the blank's log-posterior, against deletions")
    parser.add_argument("--lattice-scale", type=float, metavar="S",
                        help="search once, with this acoustic scale, and take all scales and penalties from its "
                        "lattices: fast, and nearly what each search would find")
    parser.add_argument("--search-beam", type=float, default=20.0)
    parser.add_argument("--output-beam", type=float, default=8.0, help="beam of the lattice")
    parser.add_argument("--min-active", type=int,
                        help="least states kept a frame (default: 30, or as many as --max-active allows)")
    parser.add_argument("--max-active", type=int, default=7000, help="most states kept a frame")
    parser.add_argument("--nj", type=int, default=1, help="processes")


def run(args: argparse.Namespace) -> None:
    from asrcompress.decoding.archive import Archive
    from asrcompress.fsa import decode, search, storage
    from asrcompress.lang.tokens import read_symbols
    from asrcompress.options import require

    settings = _settings(args)
    least = min(30, max(0, args.max_active - 1)) if args.min_active is None else args.min_active
    beams = search.Beams(args.search_beam, args.output_beam, least, args.max_active)
    archive = Archive(args.archive)
    names = {number: word for word, number in read_symbols(args.words).items()}
    grammar = storage.load(args.rescore, "G") if args.rescore else None
    graph = storage.load(args.graph, "HLG")
    require(search.highest_word(graph) < len(names), f"{args.words} has {len(names)} words, and the graph {args.graph} "
            f"says word {search.highest_word(graph)}; give the words.txt that the graph was made with")
    decoder = decode.Decoder(archive, search.Searcher(graph, grammar, beams), settings, args.lattice_scale)
    results = decode.decode(decoder, args.nj, _progress)
    for setting, result in results.items():
        report = decode.report(archive, setting, result)
        out = _write(args, setting, len(settings) > 1 or args.out.is_dir(), {utt: " ".join(map(names.__getitem__, ids))
                                                        for utt, ids in result.words.items()}, report)
        print(f"{out}: RTF {report['rtf']:.4f} a core, peak memory {report['peak_rss_bytes'] / 2**20:.0f} MiB, "
              f"{report['utts']} utterances, {report['retried']} with a wider beam, {report['empty']} without a path")


def _settings(args: argparse.Namespace) -> "list[Setting]":
    from asrcompress.fsa.decode import Setting

    if args.lm_scale != "1.0" and not args.rescore:
        raise UserError("--lm-scale acts on the language model of --rescore; give that too, or use --acoustic-scale")
    if args.lattice_scale is not None:
        _numbers("--lattice-scale", str(args.lattice_scale))
    if args.nj < 1:
        raise UserError(f"--nj {args.nj}: at least one process is needed")
    return [Setting(acoustic, lm, blank) for acoustic in _numbers("--acoustic-scale", args.acoustic_scale)
            for blank in _numbers("--blank-penalty", args.blank_penalty, positive=False)
            for lm in _numbers("--lm-scale", args.lm_scale)]


def _numbers(option: str, text: str, positive: bool = True) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(number > 0 if positive else math.isfinite(number) for number in numbers):
        raise UserError(f"{option} {text} is not a list of {'positive ' * positive}numbers such as 0.5,0.7,1.0")
    return numbers


def _progress(done: int, total: int) -> None:
    if done == total or done * 10 // total != (done - 1) * 10 // total:
        print(f"searched {100 * done // total} %", flush=True)


def _write(args: argparse.Namespace, setting: "Setting", folder: bool, texts: dict[str, str],
           report: dict[str, float]) -> Path:
    from asrcompress.files import atomic
    from asrcompress.lang import text

    lm = f"-lm{setting.lm_scale:g}" if "," in args.lm_scale or setting.lm_scale != 1 else ""
    blank = f"-bp{setting.blank_penalty:g}" if "," in args.blank_penalty or setting.blank_penalty else ""
    out = args.out / f"ac{setting.acoustic_scale:g}{lm}{blank}.txt" if folder else args.out
    with atomic(f"{out}.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text.write(out, texts)
    return out
