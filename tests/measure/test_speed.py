import json
import time
from pathlib import Path

import pytest
import torch

from asrcompress import models
from asrcompress.cli import main
from asrcompress.compression import packed, save_model
from asrcompress.measure import machine, macs, size, timing
from asrcompress.report import rows


@pytest.fixture(scope="module")
def packed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stack = [{"dim": 16, "taps": 3, "stride": 2}, {"dim": 16, "taps": 3, "stride": 2}]
    path = tmp_path_factory.mktemp("measure") / "model.packed"
    packed.save(path, models.build({"model": "tdnn", "features": 80, "vocab": 9, "stack": stack}))
    return path


def test_median_of_runs_without_the_first() -> None:
    waits = iter((0.2, 0.0, 0.0, 0.03, 0.03, 0.03))
    assert 0.03 <= timing.median_seconds(lambda: time.sleep(next(waits))) < 0.15


def test_command_in_a_fresh_process(packed_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ballast = torch.ones(100_000_000)  # 400 MB that belong to this process, not to the one that measures
    out = tmp_path / "info.json"
    assert main(["measure", str(packed_model), "--json", "--seconds", "2", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    model = packed.load(packed_model)
    assert found["packed_bytes"] == packed_model.stat().st_size
    assert found["parameters"] == size.of_model(model)["parameters"]
    assert found["macs_per_second"] == macs.macs_per_second(model)
    assert 0 < found["rtf"] < 1 and found["load_seconds"] > 0 and found["threads"] == 1 and found["cpu"]
    assert 50e6 < found["rss_before_load_bytes"] <= found["peak_rss_bytes"] < machine.peak_rss() - ballast.nbytes / 2
    rows.check({"name": "x", "test_set": "x", "search": "x", **{k: v for k, v in found.items() if k in rows.KEYS}}, "")


def test_errors_are_sentences(packed_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(tmp_path / "none.packed")]) == 1
    assert "does not exist" in capsys.readouterr().err
    damaged = bytearray(packed_model.read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "damaged.packed").write_bytes(damaged)
    assert main(["measure", str(tmp_path / "damaged.packed")]) == 1  # said by the fresh process, handed on by this one
    error = capsys.readouterr().err
    assert "checksum" in error and error.count("asrcompress measure:") == 1 and "Traceback" not in error
    save_model(tmp_path / "model.safetensors", packed.load(packed_model))
    assert main(["measure", str(tmp_path / "model.safetensors"), "--here"]) == 1
    assert "is not a packed model" in capsys.readouterr().err
    assert main(["measure", str(packed_model), "--threads", "0"]) == 1
