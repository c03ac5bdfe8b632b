"""Train an n-gram language model from text, cut an ARPA model down to a vocabulary, prune it, or weigh its orders anew.

  asrcompress ngram --text data/train/text --utterance-ids --out lm/3-gram.arpa
  asrcompress ngram --arpa lm/3-gram.arpa.gz --words lang/words.txt --out lm/small.arpa
  asrcompress ngram --arpa lm/3-gram.arpa.gz --smooth data/train/text --utterance-ids --out lm/smooth.arpa
  asrcompress ngram --arpa lm/3-gram.arpa.gz --prune 1e-7 --out lm/pruned.arpa.gz

Pruning is by weighted differences, as IRSTLM's prune-lm; --prune-to looks for the threshold that leaves N n-grams.
"""

import argparse
from pathlib import Path

from asrcompress.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, nargs="+", help="training text, one sentence a line")
    parser.add_argument("--utterance-ids", action="store_true", help="the first field of a line is not a word")
    parser.add_argument("--arpa", type=Path, help="an ARPA file (or .gz) to check and cut down, in place of --text")
    parser.add_argument("--words", type=Path, help="words.txt: leave out n-grams with any other word")
    parser.add_argument("--smooth", type=Path, nargs="+", metavar="TEXT",
                        help="fit how far each order of --arpa is trusted to these sentences")
    parser.add_argument("--if-cut", action="store_true",
                        help="smooth only where count cut-offs left n-grams of probability 0; otherwise write nothing")
    parser.add_argument("--prune", type=float, metavar="THRESHOLD", help="leave out n-grams of --arpa that matter less")
    parser.add_argument("--prune-to", type=int, metavar="N", help="prune --arpa to at most N n-grams")
    parser.add_argument("--order", type=int, choices=range(1, 6), help="words of the longest n-grams, to train or to "
                        "keep of --arpa (default: 3 with --text, all that --arpa has)")
    parser.add_argument("--min-counts", default="", metavar="N,N,...",
                        help="leave out n-grams of order 1, 2, ... seen fewer times (with --text)")
    parser.add_argument("--out", type=Path, required=True, help="the ARPA file to write")


def run(args: argparse.Namespace) -> None:
    from asrcompress.lang import ngram
    from asrcompress.lang.tokens import read_symbols

    if bool(args.text) == bool(args.arpa):
        raise UserError("give either --text to train a language model or --arpa to cut one down")
    if args.order and (args.smooth or args.prune is not None or args.prune_to is not None):
        raise UserError("--smooth, --prune and --prune-to keep every order; give --order in a command of its own")
    if args.smooth:
        _smooth(args)
        return
    if args.prune is not None or args.prune_to is not None:
        _prune(args)
        return
    if args.text:
        sentences = _sentences(args.text, args.utterance_ids)
        order = args.order or 3
        ngram.train(sentences, args.out, order, _counts(args.min_counts))
        print(f"{args.out}: {order}-gram language model of {len(sentences)} sentences")
    if args.words or args.arpa:
        source = args.arpa or args.out
        words = read_symbols(args.words) if args.words else [f[1] for _, f in ngram.ngrams(source, 1)]
        print(f"{args.out}: {ngram.restrict(source, args.out, words, args.order or 0)}")


def _smooth(args: argparse.Namespace) -> None:
    from asrcompress.lang import smoothing

    if not args.arpa or args.words:
        raise UserError("--smooth goes with --arpa, and without --words; `asrcompress graph` leaves out other words")
    if args.if_cut and not smoothing.is_cut(args.arpa):
        print(f"{args.arpa} lists no n-gram of probability 0; left as it is")
        return
    print(f"{args.out}: {smoothing.smooth(args.arpa, args.out, _sentences(args.smooth, args.utterance_ids))}")


def _prune(args: argparse.Namespace) -> None:
    from asrcompress.lang import backoff, pruning

    if not args.arpa or args.words or args.prune is not None and args.prune_to is not None:
        raise UserError("give one of --prune and --prune-to, with --arpa and without --words")
    model, threshold = backoff.read(args.arpa), args.prune
    if threshold is None:
        pruned, threshold = pruning.prune_to(model, args.prune_to)
    else:
        pruned = pruning.prune(model, threshold)
    backoff.save(pruned, args.out)
    print(f"{args.out}: {backoff.described(pruned)}, pruned at {threshold:.3g} from {backoff.size(model):,}")


def _sentences(paths: list[Path], utterance_ids: bool) -> list[str]:
    from asrcompress.lang import text

    return [sentence for path in paths for sentence in text.sentences(path, utterance_ids)]


def _counts(text: str) -> list[int]:
    try:
        return [int(count) for count in text.split(",") if count]
    except ValueError:
        raise UserError(f"--min-counts {text} is not a list of whole numbers such as 0,0,2") from None
