"""A shorten decoder, bit by bit, after Robinson 1994 (CUED/F-INFENG/TR.156): slow, and in nothing like the encoder."""

import numpy as np


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.bits, self.place = np.unpackbits(np.frombuffer(data, np.uint8)), 0

    def unsigned(self, width: int) -> int:
        """A Rice code: zeros, a one, `width` bits."""
        zeros = int(self.bits[self.place:].argmax())
        self.place += zeros + 1 + width
        value = zeros
        for bit in self.bits[self.place - width:self.place]:
            value = 2 * value + int(bit)
        return value

    def signed(self, width: int) -> int:
        value = self.unsigned(width)
        return -(value + 1) // 2 if value % 2 else value // 2

    def ulong(self) -> int:
        return self.unsigned(self.unsigned(2))


def _truncated(number: int, divisor: int) -> int:
    return number // divisor if number >= 0 else -(-number // divisor)


def decode(stream: bytes) -> np.ndarray:
    """(n,) int16 samples of a stream with one channel of 16 bits, polynomial predictors and zero blocks."""
    version, bits = stream[4], _Bits(stream[5:])
    kind, channels, block, _, means, skipped = (bits.ulong() for _ in range(6))
    assert stream[:4] == b"ajkg" and version in (1, 2) and kind in (3, 5) and (channels, skipped) == (1, 0)
    rounding = version == 2
    history, samples = [0] * means, [0, 0, 0]
    while (command := bits.unsigned(2)) != 4:
        if command == 5:
            block = bits.ulong()
            continue
        assert command in (0, 1, 2, 3, 8), f"command {command}"
        start = len(samples)
        if command == 8:
            samples += [0] * block
        else:
            width = bits.unsigned(3) + 1
            expected = _truncated(sum(history) + (means // 2 if rounding else 0), means) if means else 0
            for _ in range(block):
                a, b, c = samples[-1], samples[-2], samples[-3]
                samples.append(bits.signed(width) + (expected, a, 2 * a - b, 3 * a - 3 * b + c)[command])
        total = sum(samples[start:]) + (block // 2 if rounding else 0)
        history = [*history, _truncated(total, block)][len(history) + 1 - means:]
    return np.array(samples[3:], np.int64).astype(np.int16)
