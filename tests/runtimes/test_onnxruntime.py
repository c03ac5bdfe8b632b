"""Greedy search of what onnxruntime computes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from asrcompress import models
from asrcompress.errors import UserError
from asrcompress.lang.tokens import write_symbols
from asrcompress.runtimes import onnxruntime
from tests.runtimes import tiny


def test_tokens_of_another_model_are_refused_before_the_first_wave(tmp_path: Path) -> None:
    write_symbols(tmp_path / "tokens.txt", ["<blk>", "AA"])
    loaded: Any = SimpleNamespace(path=tmp_path / "model.onnx", config={"vocab": 3})
    with pytest.raises(UserError, match="tokens.txt has 2 tokens, and the model 3 outputs"):
        onnxruntime.decode(loaded, [])


@pytest.mark.parametrize("options", [{"dynamic": {"x": {1: "T"}}}, {"check": [torch.zeros(1)]}, {"exporter": "dynamo"}],
                         ids=lambda one: next(iter(one)))
def test_options_that_a_hand_made_graph_would_ignore_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"a TDNN without inputs .* no '{next(iter(options))}'"):
        onnxruntime.export(tiny.tdnn(), tmp_path / "m.onnx", **options)
    with pytest.raises(UserError, match="entries are those of the precision codebook, not of float32"):
        onnxruntime.export(tiny.tdnn(), tmp_path / "m.onnx", entries=3)
    assert not list(tmp_path.iterdir())


def test_the_models_mode_and_dtype_are_its_callers(tmp_path: Path) -> None:
    """One in training mode was refused and had other statistics afterwards; half was a RuntimeError."""
    built = models.build({"model": "tdnn", "features": 80, "vocab": tiny.VOCAB, "stack": tiny.STACK})
    for model in (built.train(), built.half(), built.double().eval()):
        before = {name: one.clone() for name, one in model.state_dict().items()}
        training = model.training
        onnxruntime.export(model, tmp_path / "m.onnx")
        after = model.state_dict()
        assert model.training == training and all(torch.equal(after[name], one) for name, one in before.items())
        assert all(after[name].dtype == one.dtype for name, one in before.items())


def test_speech_without_a_frame_has_no_tokens(tmp_path: Path) -> None:
    write_symbols(tmp_path / "tokens.txt", ["<blk>", "AA"])
    loaded: Any = SimpleNamespace(path=tmp_path / "model.onnx", config={"vocab": 2}, max_seconds=9.0)
    waves = [(name, np.zeros(length, np.float32), 16000) for name, length in (("empty", 0), ("short", 100))]
    found = onnxruntime.decode(loaded, waves)
    assert found.tokens == found.words == {"empty": "", "short": ""}
