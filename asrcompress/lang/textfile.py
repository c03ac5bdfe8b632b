"""The one reader of text files: transcripts, lexicons, ARPA models, symbol tables, sentences, grammars.

It decides for all of them (docs/text_files.md): UTF-8, with or without a byte order mark; plain or gzipped; a line ends
with a line feed, alone or after a carriage return, and with nothing else; blank lines say nothing. What is not so is an
error that names file and line.
"""

import gzip
import re
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from asrcompress.errors import UserError
from asrcompress.files import require_file

GZIP = b"\x1f\x8b"
BLOCK = 2**20  # bytes read at once
UTF16 = (b"\xff\xfe", b"\xfe\xff")
RESERVED = frozenset({"<eps>", "#0", "<s>", "</s>"})  # symbols of words.txt that no transcript or lexicon may use
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BLANKS = re.compile("[ \t]+")


def lines(path: Path | str, what: str, otherwise: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without white space at its ends) of every line that is not blank.

    `what` names the file in messages, such as "the lexicon". A line that is not UTF-8 is read in the encoding
    `otherwise`, where one is given. Errors: UserError where the file is missing or damaged, and, with the line, where
    bytes are not UTF-8 or a control character stands.
    """
    path = require_file(path, what)
    if not path.is_file():
        raise UserError(f"{what} {path} is a folder; give a file")
    number = 0
    try:
        with _opened(path) as stream:
            while block := stream.read(BLOCK) + stream.readline():
                for line in _plain(block) or _odd(path, number, block, otherwise):
                    number += 1
                    if line := line.strip():
                        yield number, line
    except (EOFError, OSError, zlib.error) as error:
        raise wrong(path, number + 1, f"the file cannot be read on ({error})", "get a whole copy of it") from None


def wrong(path: Path | str, number: int, what: str, remedy: str) -> UserError:
    """The error of a line that is not understood, for `raise`."""
    return UserError(f"{path}, line {number}: {what}; {remedy}")


def fields(line: str) -> list[str]:
    """What stands between spaces and tabs. Other white space, such as a no-break space, belongs to its field."""
    return line.split() if line.isascii() else _BLANKS.split(line.strip(" \t"))


def odd_space(text: str) -> str | None:
    """The name of a white space character that `fields` does not split at, or None: "NO-BREAK SPACE (U+00A0)"."""
    return next((_named(c) for c in text if c.isspace() and c not in " \t"), None)


def is_gzip(path: Path | str) -> bool:
    """Whether a file begins as gzip does, whatever its name."""
    with Path(path).open("rb") as stream:
        return stream.read(len(GZIP)) == GZIP


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if is_gzip(path) else path.open("rb")  # type: ignore[return-value]


def _plain(block: bytes) -> list[str]:
    """The lines of whole lines without anything odd, [] where each must be looked at."""
    if _CONTROL.search(block.replace(b"\n", b"")):
        return []
    try:
        text = block.removesuffix(b"\n").decode()
    except UnicodeDecodeError:
        return []
    return [] if "\ufeff" in text else text.split("\n")


def _odd(path: Path, before: int, block: bytes, otherwise: str | None) -> Iterator[str]:
    """The lines of a block one by one, `before` lines into the file."""
    for number, raw in enumerate(block.removesuffix(b"\n").split(b"\n"), before + 1):
        yield _decoded(path, number, raw, otherwise)


def _decoded(path: Path, number: int, raw: bytes, otherwise: str | None) -> str:
    if number == 1 and raw.startswith(UTF16):
        raise wrong(path, number, "the file is UTF-16", f"write it as UTF-8: iconv -f UTF-16 -t UTF-8 {path}")
    raw = raw.removesuffix(b"\r")
    if found := _CONTROL.search(raw):
        raise wrong(path, number, f"the control character {_named(chr(found[0][0]))}",
                    "remove it; a line ends with a line feed, and the file is UTF-8 text")
    try:
        return raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if otherwise:
            return raw.decode(otherwise)
        raise wrong(path, number, f"the byte 0x{raw[error.start]:02x} is not UTF-8",
                    f"write the file as UTF-8, such as with iconv -f LATIN1 -t UTF-8 {path}") from None


def _named(character: str) -> str:
    return f"{unicodedata.name(character, 'character')} (U+{ord(character):04X})"
