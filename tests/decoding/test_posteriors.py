import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet, load_manifest

from asrcompress import models
from asrcompress.cli import main
from asrcompress.compression import save_model
from asrcompress.decoding.archive import Archive
from asrcompress.decoding.posteriors import batches_of, write
from tests import prepared


@pytest.fixture(scope="module")
def cuts(tiny_corpus: Path) -> CutSet:
    return load_manifest(prepared.data(tiny_corpus) / "dev.jsonl.gz")


@pytest.fixture(scope="module")
def model() -> models.AcousticModel:
    torch.manual_seed(0)
    built = models.build(
        {
            "model": "tdnn",
            "features": 80,
            "vocab": 7,
            "stack": [{"dim": 8, "taps": 5, "stride": 2}, {"dim": 12, "taps": 3, "stride": 2}],
        }
    )
    return built.eval()


@pytest.mark.parametrize("batch_seconds", [1, 6, 1000])
def test_archive_holds_the_models_outputs_however_they_were_batched(
    cuts: CutSet, model: models.AcousticModel, batch_seconds: float, tmp_path: Path
) -> None:
    rtf = write(model, cuts, tmp_path / "dev.post", batch_seconds)
    archive = Archive(tmp_path / "dev.post")
    assert sorted(archive.utts) == sorted(cut.supervisions[0].id for cut in cuts) and rtf > 0
    assert archive.dim == 7 and archive.frame_seconds == 0.04
    for cut in cuts:
        x = torch.from_numpy(cut.load_features())[None]
        with torch.no_grad():
            expected = model(x, torch.tensor([x.shape[1]]))[0][0].numpy()
        found = archive[cut.supervisions[0].id]
        assert found.dtype == np.float16 and found.shape == expected.shape == (-(-x.shape[1] // 4), 7)
        np.testing.assert_allclose(found, expected, rtol=2**-10, atol=1e-5)


def test_batches_are_full_and_not_too_full(cuts: CutSet) -> None:
    for seconds in (1, 6, 1000):
        batches = batches_of(cuts, seconds)
        assert sorted(cut.id for batch in batches for cut in batch) == sorted(cut.id for cut in cuts)
        assert all(len(batch) == 1 or len(batch) * max(cut.duration for cut in batch) <= seconds for batch in batches)
    assert len(batches_of(cuts, 1)) == len(cuts) and len(batches) == 1


def test_command(
    cuts: CutSet, model: models.AcousticModel, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "model.safetensors", model)
    arguments = [
        "posteriors",
        "--model",
        str(tmp_path / "model.safetensors"),
        "--data",
        str(prepared.data(tiny_corpus)),
        "--out",
        str(tmp_path / "dev.post"),
        "--set",
    ]
    assert main([*arguments, "dev"]) == 0
    assert f"{len(cuts)} utterances, RTF" in capsys.readouterr().out and len(Archive(tmp_path / "dev.post")) == len(
        cuts
    )
    assert main([*arguments, "other"]) == 1
    assert "the prepared set" in capsys.readouterr().err


def test_a_set_without_utterances_has_an_empty_archive(model: models.AcousticModel, tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", model)
    gzip.open(tmp_path / "none.jsonl.gz", "w").close()
    (tmp_path / "none.text").touch()
    (tmp_path / "tokens.txt").write_text("".join(f"{i} {i}\n" for i in range(7)))
    (tmp_path / "lexicon.txt").write_text("A 1\n")
    archive = ["--out", str(tmp_path / "x"), "--data", str(tmp_path), "--set", "none"]
    assert main(["posteriors", "--model", str(tmp_path / "model.safetensors"), *archive]) == 0
    assert len(Archive(tmp_path / "x")) == 0
    assert main(["greedy", "--archive", str(tmp_path / "x"), "--lang", str(tmp_path), "--ref",
                 str(tmp_path / "none.text"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "tokens.txt").read_text() == ""
