"""Make a small spoken corpus with a speech synthesiser, in LibriSpeech's layout (the quickstart's data)."""

import argparse
from pathlib import Path

from asrcompress.data import quickstart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to write the corpus into")
    parser.add_argument("--grammar", type=Path, default=quickstart.GRAMMAR, help="what is said")
    parser.add_argument("--lexicon", type=Path, default=quickstart.LEXICON, help="how it sounds")
    parser.add_argument("--train-minutes", type=float, default=40, help="length of train-quick (default 40)")
    parser.add_argument("--test-minutes", type=float, default=4, help="length of dev-quick (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="one seed, one corpus (default 0)")


def run(args: argparse.Namespace) -> None:
    from asrcompress.data.synthesis import synthesize

    synthesize(args.out, args.grammar, args.lexicon, args.train_minutes, args.test_minutes, args.seed)
    print(f"{args.out}: {args.train_minutes:g} minutes to train on and {args.test_minutes:g} to test")
