from pathlib import Path

import pytest

from asrcompress import compression, models
from asrcompress.compression import save_model
from asrcompress.config import compose, folder
from asrcompress.errors import UserError
from asrcompress.training import criteria

FILES = sorted(folder().rglob("*.yaml"))
GROUPS = {"train": ("model", "training", "criterion", "schedule"),
          "compress": ("structure", "budget", "quantization", "coder"),
          "experiment": ("experiment",), "target": ()}
COMMANDS = {"target": "compress"}  # of the files whose command is not called as they are
CHOICES = [
    (name, f"{group}={path.stem}")
    for name, groups in GROUPS.items()
    for group in groups
    for path in sorted((folder() / group).glob("*.yaml"))
]


def choices(group: str) -> list[str]:
    return [choice for _, choice in CHOICES if choice.startswith(f"{group}=")]


def test_every_group_belongs_to_a_command() -> None:
    groups = {path.name for path in folder().iterdir() if path.is_dir() and list(path.glob("*.yaml"))}
    assert groups == {group for names in GROUPS.values() for group in names}
    assert {path.stem for path in folder().glob("*.yaml")} == set(GROUPS)


@pytest.mark.parametrize("name, choice", CHOICES, ids=lambda value: value)
def test_every_config_composes(name: str, choice: str) -> None:
    config = compose(name, [choice])
    group = choice.partition("=")[0]
    assert isinstance(config[group], dict) and config["seed"] == 0
    assert compose(name, [choice, "seed=3"])["seed"] == 3
    with pytest.raises(UserError, match=f"the configuration {name} with .*{group}.nonsense=1.* is not valid"):
        compose(name, [choice, f"{group}.nonsense=1"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_config_opens_with_its_command(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    group = path.parent.name
    commands = [COMMANDS.get(path.stem, path.stem)] if group == "conf" else list(GROUPS)
    command = first.removeprefix("# asrcompress ").split()[0]
    assert first.startswith("# asrcompress ") and command in commands
    if group != "conf":
        assert f"{group}={path.stem}" in first
        compose(command, [word for word in first.partition(":")[0].split() if "=" in word])


def test_mistakes_are_sentences() -> None:
    for name, override in (
        ("train", "model=rnn"),
        ("train", "model=3"),
        ("train", "=3"),
        ("train", "training.epochs"),
        ("compress", "structur=svd"),
        ("nothing", "seed=1"),
    ):
        with pytest.raises(UserError, match=f"the configuration {name} with .* is not valid: .") as caught:
            compose(name, [override])
        assert "\n" not in str(caught.value)


def test_overrides_keep_their_types() -> None:
    config = compose("train", ["train_sets=[a,b]", "training.optimizer.lr=1e-4"])
    assert config["train_sets"] == ["a", "b"] and config["training"]["optimizer"]["lr"] == 1e-4
    assert type(config["training"]["augmentation"]["spec_augment"]) is dict


def test_fine_tuning_is_training_with_other_numbers() -> None:
    scratch, finetune = (compose("train", [f"training={name}"])["training"] for name in ("scratch", "finetune"))
    assert scratch.keys() == finetune.keys() and finetune["epochs"] < scratch["epochs"]
    assert finetune["optimizer"].keys() == scratch["optimizer"].keys()


def test_a_conformer_has_its_own_training_unless_another_is_chosen() -> None:
    def training(*words: str) -> object:
        return compose("train", list(words))["training"]

    assert training("model=conformer_half") == training("training=conformer") != training()
    assert training("model=tdnn_wsj6") == training("training=pnorm") != training()
    assert training("model=conformer", "training=finetune") == training("training=finetune")


@pytest.mark.parametrize("choice", choices("model") + choices("criterion"))
def test_models_and_criteria_can_be_built(choice: str, tmp_path: Path) -> None:
    config = compose("train", [choice])
    model = models.build({**config["model"], "vocab": 5})
    if "teacher" in config["criterion"]:
        save_model(tmp_path / "teacher.safetensors", model)
        config["criterion"]["teacher"] = str(tmp_path / "teacher.safetensors")
    criteria.build(**config["criterion"], vocab=5, targets=[[1, 2, 3, 4], [2, 1]])


@pytest.mark.parametrize("choice", choices("structure") + choices("budget"))
def test_plans_can_be_made(choice: str) -> None:
    assert compression.Plan.from_config(compose("compress", [choice])).structure in compression.structures.names()
