"""The options of a recipe, checked once.

`local/options.sh` lists them for the shell, with the same names and defaults.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from asrcompress.errors import UserError
from asrcompress.options import require

WHEN = ("after", "during", "scratch")
Words = tuple[str, ...]
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Settings:
    """What a recipe is told. Paths are relative to the recipe's folder, in which its commands run.

    Errors: UserError for a value that no stage could use.
    """

    corpus: Path = Path("data/corpus")
    corpus_type: str = "librispeech"  # module of asrcompress.data.corpora
    mini: bool = True
    train_sets: Words = ()
    test_sets: Words = ()
    held_out_minutes: float = 15
    unit: str = "phone"
    vocab_size: int = 500
    smooth_lm: str = "auto"
    model: str = "tdnn"
    dense_model: Path | None = None
    dense_init: Path | None = None
    controls: Words = ("tdnnf=tdnnf", "dense-small=tdnn_small")
    criterion: str | None = None
    epochs: int = 8
    train_options: Words = ()
    methods: Words = ("svd",)
    sizes: Numbers = (0.5, 0.25, 0.125)
    when: Words = ("after",)
    schedule: Words = ("truncate",)
    finetune_criterion: str = "distillation"
    finetune_epochs: int = 1
    finetune_epoch_fraction: float = 1.0
    finetune_options: Words = ()
    scratch_criterion: str | None = None
    scratch_epochs: int | None = None
    scratch_options: Words = ()
    experiments: Words = ()
    scales: Numbers = (1.0, 1.1, 1.2, 1.35, 1.5, 1.8, 2.2)
    max_active: int = 3000
    decode: Words = ()
    decode_parts: int = 1
    searches: Words = ()
    lm_scales: Numbers = (0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6)
    blank_penalties: Numbers = (0.0,)
    devices: Words = ()
    precisions: Words = ("float32", "int8-dynamic")
    device_beam: float = 20
    seed: int = 0
    seeds: Numbers = ()
    nj: int = 2
    launcher: str = "local"
    launcher_options: Words = ()
    jobs: int = 1
    dry_run: bool = False
    redo: bool = False
    note: str = ""
    reference: Path | None = None
    command: str = "./run.sh"

    def __post_init__(self) -> None:
        require(self.unit in ("phone", "bpe"), f"--unit is phone or bpe, not '{self.unit}'")
        require(self.smooth_lm in ("true", "false", "auto"),
                f"--smooth-lm is true, false or auto, not '{self.smooth_lm}'")
        require(not (self.dense_model and self.dense_init), "--dense-model is a dense model that is not trained, and "
                "--dense-init one that is trained on; give one of them")
        for one in self.when:
            require(one in WHEN, f"--when is any of {', '.join(WHEN)}, not '{one}'")
        for one in (*self.controls, *self.experiments):
            require("=" in one, f"'{one}' has no name; write NAME={one}")
        require(all(0 < size <= 1 for size in self.sizes), f"--sizes are above 0 and at most 1, not {self.sizes}")
        require(0 < self.finetune_epoch_fraction <= 1,
                f"--finetune-epoch-fraction is above 0 and at most 1, not {self.finetune_epoch_fraction:g}")
        for key in ("scales", "lm_scales"):
            require(bool(getattr(self, key)) and min(getattr(self, key)) > 0, f"{option(key)} are numbers above 0")
        require(bool(self.blank_penalties), "--blank-penalties needs a number; 0 leaves the blank as it is")
        require(all(seed == int(seed) >= 0 for seed in self.seeds), f"--seeds are whole numbers, not {self.seeds}")
        for key in ("decode_parts", "jobs", "max_active", "nj", "vocab_size"):
            require(getattr(self, key) >= 1, f"{option(key)} is 1 or more")
        require(self.device_beam > 0, f"--device-beam {self.device_beam:g}: a beam is above 0")

    @property
    def lang(self) -> Path:
        """The lang folder, one for each unit."""
        return Path(f"data/lang_{self.unit}")

    def graph(self, search: str) -> Path:
        """The folder of a search's HLG, or of its G where it rescores."""
        return Path(f"data/graph_{self.unit}") / search

    @property
    def dense_criterion(self) -> str:
        """The criterion of the dense model: unless it was given, LF-MMI for phones, CTC for BPE."""
        return self.criterion or ("lfmmi" if self.unit == "phone" else "ctc")

    def named(self, *keys: str) -> dict[str, Any]:
        """Some of the settings, by the name that the user gives them: {"--epochs": 8}."""
        return {option(key): getattr(self, key) for key in keys}


def option(key: str) -> str:
    """A setting as one writes it in a command."""
    return f"--{key.replace('_', '-')}"


def from_words(given: Mapping[str, str]) -> Settings:
    """Settings from texts, as a shell has them: lists are separated by blanks (numbers also by commas), empty is unset.

    Errors: UserError for an unknown name and for a text that is not of the setting's type.
    """
    hints = get_type_hints(Settings)
    unknown = [key for key in given if key not in hints]
    require(not unknown, f"a recipe has no option {', '.join(map(option, unknown))}")
    return Settings(**{key: value(key, text, hints[key]) for key, text in given.items()})


def value(key: str, text: str, hint: Any) -> Any:
    """A text as the type of a setting. Errors: UserError."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    if type(None) in get_args(hint) and not text:
        return None
    try:
        if hint == Words:
            return tuple(shlex.split(text))
        if hint == Numbers:
            return tuple(float(number) for number in text.replace(",", " ").split())
        if kinds[0] is bool:
            return {"true": True, "false": False}[text]
        return kinds[0](text)
    except (ValueError, KeyError):
        expected = {Words: "a list of words", Numbers: "a list of numbers", int: "a whole number", float: "a number",
                    bool: "true or false"}[hint if hint in (Words, Numbers) else kinds[0]]
        raise UserError(f"{option(key)} is '{text}', but it is {expected}") from None


def to_words(settings: Settings) -> list[str]:
    """The settings as options of `asrcompress recipe`."""
    return [f"{option(field.name)}={as_text(getattr(settings, field.name))}" for field in fields(Settings)]


def as_text(value: Any) -> str:
    """A setting as `from_words` takes it."""
    if isinstance(value, tuple):
        return " ".join(shlex.quote(one) if isinstance(one, str) else as_text(one) for one in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def defaults() -> dict[str, Any]:
    """Every setting with its default."""
    return {field.name: field.default for field in fields(Settings)}
