#!/usr/bin/env python3
"""Dress a corpus in LibriSpeech's layout as the discs of WSJ0 and WSJ1, for a result on real speech by those who have
no licence for these: a "WSJ-shaped stand-in", whose figures say nothing about WSJ itself.

    .venv/bin/python recipes/wsj/dress.py CORPUS DISCS
    recipes/wsj/run.sh --wsj0 DISCS --wsj1 DISCS --lexicon CORPUS/lm/librispeech-lexicon.txt

A speaker's audio is PCM or shorten, in turns. DISCS/ids.txt says which utterance became which.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrcompress.data.corpora import librispeech  # noqa: E402
from asrcompress.errors import UserError  # noqa: E402
from asrcompress.lang import ngram  # noqa: E402
from recipes.wsj import discs  # noqa: E402

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Set: disc and folder of the audio, of the transcripts, and of the index file.
PLACES = {
    "si84": ("11-1.1", "wsj0/si_tr_s", "11-4.1", "wsj0/transcrp/dots/si_tr_s", "11-13.1",
             "wsj0/doc/indices/train/tr_s_wv1.ndx"),
    "si284": ("13-1.1", "wsj1/si_tr_s", "13-34.1", "wsj1/trans/wsj1/si_tr_s", "13-34.1",
              "wsj1/doc/indices/si_tr_s.ndx"),
    "dev93": ("13-16.1", "wsj1/si_dt_20", "13-34.1", "wsj1/trans/wsj1/si_dt_20", "13-34.1",
              "wsj1/doc/indices/h1_p0.ndx"),
    "eval92": ("11-14.1", "wsj0/si_et_20", "11-14.1", "wsj0/si_et_20", "11-13.1",
               "wsj0/doc/indices/test/nvp/si_et_20.ndx"),
}
BASE_LM = "13-32.1/wsj1/doc/lng_modl/base_lm"


def base36(number: int, width: int) -> str:
    """A number in so many digits and letters. Errors: UserError where it has more."""
    out = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        out = DIGITS[digit] + out
    if number:
        raise UserError(f"the corpus has more speakers, or a speaker more utterances, than {width} characters can name")
    return out


def press(corpus: Path, out: Path, kind: str, subsets: list[str], speakers: dict[str, str], ids: list[str]) -> None:
    """One set of discs: audio, transcripts and index."""
    audio_disc, audio, dots_disc, dots, index_disc, index = PLACES[kind]
    counts: dict[str, int] = {}
    lines: dict[Path, list[str]] = {}
    listed = []
    for subset in subsets:
        folder = corpus / librispeech.AUDIO / subset
        if not (found := librispeech.listed(folder)):
            raise UserError(f"{folder} holds no *.trans.txt; give a corpus in LibriSpeech's layout, and names of its "
                            "sets")
        for flac, words in found:
            speaker = flac.relative_to(folder).parts[0]
            # WSJ's speakers begin with 0 and 4; none begins with z.
            name = speakers.setdefault(f"{subset}/{speaker}", "z" + base36(len(speakers), 2))
            number = counts[name] = counts.get(name, -1) + 1
            utterance = f"{name}c{base36(number // 1296 + 1, 2)}{base36(number % 1296, 2)}"
            target = out / audio_disc / audio / name / f"{utterance}.wv1"
            target.parent.mkdir(parents=True, exist_ok=True)
            coding = list(discs.CODINGS)[int(name[1:], 36) % len(discs.CODINGS)]
            discs.sphere(target, soundfile.read(flac, dtype="int16")[0], coding)
            escaped = re.sub(r"([^\w ])", r"\\\1", words)
            dot = out / dots_disc / dots / name / f"{utterance[:6]}00.dot"
            lines.setdefault(dot, []).append(f"{escaped} ({utterance})")
            listed.append(f"{re.sub('[-.]', '_', audio_disc)}:{audio}/{name}/{utterance}.wv1")
            ids.append(f"{utterance} {flac.stem}")
    lines[out / index_disc / index] = ["; dressed in WSJ's clothes", *listed]
    for path, content in lines.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in content), encoding="latin-1")
    print(f"{kind}: {len(listed)} utterances of {len(counts)} speakers", flush=True)


def language_models(arpa: Path, out: Path) -> None:
    """An ARPA file as the discs have their trigram, plain in spite of its name, after a preamble and with blanks; and
    its 1- and 2-grams as their bigram, by compress(1)."""
    out.mkdir(parents=True, exist_ok=True)
    orders: list[list[str]] = []
    for n, fields in ngram.ngrams(arpa):
        if n > len(orders):
            orders.append([])
        orders[n - 1].append(" ".join(fields) + "\n")
    (out / "tcb20onp.z").write_bytes(_arpa(orders))
    bigrams = [" ".join(line.split()[:3]) + "\n" for line in orders[1]]
    (out / "bcb20onp.z").write_bytes(discs.lzw(_arpa([orders[0], bigrams])))
    print(f"language models: {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.0f} MB", flush=True)


def _arpa(orders: list[list[str]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        ngram.write(path := Path(folder, "arpa"), orders)
        return b"A language model of another corpus, dressed in WSJ's clothes.\n\n" + path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with LibriSpeech/SUBSET/ and lm/")
    parser.add_argument("out", type=Path, help="folder for the discs, empty or not there")
    parser.add_argument("--si84", default="train-clean-5", help="subsets that become train_si84")
    parser.add_argument("--si284", default="train-cv train-voices", help="and those that train_si284 has beside them")
    parser.add_argument("--dev93", default="dev-clean-2")
    parser.add_argument("--eval92", default="test-cv")
    parser.add_argument("--arpa", default="3-gram.arpa.gz", help="of lm/, gzipped: it becomes the 20k trigram")
    args = parser.parse_args()
    try:
        if args.out.exists() and any(args.out.iterdir()):
            raise UserError(f"{args.out} is not empty; give another folder for the discs")
        if not (arpa := args.corpus / "lm" / args.arpa).exists():
            raise UserError(f"{arpa} does not exist; give a corpus with a language model there, or name it with --arpa")
        speakers: dict[str, str] = {}
        ids: list[str] = []
        for kind in PLACES:
            press(args.corpus, args.out, kind, getattr(args, kind).split(), speakers, ids)
        language_models(arpa, args.out / BASE_LM)
        (args.out / "ids.txt").write_text("".join(f"{line}\n" for line in ids))
    except (UserError, OSError) as error:
        sys.exit(f"dress.py: {error}")


if __name__ == "__main__":
    main()
