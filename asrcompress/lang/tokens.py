"""Symbol tables: `tokens.txt` and `words.txt`, one `<symbol> <id>` a line."""

from collections.abc import Iterable
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import textfile

BLANK = "<blk>"


def read_symbols(path: Path | str) -> dict[str, int]:
    """Symbol -> id, in file order.

    Errors: UserError where a line is not `<symbol> <id>`, a symbol or an id comes twice, or an id is missing.
    """
    symbols: dict[str, int] = {}
    for number, line in textfile.lines(path, "the symbol table"):
        fields = textfile.fields(line)
        if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdigit()):
            raise textfile.wrong(path, number, f"expected '<symbol> <id>', found '{line[:40]}'",
                                 "make the lang folder again")
        if fields[0] in symbols:
            raise textfile.wrong(path, number, f"'{fields[0]}' comes a second time", "make the lang folder again")
        symbols[fields[0]] = int(fields[1])
    if sorted(symbols.values()) != list(range(len(symbols))):
        raise UserError(f"{path}: the ids are not 0 to {len(symbols) - 1}, once each; make the lang folder again")
    return symbols


def write_symbols(path: Path | str, symbols: Iterable[str]) -> None:
    """Write the symbols with the ids 0, 1, 2, ..."""
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{symbol} {i}\n" for i, symbol in enumerate(symbols)), encoding="utf-8")


def collapse(path: Iterable[int], blank: int = 0) -> list[int]:
    """The CTC map: repeats merged, then blanks removed."""
    out: list[int] = []
    previous = blank
    for token in path:
        if token not in (previous, blank):
            out.append(token)
        previous = token
    return out
