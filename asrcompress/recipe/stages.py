"""The stages of a recipe by name, as `asrcompress recipe NAME` runs them."""

from collections.abc import Callable

from asrcompress import files
from asrcompress.recipe import commands, data, decoding, device, sweep
from asrcompress.recipe.settings import Settings


def train_dense(settings: Settings) -> None:
    """Train the model whose compression is the table."""
    sweep.run_all([sweep.dense(settings)])


def train_controls(settings: Settings) -> None:
    """Train the models that stand beside the compressed ones."""
    sweep.run_all(sweep.controls(settings))


def compress(settings: Settings) -> None:
    """Make every compressed model that the settings ask for."""
    sweep.run_all(sweep.compressed(settings))


def decode(settings: Settings) -> None:
    """Decode the packed files of --decode, or of every model that is done; the dense one first."""
    names = dict.fromkeys(["dense", *(settings.decode or sweep.finished())])
    for name in names:
        files.require_file(sweep.EXP / name / ".done", "a model to decode is not done:")
    for name in names:
        decoding.decode(settings, name)


def report(settings: Settings) -> None:
    """RESULTS.md, the tables and the plot, from results.jsonl."""
    reference = ["--reference", settings.reference] if settings.reference else []
    commands.here("report", "--rows", decoding.RESULTS, "--out", ".", "--note", settings.note, *reference)


STAGES: dict[str, Callable[[Settings], None]] = {
    "download": data.download, "prepare": data.prepare, "lang": data.lang, "graph": data.graph,
    "train-dense": train_dense, "train-controls": train_controls, "compress": compress, "decode": decode,
    "export-devices": device.export_all, "decode-devices": device.decode_all, "report": report}


def run(name: str, settings: Settings) -> None:
    """Run a stage in the current folder. Errors: UserError, from any of its commands."""
    STAGES[name](settings if name == "download" else data.with_corpus(settings))
