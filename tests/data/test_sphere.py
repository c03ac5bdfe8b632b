"""SPHERE audio in every coding, each fault of a file, and each place where one may be cut."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asrcompress.data import sphere
from asrcompress.errors import UserError
from recipes.wsj import discs
from tests.shorten import decode

ROOT = Path(__file__).parents[2]
REAL = os.environ.get("ASRCOMPRESS_SPHERE_FILES")  # a folder of real .sph or .wv1 files, which are not ours to pass on


def speech(count: int = 5000) -> np.ndarray:
    """(count,) int16 samples: a vowel-like wave with an offset, noise, silence, and full scale."""
    rng, time = np.random.default_rng(0), np.arange(count)
    wave = 9000 * np.sin(time / 9) * np.sin(time / 500) + 40 + 30 * rng.standard_normal(count)
    wave[count // 2:count // 2 + 600] = 0
    wave[-300:] = rng.integers(-32768, 32768, 300)
    return wave.astype(np.int16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "zz0c0101.wv1"


def edit(path: Path, old: str, new: str) -> None:
    """Replace a piece of the header, which keeps its length."""
    head, data = path.read_bytes()[:1024].decode(), path.read_bytes()[1024:]
    assert head.count(old) == 1
    path.write_bytes(head.replace(old, new).rstrip(" ").encode().ljust(1024) + data)


@pytest.mark.parametrize("coding", discs.CODINGS)
@pytest.mark.parametrize("checksum", [True, False])
def test_every_coding_gives_the_samples_back(file: Path, coding: str, checksum: bool) -> None:
    discs.sphere(file, speech(), coding, rate=8000, checksum=checksum)
    samples, rate = sphere.read(file)
    assert samples.dtype == np.int16 and rate == 8000
    np.testing.assert_array_equal(samples, speech())
    head = sphere.header(file)
    assert (head.length, head.samples, head.shorten) == (1024, 5000, "shorten" in coding)
    assert head.checksum == (sum(speech().tolist()) % 65536 if checksum else None)


def test_the_bytes_say_that_it_is_shorten_where_the_label_does_not(file: Path) -> None:
    discs.sphere(file, speech(), "shorten2")
    edit(file, "-s26 pcm,embedded-shorten-v2.00", "-s3 pcm")
    np.testing.assert_array_equal(sphere.read(file)[0], speech())


def test_a_header_may_be_longer_and_have_comments(file: Path) -> None:
    discs.sphere(file, speech())
    data = file.read_bytes()
    fields = data[16:1024].rstrip(b" ")
    file.write_bytes((b"NIST_1A\n   2048\n; a comment\n" + fields).ljust(2048) + data[1024:])
    np.testing.assert_array_equal(sphere.read(file)[0], speech())


FAULTS = {
    "is no NIST SPHERE file": ("NIST_1A", "RIFF_1A"),
    "its header has 'abc' bytes": ("   1024", "    abc"),
    "its header has '0' bytes": ("   1024", "      0"),
    "its header has '999999' bytes": ("   1024", " 999999"),
    "has no end_head in its header": ("end_head", "end"),
    "has no sample_count in its header": ("sample_count -i 5000\n", ""),
    "has no channel_count in its header": ("channel_count -i 1\n", ""),
    "has no sample_n_bytes in its header": ("sample_n_bytes -i 2\n", ""),
    "has no sample_rate in its header": ("sample_rate -i 16000\n", ""),
    "has the sample_byte_format '' in its header": ("sample_byte_format -s2 10\n", ""),
    "has the sample_byte_format '21' in its header": ("-s2 10", "-s2 21"),
    "has 2 channels instead of one": ("channel_count -i 1", "channel_count -i 2"),
    "has samples of 1 bytes, coded as ulaw": ("sample_n_bytes -i 2\nsample_byte_format -s2 10\nsample_coding -s3 pcm",
                                              "sample_n_bytes -i 1\nsample_coding -s4 ulaw"),
    "has samples of 4 bytes": ("sample_n_bytes -i 2", "sample_n_bytes -i 4"),
    "is labelled pcm,embedded-shorten-v1.1, but": ("-s3 pcm", "-s25 pcm,embedded-shorten-v1.1"),
    "holds no samples": ("sample_count -i 5000", "sample_count -i 0"),
    "holds 5000 of 5001 samples": ("sample_count -i 5000", "sample_count -i 5001"),
    "holds 5000 of 999999999 samples": ("sample_count -i 5000", "sample_count -i 999999999"),
    "has the sample_count '9999999999'": ("sample_count -i 5000", "sample_count -i 9999999999"),
    "has the sample_count '-1'": ("sample_count -i 5000", "sample_count -i -1"),
    "has the sample_rate 'fast'": ("sample_rate -i 16000", "sample_rate -s4 fast"),
    "has the sample_rate 0": ("sample_rate -i 16000", "sample_rate -i 0"),
    "its checksum differs": ("sample_checksum -i ", "sample_checksum -i 1"),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_faulty_header_is_named(file: Path, said: str) -> None:
    discs.sphere(file, speech())
    edit(file, *FAULTS[said])
    with pytest.raises(UserError, match="zz0c0101.wv1 ") as caught:
        sphere.read(file)
    assert said in str(caught.value) and ";" in str(caught.value)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(UserError, match="zz0c0101.wv1 cannot be read"):
        sphere.read(file)


@pytest.mark.parametrize("coding", discs.CODINGS)
def test_every_cut_is_found(file: Path, coding: str) -> None:
    discs.sphere(file, speech(1200), coding)
    whole = file.read_bytes()
    padding = 3 if "shorten" in coding else 0  # bytes to a whole word, which say nothing
    lengths = [*range(0, 1024, 31), *range(1020, 1060), *range(1060, len(whole) - padding, 37),
               *range(len(whole) - 20, len(whole) - padding)]
    for length in lengths:
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match="zz0c0101.wv1 (is|ends|says|holds)"):
            sphere.read(file)


@pytest.mark.parametrize(("count", "held"), [(4999, "5000|5120"), (5001, "5000")])
def test_a_shorten_stream_of_another_length_is_found(file: Path, count: int, held: str) -> None:
    discs.sphere(file, speech(), "shorten1")
    edit(file, "sample_count -i 5000", f"sample_count -i {count}")
    with pytest.raises(UserError, match=f"holds ({held}) of {count} samples"):
        sphere.read(file)


def test_changed_bytes_of_a_shorten_stream_are_found(file: Path) -> None:
    discs.sphere(file, speech(1200), "shorten2")
    whole = file.read_bytes()
    for place in range(1029, len(whole) - 8, 41):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1:])
        with pytest.raises(UserError, match="zz0c0101.wv1 (is damaged|holds)"):
            sphere.read(file)


@pytest.fixture
def without_av(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is on PATH, and no package av."""
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_without_a_decoder_both_remedies_are_named(file: Path, without_av: Path) -> None:
    discs.sphere(file, speech(), "shorten1")
    assert sphere.header(file).shorten
    for needs_it in (sphere.read, sphere.require_decoder):
        with pytest.raises(sphere.DecoderMissing, match=r"zz0c0101.wv1 .*asrcompress\[wsj\].* sph2pipe on PATH"):
            needs_it(file)
    discs.sphere(file, speech())
    np.testing.assert_array_equal(sphere.read(file)[0], speech())  # PCM needs none


def stand_in(program: Path) -> None:
    """What sph2pipe does, by the decoder of the tests: no package of Debian or PyPI has the program."""
    program.write_text(f"""#!{sys.executable}
import sys, wave
sys.path.insert(0, {str(ROOT)!r})
from tests.shorten import decode
assert sys.argv[1:3] == ["-f", "wav"]
data = open(sys.argv[3], "rb").read()
if len(data) < 2000:
    sys.exit("sph2pipe: no data")
with wave.open(sys.stdout.buffer, "wb") as out:
    out.setparams((1, 2, 16000, 0, "NONE", None))
    out.writeframes(decode(data[1024:]).astype("<i2").tobytes())
""")
    program.chmod(0o755)


def real(program: Path) -> None:
    if not (found := shutil.which("sph2pipe", path=os.defpath)):
        pytest.skip("sph2pipe is not installed")
    program.symlink_to(found)


@pytest.mark.parametrize("install", [stand_in, real])
@pytest.mark.parametrize("coding", ["shorten1", "shorten2"])
def test_sph2pipe_reads_shorten_where_av_is_missing(file: Path, without_av: Path, coding: str,
                                                    install: Callable[[Path], None]) -> None:
    install(without_av / "sph2pipe")
    discs.sphere(file, speech(), coding)
    np.testing.assert_array_equal(sphere.read(file)[0], speech())
    file.write_bytes(file.read_bytes()[:1100])
    with pytest.raises(UserError, match="zz0c0101.wv1 holds"):
        sphere.read(file)


@pytest.mark.skipif(not REAL, reason="ASRCOMPRESS_SPHERE_FILES names no folder of real files")
def test_real_files_are_read_as_the_reference_decoder_reads_them() -> None:
    found = [path for path in Path(str(REAL)).iterdir() if path.suffix.lower() in (".sph", ".wv1")]
    assert found
    for path in found:
        head, (samples, rate) = sphere.header(path), sphere.read(path)
        assert (len(samples), rate) == (head.samples, head.sampling_rate) and head.checksum is not None
        if head.shorten:
            np.testing.assert_array_equal(samples, decode(path.read_bytes()[head.length:]))
