"""`compression` knows nothing of speech, and `import asrcompress` loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import REPO

PROGRAM = """
import sys

BLOCKED = ("lhotse", "lightning", "hydra", "k2", "asrcompress.models", "asrcompress.data", "asrcompress.training",
           "asrcompress.lang", "asrcompress.decoding", "asrcompress.measure", "asrcompress.runtimes")

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in BLOCKED):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import torch
from torch import nn
import asrcompress
from asrcompress.compression import budget, coders, distil, quantization, structures, synthetic

build = lambda config: nn.Sequential(nn.Conv1d(8, 32, 3), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 32, 3))
model, x = build({}).eval(), torch.randn(2, 8, 20)
small, report = asrcompress.compress(model, "svd", size=0.6, calibration=[(x,)], coder="range")
small, _ = asrcompress.compress(small, asrcompress.Plan(quantization="int8", coder="huffman"))
for path in sys.argv[1:]:
    asrcompress.save(path, small, build=build)
    torch.testing.assert_close(asrcompress.load(path, build)(x), small(x))
print(len(report), sorted(name for name in sys.modules if name.startswith(BLOCKED)))
"""


def test_a_plain_model_is_compressed_saved_and_loaded_without_speech(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "m.packed", tmp_path / "m.safetensors"], cwd=REPO,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2 []\n"), done.stderr


def test_importing_asrcompress_loads_nothing_heavy() -> None:
    program = ("import sys, asrcompress; print(asrcompress.__version__, 'torch' in sys.modules, "
               "'numpy' in sys.modules, "
               "{'compress', 'save', 'load', 'Plan'} <= set(dir(asrcompress)))")
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True)
    assert done.stdout == "0.2.0 False False True\n", done.stderr
    assert (REPO / "asrcompress" / "py.typed").exists()
