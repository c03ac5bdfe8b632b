"""Inputs that are given as a file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from asrcompress.errors import UserError
from asrcompress.measure import inputs
from asrcompress.runtimes.onnx_graph import session


def test_files_that_hold_no_inputs_are_sentences(tmp_path: Path) -> None:
    opened: Any = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(name="x")])
    path = tmp_path / "x.npz"
    path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as .npz"):
        inputs.given(nn.Linear(2, 2), path)
    with pytest.raises(UserError, match="cannot be read as .npz"):
        session.example(opened, 1, path)
    np.savez(path, x="a text")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        inputs.given(nn.Linear(2, 2), path)
