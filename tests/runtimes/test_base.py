"""What all runtimes share."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrcompress.errors import UserError
from asrcompress.runtimes import base


@pytest.mark.parametrize(("files", "names"), [(["x/a", "x/b"], ["a", "b"]), (["x/a", "y/b", "y/a"],
                                                                              ["0-a", "1-b", "2-a"])])
def test_no_two_files_have_one_name(files: list[str], names: list[str], tmp_path: Path) -> None:
    paths = [tmp_path / f"{file}.wav" for file in files]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.zeros(10 + number, np.float32), base.RATE)
    waves = list(base.waves_of_files(paths))
    assert [name for name, _, _ in waves] == names
    assert [len(samples) for _, samples, _ in waves] == [10 + number for number in range(len(files))]


def test_a_file_without_samples_is_a_sentence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), base.RATE)
    with pytest.raises(UserError, match="empty.wav has no samples"):
        list(base.waves_of_files([tmp_path / "empty.wav"]))


def test_the_shortest_speech_is_what_lhotse_makes_a_frame_of() -> None:
    from lhotse import Fbank

    shortest = np.zeros(base.SHORTEST, np.float32)
    assert len(Fbank().extract(shortest, base.RATE)) == 1
    with pytest.raises(RuntimeError):
        Fbank().extract(shortest[1:], base.RATE)
    assert [base.has_frame(shortest[:n], rate) for n, rate in ((140, 16000), (139, 16000), (70, 8000), (69, 8000))] == [
        True, False, True, False]
