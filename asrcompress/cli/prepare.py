"""Read a corpus and compute features: training sets with speed perturbation, test sets, a held-out set."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--corpus-type", default="librispeech", help="module of asrcompress.data.corpora that reads it")
    parser.add_argument("--download", metavar="EDITION", help="fetch the corpus and language models there first: "
                        "mini or full LibriSpeech")
    parser.add_argument("--train-sets", default="",
                        help="subsets, separated by blanks; the first gives the held-out speakers")
    parser.add_argument("--test-sets", default="")
    parser.add_argument("--speeds", default="0.9 1.0 1.1", help="speed perturbation of the training sets")
    parser.add_argument("--held-out-minutes", type=float, default=15)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)


def run(args: argparse.Namespace) -> None:
    from asrcompress.data import corpora
    from asrcompress.data.prepare import prepare

    corpus = corpora.get(args.corpus_type)
    if args.download:
        corpus.download(args.corpus, args.download)
    if args.train_sets or args.test_sets:
        prepare(corpus.prepare, args.corpus, args.train_sets.split(), args.test_sets.split(), args.out,
                speeds=_speeds(args.speeds), held_out_minutes=args.held_out_minutes, jobs=args.jobs)


def _speeds(text: str) -> list[float]:
    from asrcompress.errors import UserError

    try:
        speeds = [float(speed) for speed in text.split()]
    except ValueError:
        speeds = []
    if not speeds or not all(0.1 <= speed <= 10 for speed in speeds):
        raise UserError(f"--speeds {text} is not a list of factors between 0.1 and 10 such as '0.9 1.0 1.1'")
    return speeds
