"""Read a corpus and compute features: training sets with speed perturbation, test sets, a held-out set."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, help="folder that holds LibriSpeech/")
    parser.add_argument("--layout", default="librispeech", help="module of asrcompress.data.corpora that reads it")
    parser.add_argument("--download", choices=("mini", "full"), help="fetch the corpus and language models there first")
    parser.add_argument("--train-sets", default="",
                        help="subsets, separated by blanks; the first gives the held-out speakers")
    parser.add_argument("--test-sets", default="")
    parser.add_argument("--speeds", default="0.9 1.0 1.1", help="speed perturbation of the training sets")
    parser.add_argument("--held-out-minutes", type=float, default=15)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)


def run(args: argparse.Namespace) -> None:
    import importlib

    from asrcompress.data.prepare import prepare
    from asrcompress.errors import UserError

    try:
        layout = importlib.import_module(f"asrcompress.data.corpora.{args.layout}")
    except ModuleNotFoundError:
        raise UserError(f"there is no module asrcompress/data/corpora/{args.layout}.py; check --layout") from None
    if args.download:
        layout.download(args.corpus, mini=args.download == "mini")
    if args.train_sets or args.test_sets:
        prepare(layout.prepare, args.corpus, args.train_sets.split(), args.test_sets.split(), args.out,
                speeds=[float(speed) for speed in args.speeds.split()],
                held_out_minutes=args.held_out_minutes, jobs=args.jobs)
