"""NIST SPHERE audio, as the LDC's discs have it: a header of text, then 16-bit PCM or a shorten stream.

The bytes decide what a file is, not its name or its label: shorten begins with `ajkg`, also where `sample_coding` says
pcm. Shorten: A. J. Robinson, "SHORTEN: simple lossless and near-lossless waveform compression", CUED/F-INFENG/TR.156,
1994. Its decoders say nothing where a stream is cut, so that the header's count and checksum are compared here.
"""

import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from asrcompress.errors import UserError

MAGIC, SHORTEN = b"NIST_1A\n", b"ajkg"
MOST_HEADER = 1 << 16  # bytes; 1024 are usual
BYTE_ORDERS = {"10": ">i2", "01": "<i2"}  # sample_byte_format: numpy's name of the samples' type
_FIELD = re.compile(r"(\w+) -(?:i|r|s\d+) (.*)")


class DecoderMissing(UserError):
    """A file is shorten-compressed, and there is no program or package that reads that."""


class Header(NamedTuple):
    """What a file's header says: its own length in bytes, the samples, Hz, type of PCM samples, sum modulo 65536."""

    length: int
    samples: int
    sampling_rate: int
    dtype: str
    checksum: int | None
    shorten: bool


def header(path: Path) -> Header:
    """Read the header alone. Errors: UserError where it is none, or of audio that is not mono with 16-bit samples."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(MOST_HEADER)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); copy it from the disc again") from None
    if not start.startswith(MAGIC) or len(start) < 2 * len(MAGIC):
        raise _wrong(path, "is no NIST SPHERE file")
    length = start[len(MAGIC):2 * len(MAGIC)].strip()
    if not length.isdigit() or not 2 * len(MAGIC) < int(length) < MOST_HEADER:
        raise _wrong(path, f"says that its header has '{length.decode('latin-1')}' bytes")
    head = start[:int(length)]
    if size < int(length) or b"\nend_head\n" not in head:
        raise _wrong(path, "ends in its header" if size < int(length) else "has no end_head in its header")
    fields = dict(_FIELD.findall(head[:head.index(b"\nend_head\n") + 1].decode("latin-1")))
    shorten = start[len(head):].startswith(SHORTEN)
    found = _header(path, fields, len(head), shorten)
    if not shorten and (there := (size - len(head)) // 2) < found.samples:
        raise _wrong(path, f"holds {there} of {found.samples} samples")
    return found


def _header(path: Path, fields: dict[str, str], length: int, shorten: bool) -> Header:
    def number(name: str) -> int:
        if name not in fields:
            raise _wrong(path, f"has no {name} in its header")
        if not re.fullmatch(r"\d{1,9}", fields[name].strip(), re.ASCII):
            raise _wrong(path, f"has the {name} '{fields[name]}' in its header")
        return int(fields[name])

    channels, width, coding = number("channel_count"), number("sample_n_bytes"), fields.get("sample_coding", "pcm")
    order = fields.get("sample_byte_format", "10" if shorten else "")
    if channels != 1:
        raise UserError(f"{path} has {channels} channels instead of one; take one of them out of it")
    if width != 2 or not coding.startswith("pcm"):
        raise UserError(f"{path} has samples of {width} bytes, coded as {coding}; convert it to 16-bit pcm")
    if not shorten and coding != "pcm":
        raise _wrong(path, f"is labelled {coding}, but what follows its header is no shorten stream")
    if order not in BYTE_ORDERS:
        raise _wrong(path, f"has the sample_byte_format '{order}' in its header")
    if not (samples := number("sample_count")):
        raise _wrong(path, "holds no samples")
    if not (rate := number("sample_rate")):
        raise _wrong(path, "has the sample_rate 0 in its header")
    checksum = number("sample_checksum") if "sample_checksum" in fields else 0
    return Header(length, samples, rate, BYTE_ORDERS[order], checksum or None, shorten)


def read(path: Path) -> tuple[np.ndarray, int]:
    """(n,) int16 samples, and their rate in Hz.

    Errors: UserError of `header`, and where samples are missing or differ from the checksum; DecoderMissing.
    """
    head = header(path)
    data = path.read_bytes()[head.length:]
    if head.shorten:
        samples = _decode(path, head, data)
        if len(samples) != head.samples:
            raise _wrong(path, f"holds {len(samples)} of {head.samples} samples")
    else:
        samples = np.frombuffer(data, head.dtype, head.samples).astype(np.int16)
    if head.checksum is not None and int(samples.sum(dtype=np.int64)) % 65536 != head.checksum:
        raise _wrong(path, "is damaged: its checksum differs")
    return samples, head.sampling_rate


def require_decoder(path: Path) -> None:
    """Do nothing where shorten can be read. Errors: DecoderMissing that names `path`, the file that needs it."""
    try:
        import av  # noqa: F401
    except ImportError:
        if not shutil.which("sph2pipe"):
            raise DecoderMissing(f"{path} is shorten-compressed, which is read with the package av or the program "
                                 'sph2pipe; pip install "asrcompress[wsj]", or put sph2pipe on PATH') from None


def _decode(path: Path, head: Header, data: bytes) -> np.ndarray:
    """(n,) int16 samples of a shorten stream, for which a header is written anew: the decoders go by its label."""
    require_decoder(path)
    order = next(name for name, dtype in BYTE_ORDERS.items() if dtype == head.dtype)
    label = "pcm,embedded-shorten-v2.00"  # the stream itself says which version it is
    lines = ["NIST_1A", "   1024", "channel_count -i 1", f"sample_count -i {head.samples}",
             f"sample_rate -i {head.sampling_rate}", "sample_n_bytes -i 2", f"sample_byte_format -s2 {order}",
             f"sample_coding -s{len(label)} {label}", "end_head", ""]
    file = "\n".join(lines).encode().ljust(1024) + data
    try:
        import av
    except ImportError:
        return _sph2pipe(path, file)
    chunks, count = [np.zeros(0, np.int16)], 0
    try:
        with av.open(io.BytesIO(file), "r", format="nistsphere") as container:
            for frame in container.decode(audio=0):
                chunks.append(frame.to_ndarray()[0])
                if (count := count + len(chunks[-1])) > head.samples:
                    break
    except av.FFmpegError as error:
        raise _wrong(path, f"holds a shorten stream that cannot be read ({error.strerror})") from None
    return np.concatenate(chunks)


def _sph2pipe(path: Path, file: bytes) -> np.ndarray:
    with tempfile.NamedTemporaryFile(suffix=".wv1") as copy:
        copy.write(file)
        copy.flush()
        done = subprocess.run(["sph2pipe", "-f", "wav", copy.name], capture_output=True)
    try:
        return soundfile.read(io.BytesIO(done.stdout), dtype="int16")[0]
    except soundfile.SoundFileError:
        said = " ".join(done.stderr.decode("latin-1").split())
        raise _wrong(path, f"holds a shorten stream that sph2pipe cannot read ({said})") from None


def _wrong(path: Path, what: str) -> UserError:
    return UserError(f"{path} {what}; copy it from the disc again")
