"""The stages of a recipe by name, as `asrcompress recipe NAME` runs them."""

from collections.abc import Callable, Sequence
from functools import partial

from asrcompress.options import require
from asrcompress.recipe import commands, data, decoding, device, graph, launch, rows, sweep
from asrcompress.recipe.settings import Settings


def make(stage: str, settings: Settings) -> None:
    """Make the models of a stage of the sweep: the dense one, the controls, or every compressed one."""
    for task in graph.tasks(settings, [stage]):
        if task.job and sweep.run(task.job):
            print(f"{task.job.folder}: done", flush=True)


def decode(settings: Settings) -> None:
    """Decode the packed files of --decode, or of every model that is done; the dense one first."""
    for name in graph.to_decode(settings):
        decoding.decode(settings, name)
        rows.collect(sweep.EXP / name, decoding.RESULTS)


def report(settings: Settings) -> None:
    """RESULTS.md, the tables, the plot and results.html, from results.jsonl and exp/."""
    more = ["--reference", settings.reference] if settings.reference else []
    more += ["--exp", sweep.EXP] if sweep.EXP.exists() else []
    commands.here("report", "--rows", decoding.RESULTS, "--out", ".", "--html", "results.html", "--note", settings.note,
                  *more)


STAGES: dict[str, Callable[[Settings], None]] = {
    "download": data.download, "prepare": data.prepare, "lang": data.lang, "graph": data.graph,
    **{stage: partial(make, stage) for stage in graph.MAKE}, "decode": decode,
    "export-devices": device.export_all, "decode-devices": device.decode_all, "report": report}


def run(names: Sequence[str], settings: Settings, only: str | None = None, part: int | None = None) -> None:
    """Run stages in the current folder, one after the other.

    Those of the sweep (`graph.STAGES`) become one graph of jobs where a launcher, several jobs at a time or a dry run
    is asked for. `only` is one model of one of them, `part` a part of its decoding. Errors: UserError, from any of its
    commands.
    """
    if "download" not in names:
        settings = data.with_corpus(settings)
    if only is not None:
        require(len(names) == 1, "--only takes one stage")
        graph.only(settings, names[0], only, part)()
        return
    together = settings.dry_run or settings.jobs > 1 or settings.launcher != "local"
    swept = [name for name in names if name in graph.STAGES]
    if len(swept) > 1 and not together:
        graph.tasks(settings, swept)  # a mistake in a later stage does not wait for the models of an earlier one
    for name in names:
        if name not in swept or not together:
            STAGES[name](settings)
        elif name == swept[-1]:  # all that they need stands before the first of them
            tasks = graph.tasks(settings, swept)
            launch.dry_run(tasks, settings) if settings.dry_run else launch.run(tasks, settings)
