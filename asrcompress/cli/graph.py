"""Build the decoding graph HLG, and G for rescoring, from a lang folder and ARPA files (k2 environment).

  asrcompress graph --lang lang --arpa lm/3-gram.pruned.3e-7.arpa.gz --out graph/tgsmall
  asrcompress graph --lang lang --large lm/3-gram.arpa.gz --out graph/tglarge

Writes DIR/HLG.npz (with --arpa), DIR/G.npz (with --large) and DIR/HLG.fst (with --device-fst, of the HLG.npz there).
What is already there and was built from the same inputs is left alone.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from asrcompress.errors import UserError

NEEDS_K2 = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lang", type=Path, required=True, help="folder with tokens.txt, lexicon.txt and words.txt")
    parser.add_argument("--arpa", type=Path, help="language model of the search, plain or .gz")
    parser.add_argument("--large", type=Path, help="language model of the rescoring, plain or .gz")
    parser.add_argument("--max-order", type=int, default=3, help="leave out n-grams of a higher order")
    parser.add_argument("--device-fst", action="store_true", help="also write HLG.fst for sherpa-onnx")
    parser.add_argument("--device-beam", type=float, default=16.0, metavar="B",
                        help="search beam on the device, the same as in `asrcompress export --beam`")
    parser.add_argument("--out", type=Path, required=True, help="the graph folder")


def run(args: argparse.Namespace) -> None:
    from asrcompress.files import atomic, require_file
    from asrcompress.fsa import child

    names = ("tokens.txt", "lexicon.txt", "words.txt")
    lang_files = [require_file(args.lang / name, "the lang file") for name in names]
    jobs: dict[str, tuple[Callable[[argparse.Namespace], None], list[Path]]] = {}
    if not (args.arpa or args.large or args.device_fst):
        raise UserError("give --arpa for HLG, --large for G, or --device-fst")
    if args.arpa:
        jobs["HLG.npz"] = (_hlg, [*lang_files, args.arpa])
    if args.device_fst:
        jobs["HLG.fst"] = (_device, [args.out / "HLG.npz"])
    if args.large:
        jobs["G.npz"] = (_large, [lang_files[2], args.large])
    stamp = args.out / "graph.json"
    for name, (build, inputs) in jobs.items():
        wanted = _digest(inputs, args.max_order)
        if name == "HLG.fst" and args.device_beam != 16:
            wanted += f" beam {args.device_beam:g}"
        done = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
        if done.get(name) == wanted and (args.out / name).exists():
            print(f"{args.out / name} is up to date")
            continue
        child.call(inputs[-1], build, args)
        with atomic(stamp) as temporary:
            temporary.write_text(json.dumps(done | {name: wanted}, indent=1), encoding="utf-8")


def _digest(inputs: list[Path], max_order: int) -> str:
    from asrcompress.files import require_file

    digest = hashlib.sha256(f"graph 1 {max_order}".encode())  # count up when the programs build another graph
    for path in inputs:
        digest.update(hashlib.sha256(require_file(path, "the file").read_bytes()).digest())
    return digest.hexdigest()


class _Steps:
    """Prints what each step made and how long it took."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, message: str) -> None:
        now = time.perf_counter()
        print(f"{message} ({now - self._last:.1f} s)", flush=True)
        self._last = now


def _hlg(args: argparse.Namespace) -> None:
    from asrcompress.fsa import graph, lexicon, storage

    step = _Steps()
    lang = lexicon.read_lang(args.lang)
    grammar, kept = graph.grammar_fst(args.arpa, lang.words, args.max_order)
    step(f"G of {args.arpa.name}: {kept}")
    hlg = graph.compile_hlg(lang, grammar)
    step(f"HLG: {graph.arcs_and_states(hlg)}")
    storage.save(args.out / "HLG.npz", hlg, "HLG")
    step(_written(args.out / "HLG.npz"))


def _device(args: argparse.Namespace) -> None:
    from asrcompress.fsa import openfst, storage

    step = _Steps()
    if args.device_beam <= 0:
        raise UserError(f"--device-beam {args.device_beam:g}: a beam is above 0; 16 leaves the costs as they are")
    openfst.write_openfst(args.out / "HLG.fst", storage.load(args.out / "HLG.npz", "HLG"), args.device_beam)
    step(_written(args.out / "HLG.fst"))


def _large(args: argparse.Namespace) -> None:
    from asrcompress.fsa import graph, storage
    from asrcompress.lang.tokens import read_symbols

    step = _Steps()
    words = read_symbols(args.lang / "words.txt")
    grammar, kept = graph.grammar_fst(args.large, words, args.max_order)
    step(f"G of {args.large.name}: {kept}")
    storage.save(args.out / "G.npz", graph.rescoring_grammar(grammar, words["#0"]), "G")
    step(_written(args.out / "G.npz"))


def _written(path: Path) -> str:
    return f"wrote {path}, {path.stat().st_size / 1e6:.0f} MB"
