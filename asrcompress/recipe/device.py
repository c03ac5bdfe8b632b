"""Device files of a recipe: export, what they cost in their runtimes, and decoding.

exp/NAME/device/PRECISION/ holds model.onnx and tokens.txt, what they cost (onnxruntime.json, greedy.json, HLG.json) and
decode/. The first file is that of the dense model in float32, with which the others are compared.
"""

from functools import partial
from pathlib import Path
from typing import Any

from asrcompress import files
from asrcompress.measure import machine
from asrcompress.recipe import commands, data, decoding, rows
from asrcompress.recipe.models import DATA
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.stage import Stage
from asrcompress.recipe.sweep import DENSE, EXP, finished

File = tuple[str, str]  # model, precision
FIRST: File = ("dense", "float32")


def chosen(settings: Settings) -> list[File]:
    """The files to make: of --devices, or of the dense model and every svd that is done, at each of the precisions."""
    if settings.devices == ("none",):
        return []
    names = settings.devices or ("dense", *(name for name in finished() if name.startswith("svd-")))
    return list(dict.fromkeys([FIRST, *((name, precision) for name in names for precision in settings.precisions)]))


def folder(file: File) -> Path:
    """Where a device file stands."""
    return EXP / file[0] / "device" / file[1]


def export_all(settings: Settings) -> None:
    """Write and measure every device file. Errors: UserError where a model is not done."""
    listed = chosen(settings)
    for name, _ in listed:
        files.require_file(EXP / name / ".done", "a model of --devices is not done:")
    if listed:
        data.device_graph(settings)
    for file in listed:
        decoding.choose_scales(settings, file[0])
        inputs = {"the model": EXP / file[0], "the scales": EXP / file[0] / "decode" / "dev",
                  "the graph": data.first_graph(settings)}
        if file != FIRST:
            inputs["the dense file"] = folder(FIRST)
        Stage(folder(file), settings.named("device_beam"), inputs).run(partial(_export, settings, file), settings.redo)


def _export(settings: Settings, file: File) -> None:
    """A file whose log-probabilities carry the acoustic scale that was chosen on held-out speakers; and its speed."""
    (name, precision), out = file, folder(file)
    more = ["--calibrate-set", settings.train_sets[0]] if precision == "int8-static" else []
    if precision.startswith("int8") and machine.int8_saturates():  # the file is to run here
        more.append("--reduce-range")
    commands.here("export", EXP / name / "model.packed", "--lang", settings.lang, "--out", out, "--precision",
                  precision, *more, "--batch1", "--data", DATA, "--set", "dev", "--beam", settings.device_beam,
                  "--acoustic-scale", decoding.scales(name)["acoustic_scale"])
    commands.here("measure", out, "--against", folder(FIRST), "--out", out / "onnxruntime.json")
    commands.here("measure", out, "--runtime", "sherpa-onnx", "--out", out / "greedy.json")
    commands.here("measure", out, "--runtime", "sherpa-onnx", "--graph", data.first_graph(settings) / "HLG.fst",
                  "--out", out / "HLG.json")


def decode_all(settings: Settings) -> None:
    """Decode every test set with every device file: greedy and HLG in sherpa-onnx, and k2's search; a row for each."""
    for file in chosen(settings):
        for test_set in settings.test_sets:
            at = folder(file) / "decode" / test_set
            inputs = {"the device file": folder(file), test_set: DATA / f"{test_set}.text"}
            if file != FIRST:
                inputs["the dense file's result"] = folder(FIRST) / "decode" / test_set
            Stage(at, settings.named("max_active"), inputs).run(partial(_decode, settings, file, test_set),
                                                                settings.redo)
        rows.collect(folder(file), decoding.RESULTS)


def _decode(settings: Settings, file: File, test_set: str) -> None:
    name, at, ref = file[0], folder(file) / "decode" / test_set, DATA / f"{test_set}.text"
    given = ["--model", folder(file), "--data", DATA, "--set", test_set]
    commands.here("decode", *given, "--ref", ref, "--lang", settings.lang, "--out", at / "greedy")
    first = data.searches(settings)[0]
    commands.here("decode", *given, "--graph", data.first_graph(settings) / "HLG.fst", "--words",
                  settings.lang / "words.txt", "--max-active", settings.max_active, "--out", at / "HLG")
    archive = at / "posteriors"
    commands.here("posteriors", "--model", folder(file) / "model.onnx", "--data", DATA, "--set", test_set, "--out",
                  archive)
    decoding.search_with(settings, name, first, archive, at / first.name / "hyp.txt")
    archive.unlink()
    for search in ("greedy", "HLG", first.name):
        _record(file, test_set, search, ref)


def _record(file: File, test_set: str, search: str, ref: Path) -> None:
    """Score one search of a device file, and write its row beside the hypotheses."""
    name, precision = file
    found = Path("decode") / test_set / search
    hyp, ref, unit = decoding.hypotheses(folder(file) / found, ref)
    said = folder(file) / found / "decode.json"  # sherpa-onnx's speed on this test set
    extra: dict[str, Any] = {"rtf": files.read_json(said)["rtf"]} if said.exists() else {}
    info = folder(file) / (f"{search}.json" if said.exists() else "onnxruntime.json")
    row = {**rows.of_files(hyp, EXP / name / "model.packed", DENSE / "model.packed", info), **rows.of_model(EXP / name),
           **extra, "precision": precision, "test_set": test_set, "search": search}
    line = rows.score(ref, hyp, folder(FIRST) / found / hyp.name, folder(file) / found, row, unit)
    print(f"{name}, {precision}, {test_set}, {search}: {line}", flush=True)
