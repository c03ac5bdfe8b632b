"""int4: integers of 4 bits with a scale per group of values in a row, by default 32 and symmetric."""

from dataclasses import dataclass

from asrcompress.compression.quantization._integer import Integer


class Int4(Integer):
    """`group=32` costs half a bit a value for the scales; `group=0` is a scale per output channel."""

    @dataclass(frozen=True)
    class Options(Integer.Options):
        """Those of int8; `group` is 32 by default."""

        group: int = 32

    name, bits = "int4", 4
