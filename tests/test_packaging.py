"""The wheel in an empty environment, without the clone: nothing is missing, and nothing comes from beside it."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import REPO

pytestmark = pytest.mark.slow
COMPRESS = """
from pathlib import Path
import torch, asrcompress
def build(config):
    return torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
small, report = asrcompress.compress(build({}), "svd", size=0.5, rank_multiple=1)
asrcompress.save("model.packed", small, build=build)
x = torch.randn(3, 24)
torch.testing.assert_close(asrcompress.load("model.packed", build=build)(x), small(x))
asrcompress.export(small, "model.onnx", x)
assert asrcompress.measure(small, x)["macs"] < 3 * (24 * 32 + 32 * 8)
print(Path(asrcompress.__file__).parent, (Path(asrcompress.__file__).parent / "py.typed").exists())
"""
COMPOSE = """
from asrcompress.config import compose, folder
for name in ("train", "compress", "experiment"):
    assert compose(name, ["seed=3"])["seed"] == 3
print(folder())
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment: the wheel, a foreign `conf` beside it, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    _copy_sources(source)
    pip = [sys.executable, "-m", "pip"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run(wheel, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    made = folder / "env" / "bin" / "python"
    install = ["--python", made, "install", "--quiet", "--no-deps", "--no-index", next(folder.glob("*.whl"))]
    subprocess.run([*pip, *install], check=True)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "conf").mkdir()
    (site / "conf" / "compress.yaml").write_text("seed: of another project\n")
    return made


def _copy_sources(folder: Path) -> None:
    """Copy what a wheel is made of."""
    for name in ("asrcompress", "conf"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPO / name, folder / name)


def run(program: Path, *arguments: str | Path) -> str:
    """Standard output of a program of the environment, run where the clone is not to be seen."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([program, *arguments], capture_output=True, text=True, cwd=program.parents[2],
                          env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_interface_compresses_saves_and_loads(python: Path) -> None:
    where, typed = run(python, "-c", COMPRESS).split()
    assert Path(where).is_relative_to(python.parents[1]) and typed == "True"


def test_the_shipped_configurations_are_used(python: Path) -> None:
    assert Path(run(python, "-c", COMPOSE).strip()).parts[-2:] == ("asrcompress", "conf")


def test_the_command_is_there_and_finds_its_files(python: Path) -> None:
    command = python.with_name("asrcompress")
    assert "synthesize" in run(command, "--help")
    assert "grammar" in run(command, "synthesize", "--help")
    assert run(command, "--version").strip()
    run(command, "synthesize", "--out", "corpus", "--train-minutes", "0.2", "--test-minutes", "0.1")
    assert list((python.parents[2] / "corpus").rglob("*.flac"))
