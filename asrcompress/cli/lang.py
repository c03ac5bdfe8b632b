"""Make the lang folder: tokens, lexicon and word list, in phones or BPE; or one of fewer words, for a small graph.

  asrcompress lang --lexicon lm/librispeech-lexicon.txt --text data/train.text --out data/lang_phone
  asrcompress lang --of data/lang_phone --arpa lm/3-gram.arpa.gz --words 20000 --out data/lang_20k
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--unit", choices=("phone", "bpe"), default="phone")
    parser.add_argument("--lexicon", type=Path, help="WORD phone phone ..., one pronunciation a line")
    parser.add_argument("--text", type=Path, nargs="+", help="transcripts of the training sets")
    parser.add_argument("--vocab-size", type=int, default=500, help="BPE tokens (with --unit bpe)")
    parser.add_argument("--keep-stress", action="store_true", help="keep CMUdict's stress digits on the vowels")
    parser.add_argument("--of", type=Path, metavar="LANG", help="in place of these: a lang folder, of which the most "
                        "frequent words are kept, and all tokens")
    parser.add_argument("--arpa", type=Path, help="with --of: language model whose 1-grams say what is frequent")
    parser.add_argument("--words", type=int, default=20_000, metavar="N",
                        help="with --of: words (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True)


def run(args: argparse.Namespace) -> None:
    from asrcompress.options import require

    if args.of:
        require(bool(args.arpa) and not (args.lexicon or args.text),
                "--of needs --arpa, and neither --lexicon nor --text: the words are those of the folder")
        require(args.words >= 1, f"--words {args.words}: give 1 or more")
        _frequent(args)
    else:
        require(bool(args.lexicon and args.text), "give --lexicon and --text, or --of with a lang folder")
        _new(args)


def _frequent(args: argparse.Namespace) -> None:
    from asrcompress.lang.prepare import frequent_lang

    print(f"{args.out}: {len(frequent_lang(args.out, args.of, args.arpa, args.words))} words")


def _new(args: argparse.Namespace) -> None:
    from asrcompress.errors import UserError
    from asrcompress.lang import lexicon as lexicons
    from asrcompress.lang import text
    from asrcompress.lang.prepare import bpe_lang, phone_lang

    texts = [line for path in args.text for line in text.read(path).values()]
    spoken = lexicons.words_of(texts)
    if args.unit == "phone":
        lexicon = phone_lang(args.out, args.lexicon, strip_stress=not args.keep_stress)
    else:
        listed = lexicons.spoken(lexicons.read(args.lexicon))
        lexicon = bpe_lang(args.out, sorted({*listed, *spoken}), texts, args.vocab_size)
    unknown = [word for word in spoken if word not in lexicon]
    if spoken and len(unknown) == len(spoken):
        raise UserError(f"{args.lexicon} has a pronunciation for none of the {len(spoken)} training words, such as "
                        f"{spoken[0]}; write both in the same case")
    print(f"{args.out}: {len(lexicon)} words, {len(lexicons.tokens_of(lexicon))} tokens and the blank; "
          f"{len(unknown)} of {len(spoken)} training words have no pronunciation"
          + (f" ({', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''})" if unknown else ""))
