"""Greedy CTC search of a posterior archive: tokens without any graph, and words where the units are BPE.

    asrcompress greedy --archive dev-clean-2.post --lang lang --ref data/dev-clean-2.text --out greedy
writes greedy/tokens.txt and greedy/ref.tokens.txt (first pronunciations) for a token error rate; with BPE also hyp.txt.
With --teacher teacher.post it also prints the spike agreement: at how many of the teacher's frames that are not blank
the model says the same token within one frame.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--lang", type=Path, required=True)
    parser.add_argument("--ref", type=Path, required=True, help="transcripts: UTT-ID WORD WORD ...")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--teacher", type=Path, metavar="ARCHIVE", help="posteriors of another model of the same set")


def run(args: argparse.Namespace) -> None:
    from asrcompress.decoding import greedy
    from asrcompress.decoding.agreement import spike_agreement
    from asrcompress.decoding.archive import Archive
    from asrcompress.lang import text
    from asrcompress.lang.tokens import read_symbols

    archive = Archive(args.archive)
    hypotheses = greedy.greedy(archive, read_symbols(args.lang / "tokens.txt"))
    if (args.lang / "bpe.model").exists():
        text.write(args.out / "hyp.txt", greedy.greedy_words(hypotheses))
    print(greedy.write_scorable(args.out, hypotheses, args.ref, args.lang))
    if args.teacher:
        print(f"{args.teacher}: {spike_agreement(Archive(args.teacher), archive).line()}")
