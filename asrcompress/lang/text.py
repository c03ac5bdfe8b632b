"""Kaldi's `text` files: `UTTERANCE-ID WORD WORD ...`, one utterance a line, sorted by id."""

from pathlib import Path

from asrcompress.files import atomic, require_file


def read(path: Path | str) -> dict[str, str]:
    lines = require_file(path, "the transcript file").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {pair[0]: " ".join(pair[1].split()) if len(pair) > 1 else "" for pair in pairs}


def write(path: Path | str, texts: dict[str, str]) -> None:
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{key} {texts[key]}".rstrip() + "\n" for key in sorted(texts)), encoding="utf-8")
