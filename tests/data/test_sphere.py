"""SPHERE audio in every coding, against the samples that were written and a decoder that goes bit by bit."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from asrcompress.data import sphere
from asrcompress.errors import UserError
from recipes.wsj import discs

CODINGS = ("pcm-be", "pcm-le", "shorten1", "shorten2")
REAL = os.environ.get("ASRCOMPRESS_SPHERE_FILES")  # a folder with shorten-compressed files of the LDC


def speech(length: int = 3000, seed: int = 0) -> np.ndarray:
    """Something with loud and quiet stretches, silence and the extremes of 16 bits."""
    draw = np.random.default_rng(seed)
    wave = np.cumsum(draw.normal(0, 40, length)) * np.sin(np.arange(length) / 300) + draw.normal(0, 3, length)
    wave[length // 2:length // 2 + 300] = 0
    wave[-3:] = -32768, 32767, 5
    return np.clip(wave, -32768, 32767).astype(np.int16)


class Bits:
    """The bits of a stream from the most significant on, and shorten's numbers in them."""

    def __init__(self, data: bytes) -> None:
        self.bits, self.at = np.unpackbits(np.frombuffer(data, np.uint8)), 0

    def unsigned(self, width: int) -> int:
        zeros = 0
        while not self.bits[self.at]:
            zeros, self.at = zeros + 1, self.at + 1
        low = 0
        for bit in self.bits[self.at + 1:self.at + 1 + width]:
            low = 2 * low + int(bit)
        self.at += 1 + width
        return (zeros << width) + low

    def long(self) -> int:
        return self.unsigned(self.unsigned(2))

    def signed(self, width: int) -> int:
        number = self.unsigned(width)
        return -(number + 1) // 2 if number % 2 else number // 2


def decode(stream: bytes) -> np.ndarray:
    """Shorten as the report of 1994 describes it, a sample at a time, without linear prediction."""
    assert stream[:4] == b"ajkg"
    version, bits = stream[4], Bits(stream[5:])
    kind, channels, block, order, kept, skipped = (bits.long() for _ in range(6))
    assert (kind in (3, 5), channels, order, skipped) == (True, 1, 0, 0)
    out, means, shift = [0, 0, 0], [0] * kept, 0
    while (command := bits.unsigned(2)) != 4:
        if command == 5:
            block = bits.long()
            continue
        if command == 6:
            shift = bits.unsigned(2)
            continue
        half = kept // 2 if version > 1 else 0
        offset = int((sum(means) + half) / kept) if kept else 0
        assert command in (0, 1, 2, 3, 8), command
        rice = bits.unsigned(3) + 1 if command != 8 else 0
        start = len(out)
        for _ in range(block):
            residual = bits.signed(rice) if command != 8 else 0
            a, b, c = out[-1], out[-2], out[-3]
            expected = {0: offset, 1: a, 2: 2 * a - b, 3: 3 * (a - b) + c, 8: 0}[command]
            out.append(residual + expected)
        if kept:
            total = sum(out[start:])
            means = [*means[1:], int((total + (block // 2 if version > 1 else 0)) / block) << shift]
    return np.array(out[3:]) << shift


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("length", [1, 255, 256, 257, 3000])
def test_what_was_written_comes_back(tmp_path: Path, coding: str, length: int) -> None:
    samples = speech(max(length, 8))[-length:]
    discs.sphere(tmp_path / "a.wv1", samples, coding)
    read, rate = sphere.read(tmp_path / "a.wv1")
    np.testing.assert_array_equal(read, samples)
    assert (rate, read.dtype, sphere.header(tmp_path / "a.wv1").shorten) == (16000, np.int16, "shorten" in coding)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_streams_are_shorten(version: int, seed: int) -> None:
    samples = speech(1500 + 7 * seed, seed)
    np.testing.assert_array_equal(decode(discs.shorten(samples, version)), samples)


@pytest.mark.skipif(not REAL, reason="ASRCOMPRESS_SPHERE_FILES names no folder")
def test_real_files_are_read_as_by_another_decoder() -> None:
    paths = sorted(Path(str(REAL)).glob("*.sph"))
    assert paths
    for path in paths:
        head = sphere.header(path)
        read, rate = sphere.read(path)
        assert (len(read), rate, head.shorten) == (head.samples, head.sampling_rate, True)
        np.testing.assert_array_equal(read, decode(path.read_bytes()[head.length:]))


@pytest.mark.parametrize("coding", CODINGS)
def test_a_file_that_was_cut_anywhere_is_found(tmp_path: Path, coding: str) -> None:
    discs.sphere(tmp_path / "a.wv1", speech(1000), coding)
    whole = (tmp_path / "a.wv1").read_bytes()
    for cut in (0, 5, 12, 100, 1023, 1024, 1027, 1030, (1024 + len(whole)) // 2, len(whole) - 8):
        (tmp_path / "a.wv1").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"a\.wv1 .*; copy it from the disc again"):
            sphere.read(tmp_path / "a.wv1")


@pytest.mark.parametrize("coding", CODINGS)
def test_one_changed_bit_of_the_audio_is_found(tmp_path: Path, coding: str) -> None:
    discs.sphere(tmp_path / "a.wv1", speech(1000), coding)
    whole = bytearray((tmp_path / "a.wv1").read_bytes())
    whole[1024 + (len(whole) - 1024) // 3] ^= 16
    (tmp_path / "a.wv1").write_bytes(bytes(whole))
    with pytest.raises(UserError, match=r"(checksum differs|holds \d+ of 1000 samples|cannot be read)"):
        sphere.read(tmp_path / "a.wv1")


@pytest.mark.parametrize(("old", "new", "said"), [
    ("NIST_1A", "RIFF_1A", "is no NIST SPHERE file"),
    ("   1024", "   many", "says that its header has 'many' bytes"),
    ("   1024", "      8", "says that its header has '8' bytes"),
    ("end_head", "end_hand", "has no end_head"),
    ("sample_count -i 1000", "sample_size -i 1000", "has no sample_count in its header"),
    ("sample_count -i 1000", "sample_count -i -100", "has the sample_count '-100'"),
    ("sample_count -i 1000", "sample_count -i 0", "holds no samples"),
    ("sample_count -i 1000", "sample_count -i 999999999", "holds 1000 of 999999999 samples"),
    ("sample_count -i 1000", "sample_count -i 9999999999999", "has the sample_count '9999999999999'"),
    ("sample_rate -i 16000", "sample_rate -i 0", "has the sample_rate 0"),
    ("channel_count -i 1", "channel_count -i 2", "has 2 channels instead of one"),
    ("sample_n_bytes -i 2", "sample_n_bytes -i 1", "has samples of 1 bytes"),
    ("sample_coding -s3 pcm", "sample_coding -s4 ulaw", "coded as ulaw"),
    ("sample_byte_format -s2 10", "sample_byte_format -s2 xx", "has the sample_byte_format 'xx'"),
])
def test_a_header_that_is_none_is_a_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    discs.sphere(tmp_path / "a.wv1", speech(1000))
    whole = (tmp_path / "a.wv1").read_bytes()
    head = whole[:1024].replace(old.encode(), new.encode())
    (tmp_path / "a.wv1").write_bytes(head[:1024].ljust(1024) + whole[1024:])
    with pytest.raises(UserError, match=said) as caught:
        sphere.read(tmp_path / "a.wv1")
    assert "\n" not in str(caught.value)


def test_the_bytes_decide_and_not_the_label(tmp_path: Path) -> None:
    discs.sphere(tmp_path / "a.wv1", speech(1000), "shorten2")
    whole = (tmp_path / "a.wv1").read_bytes()
    head = whole[:1024].replace(b"-s26 pcm,embedded-shorten-v2.00", b"-s3 pcm").ljust(1024)
    (tmp_path / "a.wv1").write_bytes(head + whole[1024:])
    np.testing.assert_array_equal(sphere.read(tmp_path / "a.wv1")[0], speech(1000))
    discs.sphere(tmp_path / "b.wv1", speech(1000))
    plain = (tmp_path / "b.wv1").read_bytes()
    (tmp_path / "b.wv1").write_bytes(whole[:1024] + plain[1024:])
    with pytest.raises(UserError, match="labelled pcm,embedded-shorten-v2.00, but what follows .* no shorten stream"):
        sphere.read(tmp_path / "b.wv1")


def test_without_a_decoder_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    discs.sphere(tmp_path / "a.wv1", speech(1000), "shorten2")
    discs.sphere(tmp_path / "b.wv1", speech(1000))
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sphere.DecoderMissing, match=r'asrcompress\[wsj\].*sph2pipe on PATH'):
        sphere.read(tmp_path / "a.wv1")
    assert len(sphere.read(tmp_path / "b.wv1")[0]) == 1000
