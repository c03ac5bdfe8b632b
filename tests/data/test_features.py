from pathlib import Path

import numpy as np
import soundfile
from lhotse import Fbank, load_manifest

from tests import prepared

TICK = 2**-5  # lilcom rounds to multiples of it


def test_features_are_those_of_the_waveform(tiny_corpus: Path) -> None:
    cuts = load_manifest(prepared.data(tiny_corpus) / "dev-quick.jsonl.gz")
    for cut in cuts:
        samples, rate = soundfile.read(cut.recording.sources[0].source, dtype="float32")
        expected = Fbank().extract(samples, rate)
        assert expected.shape == (round(len(samples) / 160), 80)
        found = cut.load_features()
        assert found.shape == expected.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.51 * TICK + 1e-4)


def test_speed_copies_are_resampled_speech(tiny_corpus: Path) -> None:
    cuts = list(load_manifest(prepared.data(tiny_corpus) / "train-quick.jsonl.gz"))
    for cut in cuts:
        seconds = soundfile.info(cut.recording.sources[0].source).duration
        factor = float(cut.id.partition("_sp")[2] or 1)
        assert abs(cut.duration - seconds / factor) < 0.01
        assert cut.load_features().shape == (cut.num_frames, 80)
    # A faster copy has its formants higher: the mel axis is shifted, the levels are similar.
    slow, fast = (
        np.concatenate([cut.load_features() for cut in cuts if f"_sp{factor}" in cut.id]) for factor in (0.9, 1.1)
    )
    centre = [np.average(np.arange(80), weights=np.exp(x).mean(0)) for x in (slow, fast)]
    assert centre[0] < centre[1] and abs(slow.mean() - fast.mean()) < 1
