"""Decoding of the models of a recipe: scales chosen on held-out speakers, three searches, a result row for each.

The scales are chosen for each model, on speakers held out of the training data: a model that was trained otherwise, or
has lost parameters, is not as sure of itself. The scale of the large language model is chosen once, with the dense
model.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from asrcompress import files
from asrcompress.decoding import score as scoring
from asrcompress.lang import text
from asrcompress.recipe import commands, rows
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
    choose_scales(settings, name)
    searches = [one for one in settings.searches if one != "tglarge" or (settings.graph / "G.npz").exists()]
    if "tglarge" in searches:
        choose_lm_scale(settings)
    info = folder / "info.json"
    if not info.exists():
        commands.here("measure", folder / "model.packed", "--out", info)
    for test_set in settings.test_sets:
        at = folder / "decode" / test_set
        for search in searches:
            make = partial(_decode, settings, name, test_set, search)
            _stage(settings, name, test_set, search).run(make, settings.redo)
        (at / "posteriors").unlink(missing_ok=True)


def _stage(settings: Settings, name: str, test_set: str, search: str) -> Stage:
    """One search over one test set: it follows from the model, its scales, the graph, and the dense model's texts."""
    inputs = {"the model": EXP / name, test_set: DATA / f"{test_set}.text"}
    if search != "greedy":
        inputs |= {"the graph": settings.graph, "the scales": EXP / name / "decode" / "dev"}
    if search == "tglarge":
        inputs["the scale of the large language model"] = DENSE / "decode" / "dev" / "large"
    if name != "dense":
        inputs["the dense model's result"] = DENSE / "decode" / test_set / search
    options = {} if search == "greedy" else settings.named("max_active")
    return Stage(EXP / name / "decode" / test_set / search, options, inputs)


def _decode(settings: Settings, name: str, test_set: str, search: str) -> None:
    at = EXP / name / "decode" / test_set
    if not (at / "posteriors").exists():
        commands.here("posteriors", "--model", EXP / name / "model.packed", "--data", DATA, "--set", test_set,
                      "--out", at / "posteriors")
    out, ref = at / search, DATA / f"{test_set}.text"
    if search == "greedy":
        commands.here("greedy", "--archive", at / "posteriors", "--lang", settings.lang, "--ref", ref, "--out", out)
    else:
        words = ["--rescore", settings.graph / "G.npz", "--lm-scale", lm_scale()] if search == "tglarge" else []
        search_with(settings, name, at / "posteriors", out / "hyp.txt", words)
    record(settings, name, test_set, search)


def record(settings: Settings, name: str, test_set: str, search: str) -> None:
    """Score what a search left in exp/NAME/decode/TEST_SET/SEARCH, and put its row into results.jsonl."""
    found = Path("decode") / test_set / search
    hyp, ref, unit = hypotheses(EXP / name / found, DATA / f"{test_set}.text")
    dense = DENSE / found / hyp.name
    packed = EXP / name / "model.packed"
    row = {**rows.of_files(hyp, packed, DENSE / "model.packed", EXP / name / "info.json"), **rows.of_model(EXP / name),
           "test_set": test_set, "search": search}
    line = rows.score(ref, hyp, dense, EXP / name / found, row, RESULTS, unit)
    print(f"{name}, {test_set}, {search}: {line}", flush=True)


def hypotheses(folder: Path, ref: Path) -> tuple[Path, Path, str]:
    """(hypotheses, references, unit) of a search: words, or tokens where a greedy search in phones gives no words."""
    if (folder / "hyp.txt").exists():
        return folder / "hyp.txt", ref, "word"
    return folder / "tokens.txt", folder / "ref.tokens.txt", "token"


def choose_scales(settings: Settings, name: str) -> None:
    """Choose the acoustic scale and the blank penalty of a model on the held-out set: exp/NAME/decode/dev/best.json."""
    out = EXP / name / "decode" / "dev"

    def make() -> None:
        commands.here("posteriors", "--model", EXP / name / "model.packed", "--data", DATA, "--set", "dev",
                      "--out", out / "posteriors")
        (out / "sweep").mkdir(exist_ok=True)
        run_search(settings, out / "posteriors", settings.scales, settings.blank_penalties, out / "sweep")
        _choose(out / "sweep", out / "best.json")

    Stage(out, settings.named("scales", "blank_penalties", "max_active"),
          {"the model": EXP / name, "the graph": settings.graph, "dev": DATA / "dev.text"}).run(make, settings.redo)


def choose_lm_scale(settings: Settings) -> None:
    """Choose the scale of the large language model, with the dense model: exp/dense/decode/dev/large/best.json."""
    dev = DENSE / "decode" / "dev"

    def make() -> None:
        words = ["--rescore", settings.graph / "G.npz", "--lm-scale", _listed(settings.lm_scales)]
        search_with(settings, "dense", dev / "posteriors", dev / "large", words)
        _choose(dev / "large", dev / "large" / "best.json")

    Stage(dev / "large", settings.named("lm_scales", "max_active"),
          {"the scales": dev, "the graph": settings.graph}).run(make, settings.redo)


def scales(name: str) -> dict[str, Any]:
    """What `choose_scales` found. Errors: UserError where it has not run."""
    return files.read_json(EXP / name / "decode" / "dev" / "best.json", "the chosen scales")


def lm_scale() -> float:
    """What `choose_lm_scale` found. Errors: UserError where it has not run."""
    return files.read_json(DENSE / "decode" / "dev" / "large" / "best.json", "the chosen scale")["lm_scale"]


def search_with(settings: Settings, name: str, archive: Path, out: Path, words: Sequence[Any] = ()) -> None:
    """`run_search` at the scales that were chosen for the model exp/NAME."""
    best = scales(name)
    run_search(settings, archive, [best["acoustic_scale"]], [best["blank_penalty"]], out, words)


def run_search(settings: Settings, archive: Path, acoustic: Sequence[float], penalties: Sequence[float], out: Path,
               words: Sequence[Any] = ()) -> None:
    """k2's search over HLG in its own process; `out` is a file, or a folder that is there and gets a file a scale."""
    commands.in_k2("search", "--archive", archive, "--graph", settings.graph / "HLG.npz", "--words",
                   settings.lang / "words.txt", "--acoustic-scale", _listed(acoustic),
                   f"--blank-penalty={_listed(penalties)}", "--max-active", settings.max_active, "--nj", settings.nj,
                   "--out", out, *words)


def _listed(numbers: Sequence[float]) -> str:
    """Numbers as options of a search take them."""
    return ",".join(map(str, numbers))


def _choose(sweep: Path, out: Path) -> None:
    """The best of a folder of hypotheses of the held-out set, written as JSON."""
    best = scoring.sweep(text.read(DATA / "dev.text"), sweep)[0]
    files.write_json(out, best)
    print(f"{out}: acoustic scale {best['acoustic_scale']:g}, lm scale {best['lm_scale']:g}, blank penalty "
          f"{best['blank_penalty']:g}, WER {best['wer']:.2f} % on held-out speakers", flush=True)
