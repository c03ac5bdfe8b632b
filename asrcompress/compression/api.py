"""api: the verbs: compress a model, save it, load it again."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from asrcompress.compression import calibration as calibrate
from asrcompress.compression import checks, loading, packed
from asrcompress.compression.choices import Ways
from asrcompress.compression.compress import LayerRecord, run
from asrcompress.compression.packed import adapters
from asrcompress.compression.plan import Plan
from asrcompress.compression.target import Table
from asrcompress.errors import UserError
from asrcompress.options import make as make_options
from asrcompress.options import require

MODEL_FILE = ".safetensors"


def compress(model: nn.Module, structure: Plan | str = "dense", *, size: float | None = None,
             quantization: str = "float32", calibration: Mapping[str, Tensor] | Iterable[Any] | None = None,
             target_bytes: int | None = None, **options: Any) -> tuple[nn.Module, list[LayerRecord]]:
    """A compressed copy of any torch model, and one record per weight of two or more dimensions.

    small, report = compress(model, "svd", size=0.25)                  # size: of the model's parameters, what is kept
    small, report = compress(model, "svd", rank=64, exclude="output")  # further options: the structure's, or a Plan's
    small, report = compress(model, quantization="int8")               # the structure stays dense
    small, report = compress(model, Plan("svd", size=0.25, quantization="int8", coder="range"))
    small, report = compress(model, target_bytes=1_200_000, calibration=batches)

    `structure` is a name, or a Plan, which says everything. `calibration` is batches of the model's arguments (a tuple;
    a mapping of keywords; one tensor), or what `calibration.collect` made of such; structures with `data_aware` need
    it, and the report then says the error of outputs. The model is not touched. Layers that were compressed before keep
    their structure; quantization is made anew. With `target_bytes` each layer gets the structure and quantization with
    which the file that `save` writes takes at most so many bytes and the outputs on the batches move least; `options`
    are then those of `choices.Ways`, and for several targets `target.Table` measures once. Errors: UserError where the
    plan selects nothing, a name or option is unknown, or the result does not compute what its report says;
    `CannotShrink`, which says the smallest size or file, where `size` or `target_bytes` cannot be reached.
    """
    if target_bytes is not None:
        require(structure == "dense" and size is None and quantization == "float32",
                "target_bytes chooses structure, size and quantization of each layer; name what it may choose from as "
                "structures, sizes and quantizations")
        require(calibration is not None and not isinstance(calibration, Mapping),
                "target_bytes needs calibration: batches of the model's arguments")
        seed = options.pop("seed", 0)
        assert calibration is not None
        return Table(model, calibration, make_options(Ways, options, "target_bytes"), seed).fit(target_bytes)
    if isinstance(structure, Plan) and (size is not None or quantization != "float32" or options):
        raise UserError("a Plan says everything itself; give size, quantization and options in the plan")
    plan = structure if isinstance(structure, Plan) else _plan(structure, size, quantization, options)
    batches = None if calibration is None or isinstance(calibration, Mapping) else list(calibration)
    moments = calibrate.collect(model, batches) if batches else calibration
    small, report = run(model, plan, moments if isinstance(moments, Mapping) else {})
    example = calibrate.arguments(batches[0]) if batches else (adapters.example(model) or (), {})
    if example != ((), {}):
        checks.outputs(model, small, *example)
    return small, report


def _plan(structure: str, size: float | None, quantization: str, options: Mapping[str, Any]) -> Plan:
    """The plan that the arguments of `compress` say: those that are no field of a Plan are the structure's options."""
    if structure == "dense" and quantization == "float32":
        raise UserError("that changes nothing: give a structure (svd, size=0.25), a quantization (int8), or both")
    known = {field.name for field in fields(Plan)}
    given = {key: value for key, value in options.items() if key in known}
    given["options"] = {**given.get("options", {}), **{key: options[key] for key in options if key not in known}}
    return Plan(structure, size, quantization=quantization, **given)


def save(path: Path | str, model: nn.Module, *, build: packed.Build | None = None, **options: Any) -> nn.Module:
    """Write a model into a file that `load` reads, and load it again to compare before the file gets its name.

    A name that ends in .safetensors is a model file, for training on: as large as the parameters. Any other is a packed
    file, as small as the model got, with norms folded; `options` are then those of `packed.save` (coder, vectors).
    `build(model.config)` makes the dense model where it is neither one of ours nor of Hugging Face's. Returned is the
    model that was written, in eval mode. Errors: UserError where the model cannot be rebuilt or comes out different.
    """
    if Path(path).suffix != MODEL_FILE:
        return packed.save(path, model, build=build, **options)
    if options:
        raise UserError(f"{path}: a model file has no option '{next(iter(options))}'; those are for packed files")
    loading.save_model(path, model, build)
    return model


def load(path: Path | str, build: packed.Build | None = None) -> nn.Module:
    """The model of a packed file or a model file, in eval mode: see `loading.load`."""
    return loading.load(path, build)
