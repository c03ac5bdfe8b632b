"""Writers of what is on the LDC's discs: SPHERE audio, plain or shorten-compressed, and text packed by compress(1).

For the tests' miniature of WSJ and for dress.py; nothing that prepares the real corpus needs them. Shorten is written
after A. J. Robinson, "SHORTEN: simple lossless and near-lossless waveform compression", CUED/F-INFENG/TR.156, 1994,
LZW after T. A. Welch, "A technique for high-performance data compression", Computer 17(6), 1984.
"""

from pathlib import Path

import numpy as np

HEADER = 1024  # bytes
CODINGS = {"pcm-be": "pcm", "pcm-le": "pcm",
           "shorten1": "pcm,embedded-shorten-v1.09", "shorten2": "pcm,embedded-shorten-v2.00"}
BLOCK, MEANS = 256, 4  # samples that have a predictor of their own; block means that predictor 0 looks at
MOST_RICE = 15  # bits
END, BLOCK_SIZE = 4, 5  # shorten's commands; 0 to 3 are polynomial predictors of that order
BIG_ENDIAN_16 = 3  # shorten's name of the samples' type
MOST_LZW = 16  # bits


def sphere(path: Path | str, samples: np.ndarray, coding: str = "pcm-be", rate: int = 16000,
           checksum: bool = True) -> None:
    """Write (n,) or, without shorten, (n, channels) int16 samples as a SPHERE file, in one of CODINGS."""
    path, samples = Path(path), np.asarray(samples, np.int16)
    little = coding == "pcm-le"
    lines = [
        "NIST_1A", f"{HEADER:7d}",
        f"utterance_id -s{len(path.stem)} {path.stem}",
        f"channel_count -i {1 if samples.ndim == 1 else samples.shape[1]}",
        f"sample_count -i {len(samples)}",
        f"sample_rate -i {rate}",
        "sample_n_bytes -i 2",
        f"sample_byte_format -s2 {'01' if little else '10'}",
        f"sample_coding -s{len(CODINGS[coding])} {CODINGS[coding]}",
        *([f"sample_checksum -i {int(samples.sum(dtype=np.int64)) % 65536}"] if checksum else []),
        "end_head", ""]
    version = {"shorten1": 1, "shorten2": 2}.get(coding)
    data = shorten(samples, version) if version else samples.astype("<i2" if little else ">i2").tobytes()
    path.write_bytes("\n".join(lines).encode().ljust(HEADER) + data)


def shorten(samples: np.ndarray, version: int) -> bytes:
    """(n,) int16 samples as a shorten stream of format version 1 or 2.

    All of it is numbers in Rice codes: six that describe the stream, then for each block its predictor, the parameter
    of the code, and the residuals. The last block, which may be shorter, is preceded by its size.
    """
    pairs = [pair for number in (BIG_ENDIAN_16, 1, BLOCK, 0, MEANS, 0) for pair in _ulong(number)]
    blocks = _blocks(np.asarray(samples, np.int64), version)
    whole, rest = divmod(len(samples), BLOCK)
    parts = [np.array(pairs), blocks[:whole].reshape(-1, 2)]
    if rest:
        parts += [np.array([(BLOCK_SIZE, 2), *_ulong(rest)]), blocks[whole, :2 + rest]]
    coded = _rice_codes(*np.concatenate([*parts, [(END, 2)]]).T)
    return b"ajkg" + bytes([version]) + coded + bytes(-len(coded) % 4)  # decoders read words of 32 bits


def _ulong(number: int) -> list[tuple[int, int]]:
    """A number that comes with its width: two Rice codes."""
    return [(number.bit_length(), 2), (number, number.bit_length())]


def _blocks(samples: np.ndarray, version: int) -> np.ndarray:
    """(blocks, 2 + BLOCK, 2) numbers and widths of each block: the best predictor, its parameter, and residuals with
    their signs folded in; the last block is filled with zeros."""
    residuals = [samples - np.repeat(_offsets(samples, version), BLOCK)[:len(samples)]]
    before = np.concatenate((np.zeros(3, np.int64), samples))
    residuals += [np.diff(before, n)[3 - n:] for n in (1, 2, 3)]
    residual = np.pad(np.stack(residuals), ((0, 0), (0, -len(samples) % BLOCK))).reshape(4, -1, BLOCK)
    order = np.abs(residual).sum(2).argmin(0)
    best = np.take_along_axis(residual, order[None, :, None], axis=0)[0]
    folded = np.where(best < 0, -2 * best - 1, 2 * best)
    bits = np.stack([(folded >> rice).sum(1) + BLOCK * rice for rice in range(1, MOST_RICE + 1)])
    rice = bits.argmin(0) + 1
    values = np.column_stack((order, rice - 1, folded))
    widths = np.column_stack((np.full_like(order, 2), np.full_like(order, 3), np.repeat(rice[:, None], BLOCK, axis=1)))
    return np.stack((values, widths), axis=2)


def _offsets(samples: np.ndarray, version: int) -> np.ndarray:
    """(blocks,) what predictor 0 expects: the mean of the means of the blocks before. Version 2 rounds, 1 does not."""
    def mean(sums: np.ndarray, count: int) -> np.ndarray:
        sums = sums + (count // 2 if version == 2 else 0)
        return np.sign(sums) * (np.abs(sums) // count)  # as C divides

    whole = samples[:len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)
    means = np.concatenate((np.zeros(MEANS, np.int64), mean(whole.sum(1), BLOCK)))
    return mean(np.lib.stride_tricks.sliding_window_view(means, MEANS).sum(1), MEANS)


def _rice_codes(values: np.ndarray, widths: np.ndarray) -> bytes:
    """Numbers in Rice codes, one after the other: value >> width zeros, a one, then the `width` low bits."""
    ends = np.cumsum((values >> widths) + 1 + widths)
    bits = np.zeros(ends[-1], np.uint8)
    bits[ends - 1 - widths] = 1
    for place in range(widths.max()):
        here = widths > place
        bits[ends[here] - 1 - place] = values[here] >> place & 1
    return np.packbits(bits).tobytes()


def lzw(content: bytes) -> bytes:
    """Bytes in the format of compress(1), what `.z` or `.Z` files hold."""
    table = {(-1, byte): byte for byte in range(256)}
    free, prefix, codes = 257, -1, []  # 256 would clear the table
    for byte in content:
        if (longer := table.get((prefix, byte))) is not None:
            prefix = longer
            continue
        codes.append(prefix)
        if free < 1 << MOST_LZW:
            table[prefix, byte] = free
            free += 1
        prefix = byte
    return b"\x1f\x9d" + bytes([0x80 | MOST_LZW]) + _lzw_codes(np.array([*codes, prefix] if content else [], np.int64))


def _lzw_codes(codes: np.ndarray) -> bytes:
    """Codes from their lowest bit on, in as few bits as the largest that the table allows, which each code enlarges."""
    data, start = b"", 0
    for width in range(9, MOST_LZW + 1):
        end = None if width == MOST_LZW else start + (1 << width - 1)
        bits = (codes[start:end, None] >> np.arange(width) & 1).astype(np.uint8)
        data += np.packbits(bits, bitorder="little").tobytes()
        start = end or 0
    return data
