"""The options of a recipe: what the shell says is what Python gets."""

import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from asrcompress.cli import recipe as command
from asrcompress.errors import UserError
from asrcompress.recipe import settings, stages
from asrcompress.recipe.settings import Settings, from_words
from tests.conftest import REPO

NOT_IN_PYTHON = {"stage", "stop_stage", "dir"}


def shell_defaults() -> dict[str, str]:
    """What local/options.sh sets, as bash reads it."""
    path = REPO / "local" / "options.sh"
    names = re.findall(r"^([a-z_]+)=", path.read_text(), re.MULTILINE)
    program = f'. "$0"; printf "%s\\n" {" ".join(f"""{name}="${name}" """ for name in names)}'
    lines = subprocess.check_output(["bash", "-c", program, str(path)], text=True).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_shell_and_python_have_the_same_options_and_defaults() -> None:
    shell = {name: text for name, text in shell_defaults().items() if name not in NOT_IN_PYTHON}
    assert shell.keys() == {field.name for field in fields(Settings)} - {"command"}
    assert from_words({**shell, "corpus": "data/corpus"}) == Settings()


def test_every_stage_has_a_name_in_the_command() -> None:
    assert tuple(stages.STAGES) == command.STAGES


@pytest.mark.parametrize(("key", "text", "value"), [
    ("methods", "svd svd,data_aware=true", ("svd", "svd,data_aware=true")),
    ("scales", "1.0,1.5 2", (1.0, 1.5, 2.0)), ("epochs", "24", 24), ("redo", "true", True),
    ("scratch_epochs", "", None),
    ("train_options", "training.optimizer.lr=2e-3 'model.stack=[{dim: 8}]'",
     ("training.optimizer.lr=2e-3", "model.stack=[{dim: 8}]")),
    ("corpus", "/it's a,b/Jürgen run(2)", Path("/it's a,b/Jürgen run(2)")), ("note", "a = b", "a = b")])
def test_texts_become_values_and_back(key: str, text: str, value: object) -> None:
    assert getattr(from_words({key: text}), key) == value
    back = shlex.join(value) if isinstance(value, tuple) and key != "scales" else settings.as_text(value)
    assert getattr(from_words({key: back}), key) == value


@pytest.mark.parametrize(("key", "text", "said"), [
    ("epochs", "8.5", "--epochs is '8.5', but it is a whole number"),
    ("redo", "yes", "--redo is 'yes', but it is true or false"),
    ("when", "never", "--when is any of after, during, scratch, not 'never'"),
    ("unit", "char", "--unit is phone or bpe"),
    ("controls", "tdnnf", "write NAME=tdnnf"), ("sizes", "0.5 2", "--sizes"),
    ("scales", "", "--scales are numbers above 0"), ("epoch", "8", "a recipe has no option --epoch"),
    ("train_options", "'a", "--train-options"), ("device_beam", "0", "a beam is above 0"),
    ("smooth_lm", "maybe", "--smooth-lm")])
def test_mistakes_are_sentences(key: str, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        from_words({key: text})
    assert said in str(caught.value) and "\n" not in str(caught.value)
