"""Transcribe a prepared set with a model and score it: WER with its interval, and a row in results.jsonl.

    asrcompress evaluate hf:exp/whisper-tiny --data data --set dev-clean-2 --out exp/dense
    asrcompress evaluate whisper.packed --data data --set dev-clean-2 --out exp/int4 --dense exp/dense \\
        --rows results.jsonl --row name=int4
writes OUT/dev-clean-2/hyp.txt (what the model says), ref.txt and words.txt (as words are counted), and the score. The
references and the hypotheses are normalised alike, as the recogniser says (Whisper: as OpenAI counts words). --dense is
the folder of the model before it was compressed, for p(better than dense).
"""

import argparse
from pathlib import Path

from asrcompress.cli.transcribe import add_recogniser, recogniser_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a packed file, a model file, or hf: and a folder or name of Hugging Face's")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--set", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results of this model")
    parser.add_argument("--dense", type=Path, metavar="DIR", help="--out of the dense model")
    parser.add_argument("--rows", type=Path, help="results.jsonl, to add or replace this result's row")
    parser.add_argument("--row", action="append", default=[], metavar="KEY=VALUE", help="what the row says (repeat)")
    add_recogniser(parser)


def run(args: argparse.Namespace) -> None:
    from asrcompress import recognisers
    from asrcompress.decoding.evaluate import evaluate
    from asrcompress.recipe.rows import of_files, search_of
    from asrcompress.report import rows

    known, options = rows.parse(args.row), recogniser_options(args)
    if args.rows:
        said = {"name": args.out.name, "search": search_of(options), **known, "test_set": args.set}
        known = rows.check(said, "--row")
    recogniser = recognisers.load(args.model, **options)
    result = evaluate(recogniser, args.data, args.set, args.out, args.dense)
    packed = Path(args.model) if Path(args.model).is_file() else None
    facts = {**of_files(args.out / args.set / "hyp.txt", packed), **result.facts}
    if args.rows:
        given = {key: value for key, value in known.items() if value is not None}
        rows.put(args.rows, {**facts, **given, **result.score.row()})
    print(f"{args.out}: {result.score.line()}, RTF {facts['rtf']:.4f}"
          + (f", {facts['packed_bytes']:,} bytes" if packed else ""))
