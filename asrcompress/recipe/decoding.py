"""Decoding of the models of a recipe: scales chosen on held-out speakers, the searches of the corpus, a row for each.

The scales are chosen for each model, on speakers held out of the training data: a model that was trained otherwise, or
has lost parameters, is not as sure of itself. The scale of a language model that rescores is chosen once, with the
dense model.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from asrcompress import files
from asrcompress.data.corpora import Search
from asrcompress.decoding import score as scoring
from asrcompress.lang import text
from asrcompress.recipe import commands, data, parts, rows
from asrcompress.recipe.models import DATA
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.stage import Stage
from asrcompress.recipe.sweep import DENSE, EXP

RESULTS = Path("results.jsonl")


def decode(settings: Settings, name: str) -> None:
    """Decode a model of exp/ on every test set with every search of the settings.

    Errors: UserError if it is not done.
    """
    folder = EXP / name
    prepare(settings, name)
    info = folder / "info.json"
    if not info.exists():
        commands.here("measure", folder / "model.packed", "--out", info)
    for part in parts.numbers(settings.decode_parts):
        decode_part(settings, name, part)
    for test_set in settings.test_sets:
        for one, search in _searches(settings):
            _stage(settings, name, test_set, one, search).run(partial(_decode, settings, name, test_set, one, search),
                                                              settings.redo)
        shutil.rmtree(_network(folder / "decode" / test_set), ignore_errors=True)


def prepare(settings: Settings, name: str) -> None:
    """Choose the scales of a model and, which is done once and with the dense model, of language models that rescore.
    """
    choose_scales(settings, name)
    for _, search in _searches(settings):
        if search and search.rescores:
            choose_lm_scale(settings, search)


def decode_part(settings: Settings, name: str, part: int) -> None:
    """Decode one part of every test set, as `--decode-parts` splits them, with the scales that `prepare` chose."""
    for test_set in settings.test_sets:
        number = parts.of(test_set, settings.decode_parts)
        if part > number:
            continue
        at = EXP / name / "decode" / test_set / "parts" / parts.name(part, number)
        split = parts.split(test_set, part, number)
        for one, search in _searches(settings):
            Stage(at / one, settings.named("max_active") if search else {}, _inputs(settings, name, test_set, search)
                  ).run(partial(_search, settings, name, split, at, one, search), settings.redo)
        shutil.rmtree(_network(at), ignore_errors=True)


def _searches(settings: Settings) -> list[tuple[str, Search | None]]:
    """The searches that the settings ask for by name; None is the greedy one."""
    every = {search.name: search for search in data.searches(settings)}
    return [(one, every.get(one)) for one in settings.searches]


def stages(settings: Settings, name: str) -> list[Stage]:
    """What `decode` goes through; the scales of language models are those of the dense model."""
    searches = _searches(settings)
    return [_scales(settings, name),
            *(_lm_scales(settings, search) for _, search in searches if search and search.rescores),
            *(_stage(settings, name, test_set, one, search)
              for test_set in settings.test_sets for one, search in searches)]


def _stage(settings: Settings, name: str, test_set: str, one: str, search: Search | None) -> Stage:
    """One search over one test set: it follows from the model, its scales, the graphs, and the dense model's texts."""
    inputs = _inputs(settings, name, test_set, search)
    if name != "dense":
        inputs["the dense model's result"] = DENSE / "decode" / test_set / one
    return Stage(EXP / name / "decode" / test_set / one, settings.named("max_active") if search else {}, inputs)


def _inputs(settings: Settings, name: str, test_set: str, search: Search | None) -> dict[str, Path]:
    """What the hypotheses of a search follow from."""
    inputs = {"the model": EXP / name, test_set: DATA / f"{test_set}.text"}
    if search:
        inputs |= {"the graph": settings.graph(search.name), "the scales": EXP / name / "decode" / "dev"}
        if search.rescores:
            inputs |= {"the graph of the first pass": settings.graph(search.rescores),
                       "the scale of the language model": DENSE / "decode" / "dev" / search.name}
    return inputs


def _decode(settings: Settings, name: str, test_set: str, one: str, search: Search | None) -> None:
    """Hypotheses of a whole test set, joined where it was decoded in parts, and their row."""
    at = EXP / name / "decode" / test_set
    if settings.decode_parts > 1:
        parts.join(at, one, parts.of(test_set, settings.decode_parts))
    else:
        _search(settings, name, test_set, at, one, search)
    record(settings, name, test_set, one)


def _search(settings: Settings, name: str, test_set: str, at: Path, one: str, search: Search | None) -> None:
    """Search a prepared set into AT/ONE; its posteriors stay in `at` for the next search."""
    out, ref, archive = at / one, DATA / f"{test_set}.text", _network(at) / "posteriors"
    Stage(archive.parent, {}, {"the model": EXP / name, test_set: ref}).run(lambda: commands.here(
        "posteriors", "--model", EXP / name / "model.packed", "--data", DATA, "--set", test_set, "--out", archive),
        redo=True)  # a decoding that was cut off may have left those of another test set
    if search is None:
        commands.here("greedy", "--archive", archive, "--lang", settings.lang, "--ref", ref, "--out", out)
    else:
        scale = [lm_scale(search)] if search.rescores else []
        search_with(settings, name, search, archive, out / "hyp.txt", scale)


def _network(at: Path) -> Path:
    """Where the output of the network stands while a test set is decoded."""
    return at / "network"


def record(settings: Settings, name: str, test_set: str, search: str) -> None:
    """Score what a search left in exp/NAME/decode/TEST_SET/SEARCH, and write its row there."""
    found = Path("decode") / test_set / search
    hyp, ref, unit = hypotheses(EXP / name / found, DATA / f"{test_set}.text")
    dense = DENSE / found / hyp.name
    packed = EXP / name / "model.packed"
    row = {**rows.of_files(hyp, packed, DENSE / "model.packed", EXP / name / "info.json"), **rows.of_model(EXP / name),
           "test_set": test_set, "search": search}
    line = rows.score(ref, hyp, dense, EXP / name / found, row, unit)
    print(f"{name}, {test_set}, {search}: {line}", flush=True)


def hypotheses(folder: Path, ref: Path) -> tuple[Path, Path, str]:
    """(hypotheses, references, unit) of a search: words, or tokens where a greedy search in phones gives no words."""
    if (folder / "hyp.txt").exists():
        return folder / "hyp.txt", ref, "word"
    return folder / "tokens.txt", folder / "ref.tokens.txt", "token"


def choose_scales(settings: Settings, name: str) -> None:
    """Choose the acoustic scale and the blank penalty of a model on the held-out set, with lattices of the corpus's
    first search: exp/NAME/decode/dev/best.json."""
    out, first = EXP / name / "decode" / "dev", data.searches(settings)[0]

    def make() -> None:
        commands.here("posteriors", "--model", EXP / name / "model.packed", "--data", DATA, "--set", "dev",
                      "--out", out / "posteriors")
        (out / "sweep").mkdir(exist_ok=True)
        run_search(settings, first, out / "posteriors", settings.scales, settings.blank_penalties, out / "sweep",
                   lattice_scale=min(settings.scales))  # whose lattices are the widest
        _choose(out / "sweep", out / "best.json")

    _scales(settings, name).run(make, settings.redo)


def _scales(settings: Settings, name: str) -> Stage:
    """The choice of the scales: it follows from the model, the graph of the first search and the held-out set."""
    return Stage(EXP / name / "decode" / "dev", settings.named("scales", "blank_penalties", "max_active"),
                 {"the model": EXP / name, "the graph": data.first_graph(settings), "dev": DATA / "dev.text"})


def choose_lm_scale(settings: Settings, search: Search) -> None:
    """Choose the scale of a rescoring language model, with the dense model: exp/dense/decode/dev/SEARCH/best.json."""
    dev = DENSE / "decode" / "dev"
    out = dev / search.name

    def make() -> None:
        search_with(settings, "dense", search, dev / "posteriors", out, settings.lm_scales)
        _choose(out, out / "best.json")

    _lm_scales(settings, search).run(make, settings.redo)


def _lm_scales(settings: Settings, search: Search) -> Stage:
    """The choice of that scale: it follows from the dense model's scales and the graphs."""
    assert search.rescores
    dev = DENSE / "decode" / "dev"
    return Stage(dev / search.name, settings.named("lm_scales", "max_active"),
                 {"the scales": dev, "the graph": settings.graph(search.name),
                  "the graph of the first pass": settings.graph(search.rescores)})


def scales(name: str) -> dict[str, Any]:
    """What `choose_scales` found. Errors: UserError where it has not run."""
    return files.read_json(EXP / name / "decode" / "dev" / "best.json", "the chosen scales")


def lm_scale(search: Search) -> float:
    """What `choose_lm_scale` found. Errors: UserError where it has not run."""
    return files.read_json(DENSE / "decode" / "dev" / search.name / "best.json", "the chosen scale")["lm_scale"]


def search_with(settings: Settings, name: str, search: Search, archive: Path, out: Path,
                lm_scales: Sequence[float] = ()) -> None:
    """`run_search` at the scales that were chosen for the model exp/NAME."""
    best = scales(name)
    run_search(settings, search, archive, [best["acoustic_scale"]], [best["blank_penalty"]], out, lm_scales)


def run_search(settings: Settings, search: Search, archive: Path, acoustic: Sequence[float],
               penalties: Sequence[float], out: Path, lm_scales: Sequence[float] = (),
               lattice_scale: float | None = None) -> None:
    """k2's search over HLG in its own process; `out` is a file, or a folder that is there and gets a file a scale."""
    hlg = settings.graph(search.rescores or search.name) / "HLG.npz"
    rescore = ["--rescore", settings.graph(search.name) / "G.npz", "--lm-scale", _listed(lm_scales)]
    lattice = [] if lattice_scale is None else ["--lattice-scale", lattice_scale]
    commands.in_k2("search", "--archive", archive, "--graph", hlg, "--words", settings.lang / "words.txt",
                   "--acoustic-scale", _listed(acoustic), f"--blank-penalty={_listed(penalties)}", "--max-active",
                   settings.max_active, "--nj", settings.nj, "--out", out, *(rescore if search.rescores else lattice))


def _listed(numbers: Sequence[float]) -> str:
    """Numbers as options of a search take them."""
    return ",".join(map(str, numbers))


def _choose(sweep: Path, out: Path) -> None:
    """The best of a folder of hypotheses of the held-out set, written as JSON."""
    best = scoring.sweep(text.read(DATA / "dev.text"), sweep)[0]
    files.write_json(out, best)
    print(f"{out}: acoustic scale {best['acoustic_scale']:g}, lm scale {best['lm_scale']:g}, blank penalty "
          f"{best['blank_penalty']:g}, WER {best['wer']:.2f} % on held-out speakers", flush=True)
