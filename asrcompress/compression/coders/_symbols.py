"""Symbols: what there is in an array of them, and the split of large ones into a token and plain bits."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.int64]


def distinct(flat: Symbols) -> tuple[Symbols, Symbols, Symbols]:
    """np.unique with the index of each symbol and the counts, by counting where the range is small."""
    from asrcompress.compression.coders import _loops  # compiled only where it is used

    low, high = (int(end) for end in _loops.extremes(flat)) if flat.size else (0, 0)
    if high - low > flat.size + 2**16:
        return np.unique(flat, return_inverse=True, return_counts=True)
    counts = _loops.histogram(flat, low, high - low + 1)
    there = counts > 0
    return np.flatnonzero(there) + low, (np.cumsum(there) - 1)[flat - low], counts[there]


def bit_length(numbers: NDArray[np.uint64]) -> Symbols:
    """Bits of each number below 2^64, 0 for 0."""
    high, low = numbers >> np.uint64(32), numbers & np.uint64(2**32 - 1)
    return np.where(high > 0, 32 + np.frexp(high.astype(np.float64))[1], np.frexp(low.astype(np.float64))[1])


class Split(NamedTuple):
    """How symbols become tokens; the numbers are those of the format of `range`."""

    base: int  # the symbol that is written as 0
    signed: bool  # symbols below the base are written too
    direct: int  # numbers below 2^direct are their own tokens
    mantissa: int  # of a larger one the token says the leading bit and this many bits after it

    def unsigned(self, flat: Symbols) -> NDArray[np.uint64]:
        offsets = flat.astype(np.int64) - np.int64(self.base)  # modulo 2^64
        return ((offsets << 1) ^ (offsets >> 63) if self.signed else offsets).view(np.uint64)

    def symbols(self, numbers: NDArray[np.uint64]) -> Symbols:
        offsets = numbers.view(np.int64)
        if self.signed:
            offsets = (numbers >> np.uint64(1)).view(np.int64) ^ -(offsets & 1)
        return offsets + np.int64(self.base)

    def tokens(self, numbers: NDArray[np.uint64]) -> tuple[Symbols, Symbols]:
        """(tokens, how many low bits of each number they leave open)."""
        small = numbers < np.uint64(2**self.direct)
        if small.all():
            return numbers.astype(np.int64), np.zeros(numbers.shape, np.int64)
        if (most := int(numbers.max())) < min(2**16, numbers.size // 2):  # look them up
            tokens, widths = self.tokens(np.arange(most + 1, dtype=np.uint64))
            return tokens[numbers], widths[numbers]
        leading = bit_length(numbers) - 1
        widths = np.where(small, 0, leading - self.mantissa)
        top = (numbers >> widths.astype(np.uint64)).astype(np.int64) - (1 << self.mantissa)
        buckets = (1 << self.direct) + ((leading - self.direct) << self.mantissa) + top
        return np.where(small, numbers.astype(np.int64), buckets), widths

    def starts(self, tokens: Symbols) -> tuple[NDArray[np.uint64], Symbols]:
        """(the smallest number of each token, how many low bits it leaves open)."""
        above = np.maximum(tokens - (1 << self.direct), 0)
        widths = (above >> self.mantissa) + self.direct - self.mantissa
        top = ((1 << self.mantissa) + (above & ((1 << self.mantissa) - 1))).astype(np.uint64)
        small = tokens < 1 << self.direct
        return (np.where(small, tokens.astype(np.uint64), top << widths.astype(np.uint64)), np.where(small, 0, widths))
