"""Model of `range`: what its stream says before the symbols, written and read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asrcompress.compression.coders import _tables as tables
from asrcompress.compression.coders._ans import Reader, Table, Writer
from asrcompress.compression.coders._contexts import HIGHEST, LAST, MOST, Contexts, matrix, strides
from asrcompress.compression.coders._symbols import Split, Symbols


class Model(NamedTuple):
    """Tokens 0 to size - 1 of a split, and the table of each context."""

    split: Split
    size: int
    contexts: Contexts
    family: int
    parameters: Symbols  # (contexts,) scales, or (contexts, size) levels

    def table(self) -> Table:
        """(contexts, size)"""
        if self.family == tables.LEVELS:
            return tables.of_levels(self.parameters)
        return tables.parametric(self.family, self.parameters, self.split, self.size)


def put_model(writer: Writer, model: Model) -> None:
    split, contexts = model.split, model.contexts
    _put_signed(writer, split.base)
    _put(writer, (split.signed, 1), (split.direct, 4), (split.mantissa, 3))
    writer.put_number(model.size)
    writer.put_number(contexts.total)
    _put_signed(writer, contexts.first)
    _put(writer, (model.family, 2), (contexts.rows is not None, 1), (contexts.columns is not None, 1),
         (contexts.axis, 2))
    for integers in (contexts.rows, contexts.columns, contexts.steps):
        if integers is not None:
            tables.put_integers(writer, integers.ravel())
    if model.family == tables.LEVELS:
        tables.put_levels(writer, model.parameters)
    else:
        writer.put_plain(model.parameters.astype(np.uint64), 7)


def take_model(reader: Reader, shape: Sequence[int]) -> Model:
    base = _take_signed(reader)
    signed, direct, mantissa = _take(reader, 1, 4, 3)
    split = Split(base, bool(signed), direct, mantissa)
    size, count = tables.token_count(reader.take_number(), split), reader.take_number()
    first = _take_signed(reader)
    family, by_row, by_column, axis = _take(reader, 2, 1, 1, 2)
    if not mantissa <= direct <= 8 or not 1 <= count <= MOST or family > tables.LEVELS or axis > LAST:
        raise ValueError(f"a range stream has {count} contexts of family {family} along axis {axis}")
    rows, columns = matrix(shape)
    contexts = Contexts(count, first, tables.take_integers(reader, rows) if by_row else None,
                        tables.take_integers(reader, columns) if by_column else None, axis,
                        tables.take_integers(reader, 8 * len(strides(shape, axis))).reshape(-1, 8) if axis else None)
    parts = [part for part in (contexts.rows, contexts.columns, contexts.steps) if part is not None and part.size]
    if max([abs(first), *(max(-int(part.min()), int(part.max())) for part in parts)]) > HIGHEST:
        raise ValueError("a range stream has rows, columns or neighbours beyond any context")
    if family == tables.LEVELS:
        return Model(split, size, contexts, family, tables.take_levels(reader, count, size))
    return Model(split, size, contexts, family, reader.take_plain(count, 7).astype(np.int64))


def _put_signed(writer: Writer, number: int) -> None:
    writer.put_number(2 * number if number >= 0 else -2 * number - 1)


def _take_signed(reader: Reader) -> int:
    code = reader.take_number()
    return code // 2 if code % 2 == 0 else -(code // 2) - 1


def _put(writer: Writer, *fields: tuple[int, int]) -> None:
    for value, width in fields:
        writer.put_plain(np.array([value], np.uint64), width)


def _take(reader: Reader, *widths: int) -> list[int]:
    return [int(reader.take_plain(1, width)[0]) for width in widths]
