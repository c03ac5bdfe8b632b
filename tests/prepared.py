"""The tiny corpus, prepared once a session: sets with features and a phone lang folder."""

import functools
from pathlib import Path

from asrcompress.data.corpora import librispeech
from asrcompress.data.prepare import prepare
from asrcompress.lang.prepare import phone_lang


@functools.cache
def data(corpus: Path) -> Path:
    """A folder with train-quick (one speaker, three speeds), dev (the other one) and dev-quick."""
    out = corpus.with_name("tiny_data")
    prepare(librispeech.prepare, corpus, ["train-quick"], ["dev-quick"], out, held_out_minutes=0.1)
    return out


@functools.cache
def lang(corpus: Path) -> Path:
    out = corpus.with_name("tiny_lang")
    phone_lang(out, corpus / "lm" / "librispeech-lexicon.txt")
    return out


def folders(corpus: Path) -> list[str]:
    """The arguments that name both."""
    return ["--data", str(data(corpus)), "--lang", str(lang(corpus))]
