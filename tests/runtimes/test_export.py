"""What every runtime has, and the mistakes that `export` answers with a sentence."""

import inspect
from pathlib import Path

import pytest
import torch

import asrcompress
from asrcompress import runtimes
from asrcompress.errors import UserError
from tests.runtimes.tiny import tdnn


@pytest.mark.parametrize("name", runtimes.names())
def test_a_runtime_has_the_four_functions(name: str) -> None:
    runtime = runtimes.find(name)
    first = {"export": ["model", "path", "inputs"], "load": ["path", "threads", "graph", "max_active"],
             "decode": ["loaded", "waves", "words"], "measure": ["path", "timing"]}
    for function, names in first.items():
        assert list(inspect.signature(getattr(runtime, function)).parameters)[:len(names)] == names


def test_an_unknown_runtime_and_an_unknown_option_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="runtime 'tflite'; there are onnxruntime, sherpa-onnx"):
        asrcompress.export(tdnn(), tmp_path / "m", runtime="tflite")
    with pytest.raises(UserError, match="precison"):
        asrcompress.export(torch.nn.Linear(3, 3), tmp_path / "m", torch.randn(1, 3), precison="int8")
    with pytest.raises(UserError, match="give tokens="):
        asrcompress.export(tdnn(), tmp_path / "m", runtime="sherpa-onnx")
    with pytest.raises(UserError, match="runs TDNN and Conformer models only, and this is a Linear"):
        asrcompress.export(torch.nn.Linear(3, 3), tmp_path / "m", torch.randn(1, 3), runtime="sherpa-onnx")
    assert not list(tmp_path.iterdir())
