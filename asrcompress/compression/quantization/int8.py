"""int8: integers of 8 bits with a scale per row (output channel), by default symmetric."""

from asrcompress.compression.quantization._integer import Integer


class Int8(Integer):
    """`group=0` is a scale per output channel, as devices have it; `affine=True` adds a zero point."""

    name, bits = "int8", 8
