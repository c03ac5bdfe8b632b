"""inputs: one utterance of random speech in the form that a model takes, for tracing, counting and timing."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asrcompress.errors import UserError
from asrcompress.files import read_npz

FRAMES_PER_SECOND, RATE = 100, 16000


class Inputs(NamedTuple):
    """The arguments of one call by their names in `forward`, and how many seconds of audio they are, where known."""

    arguments: dict[str, Any]
    seconds: float | None = None


def example(model: nn.Module, seconds: float = 20.0) -> Inputs:
    """One seeded random utterance of `seconds`, as a model takes it.

    Of a model with `example_inputs(seconds)` its answer, which is a tuple; of ours, whose `config` says `features`, x
    (1, T, features) and x_lens (1,); of Hugging Face's, whose `main_input_name` is `input_values` or `input_features`,
    samples (1, T) or log-mel energies (1, mels, T), of Whisper as many as it always takes. Errors: UserError for any
    other model: its inputs have to be given.
    """
    generator, config = torch.Generator().manual_seed(0), getattr(model, "config", None)
    if hasattr(model, "example_inputs"):
        return Inputs(named(model, model.example_inputs(seconds)), seconds)  # type: ignore[operator]
    if isinstance(config, Mapping) and "features" in config:
        frames = round(seconds * FRAMES_PER_SECOND)
        x = torch.randn(1, frames, int(config["features"]), generator=generator)
        return Inputs(named(model, (x, torch.tensor([frames]))), seconds)
    main = getattr(model, "main_input_name", "")
    if main == "input_values":
        return Inputs({main: torch.randn(1, round(seconds * RATE), generator=generator)}, seconds)
    if main == "input_features" and (mels := getattr(config, "num_mel_bins", None)):
        positions = getattr(config, "max_source_positions", None)  # Whisper halves the frames, and takes no fewer
        frames = 2 * positions if positions else round(seconds * FRAMES_PER_SECOND)
        return Inputs({main: torch.randn(1, mels, frames, generator=generator)}, frames / FRAMES_PER_SECOND)
    raise UserError(f"what a {type(model).__name__} takes is not known; give its inputs: `inputs=` in Python, or "
                    "--inputs FILE.npz with an array for each argument of its forward")


def given(model: nn.Module, inputs: Any) -> Inputs:
    """A user's inputs: a tensor, a sequence of arguments, a mapping of keyword arguments, or the path of an .npz file
    with such. Errors: UserError for a file that cannot be read, and for more arguments than forward has."""
    if isinstance(inputs, str | Path):
        return Inputs(named(model, _read(Path(inputs))))
    return Inputs(named(model, (inputs,) if isinstance(inputs, Tensor) else inputs))


def named(model: nn.Module, arguments: Any) -> dict[str, Any]:
    """Arguments by the names that `model.forward` gives them; those that are None are left out.

    Errors: UserError where there are more than it takes.
    """
    if isinstance(arguments, Mapping):
        return {str(name): value for name, value in arguments.items() if value is not None}
    parameters = inspect.signature(model.forward).parameters.values()
    names = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(arguments) > len(names):
        raise UserError(f"{len(arguments)} inputs were given, and forward of {type(model).__name__} takes "
                        f"{', '.join(names) or 'none'}; give a mapping of its keyword arguments")
    return {name: value for name, value in zip(names, arguments, strict=False) if value is not None}


def _read(path: Path) -> Any:
    """The tensors of an .npz file: by name, or in order where numpy.savez was given no names."""
    try:
        found = {name: torch.from_numpy(array) for name, array in read_npz(path, "the inputs").items()}
    except TypeError as error:  # texts, and other arrays that are no tensors
        raise UserError(f"{path} cannot be read as tensors ({error}); write numbers with numpy.savez") from None
    order = [f"arr_{i}" for i in range(len(found))]
    return tuple(found[name] for name in order) if set(found) == set(order) else found
