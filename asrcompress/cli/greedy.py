"""Greedy CTC search of a posterior archive: tokens without any graph, and words where the units are BPE.

    asrcompress greedy --archive dev-clean-2.post --lang lang --ref data/dev-clean-2.text --out greedy
writes greedy/tokens.txt and greedy/ref.tokens.txt (first pronunciations) for a token error rate; with BPE also hyp.txt.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--lang", type=Path, required=True)
    parser.add_argument("--ref", type=Path, required=True, help="transcripts: UTT-ID WORD WORD ...")
    parser.add_argument("--out", type=Path, required=True, help="a folder")


def run(args: argparse.Namespace) -> None:
    from asrcompress.decoding import greedy
    from asrcompress.decoding.archive import Archive
    from asrcompress.lang import lexicon, text
    from asrcompress.lang.tokens import read_symbols

    hypotheses = greedy.greedy(Archive(args.archive), read_symbols(args.lang / "tokens.txt"))
    if (args.lang / "bpe.model").exists():
        text.write(args.out / "hyp.txt", greedy.greedy_words(hypotheses))
    spoken = lexicon.read(args.lang / "lexicon.txt")
    references = {name: words.split() for name, words in text.read(args.ref).items()}
    known = {name: words for name, words in references.items() if all(word in spoken for word in words)}
    text.write(args.out / "ref.tokens.txt",
               {name: " ".join(token for word in words for token in spoken[word][0]) for name, words in known.items()})
    text.write(args.out / "tokens.txt", {name: tokens for name, tokens in hypotheses.items() if name in known})
    print(f"{args.out}: {len(known)} of {len(references)} references have a pronunciation for every word")
