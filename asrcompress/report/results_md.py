"""RESULTS.md: what the rows say, in the form that one reads first."""

from collections.abc import Sequence
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.report import device, plot, reference, series, table
from asrcompress.report.rows import Row

PICTURE, SHEET, PAGE, DEVICES = "wer_vs_bytes.png", "table.csv", "RESULTS.md", "device.csv"
FEW = 12  # lines of one table
READING = """\
Rates are in percent, with the 95 % interval of a bootstrap over utterances; `p` is the probability, on the same
resamples, of making fewer errors than the dense model (0.5: no difference). MB is the size on disk of the packed file
that was loaded and decoded, `ratio` the dense model's float32 bytes over it, MMAC/s millions of multiply-adds per
second of audio. The smaller dense models trained from scratch are the control: what the same bytes buy without
compression. RTF is the network's forward on one utterance, in seconds per second of audio, on the threads named below.
"""

DEVICE_READING = """\
A line is a file that sherpa-onnx loads on a device. MB is its size, `ratio` the dense float32 device file's over it.
RTF is seconds of computing per second of audio on one thread: of the network alone in onnxruntime (random features),
and of sherpa-onnx on the test set, from samples to tokens by greedy search, and to words over HLG.fst. `x dense` says
how many times faster the network is than the dense float32 one, with its 95 % interval, when both run in turns. Peak MB
is the memory of a fresh process that transcribes 20 s in sherpa-onnx, in brackets what Python and the runtime hold
before the model is loaded; over HLG the graph counts. The last column sends the posteriors of the same file through
k2's search: differences to its left are those of the search, differences between lines those of the file.
"""


def write(rows: list[Row], out: Path | str, note: str = "", title: str = "Results", search: str | None = None,
          published: Path | None = None) -> None:
    """Write RESULTS.md, table.csv and wer_vs_bytes.png into the folder `out`, each whole or not at all.

    And device.csv, where there are rows of device files. A picture that nothing could stand in is left out, and that is
    printed. `published` is a CSV file of `reference`. Errors: UserError where there are no rows, and of
    `reference.read`.
    """
    published_rows = reference.read(published) if published else []
    if not rows:
        raise UserError("there are no result rows to report; score some hypotheses with --rows first")
    out = Path(out)
    if has_picture(rows, search):
        with atomic(out / PICTURE) as temporary:
            plot.wer_vs_bytes(rows, temporary, search, note)
    else:
        print(f"{out / PICTURE} is left out: no row of a packed file has both the error rate and packed_bytes, which "
              "`score --packed` writes")
    with atomic(out / SHEET) as temporary:
        temporary.write_text(table.to_csv(rows), encoding="utf-8")
    if device.test_sets(rows):
        with atomic(out / DEVICES) as temporary:
            temporary.write_text(device.to_csv(rows), encoding="utf-8")
    with atomic(out / PAGE) as temporary:
        temporary.write_text(page(rows, note, title, published_rows, search), encoding="utf-8")


def has_picture(rows: list[Row], search: str | None = None) -> bool:
    """Whether a row of a packed file has what the picture shows: bytes, and the error rate of the search."""
    return bool(table.test_sets(rows) and series.panels(rows, series.rate_to_draw(rows, search)))


def page(rows: list[Row], note: str = "", title: str = "Results", published: Sequence[reference.Figure] = (),
         search: str | None = None) -> str:
    """The Markdown text."""
    parts = [f"# {title}\n", "Generated from result rows by `asrcompress report`; do not edit by hand.\n"]
    if note:
        parts.append(f"**{note}**\n")
    for name in table.test_sets(rows):
        lines, rate = table.pivot(rows, name), series.rate_to_draw(rows, search)
        parts += [f"## {name}\n", test_set(rows, name), *tables(lines, rate), *structures(lines), *seeds(lines)]
    picture = [f"![Error rate against the size of the packed file]({PICTURE})\n"] * has_picture(rows, search)
    parts += [READING, *picture, f"All figures: [{SHEET}]({SHEET}).\n", *on_the_device(rows),
              *reference.section(published), "## How to reproduce\n", commands(rows), "## Measured on\n", machine(rows)]
    return "\n".join(parts)


def tables(lines: list[table.Line], rate: series.Rate) -> list[str]:
    """The lines of a test set; where they are many, those on the front first, and then each family."""
    if len(lines) <= FEW:
        return [table.markdown(lines)]
    best = series.front_of(lines, rate)
    parts = [f"### The front\n\nWhat no smaller file beats, by {rate[0].upper()} {rate[1]}.\n",
             table.markdown(best)] if best else []
    families: dict[str, list[table.Line]] = {}
    compressed = series.compressed_model(lines)
    for line in lines:
        families.setdefault(series.family(line, compressed), []).append(line)
    for family, own in families.items():
        parts += [f"### {family[0].upper()}{family[1:]}\n", table.markdown(own)]
    return parts


def structures(lines: list[table.Line]) -> list[str]:
    """Every structure at every size, by the first search with words; nothing where there is little to compare."""
    column = next((column for column in table.rates(lines) if column[0] == "wer"), None)
    cells = table.by_size(lines, column) if column else []
    if not column or not cells:
        return []
    return [f"WER % {column[1]} of each structure by the fraction of the dense model's parameters that it keeps "
            "(float32; `*`: not significantly above dense, p >= 0.05; / separates models of one size):\n",
            table.to_markdown(cells)]


def seeds(lines: list[table.Line]) -> list[str]:
    """Mean and spread of what was made with several seeds; nothing where there is none."""
    cells = table.by_seed(lines)
    return ["Made with several seeds: the mean and the standard deviation over them.\n",
            table.to_markdown(cells)] if cells else []


def on_the_device(rows: list[Row]) -> list[str]:
    """The section on device files; nothing where there are none."""
    sets = device.test_sets(rows)
    tables = [part for name in sets for part in (f"### {name}\n", table.to_markdown(device.table(rows, name)))]
    return ["## On the device\n", *tables, DEVICE_READING, f"All figures: [{DEVICES}]({DEVICES}).\n"] if sets else []


def test_set(rows: list[Row], name: str) -> str:
    """One sentence on a test set: its words, and what the models were trained on."""
    here = [row for row in rows if row["test_set"] == name]
    words = sorted({row["words"] for row in here if row["words"] and row["wer"] is not None})
    trained = sorted({row["train_set"] for row in here if row["train_set"]})
    said = [f"{' or '.join(f'{count:,}' for count in words)} words"] if words else []
    said += [f"models trained on {' or '.join(trained)}"] if trained else []
    return f"{'; '.join(said).capitalize()}.\n" if said else ""


def commands(rows: list[Row]) -> str:
    """The commands that made the rows, in their order, each once."""
    found = list(dict.fromkeys(row["command"] for row in rows if row["command"]))
    if not found:
        return "The rows name no command.\n"
    return ("As they were typed, with the option names of the code of their day.\n\n```sh\n"
            + "".join(f"{command}\n" for command in found) + "```\n")


def machine(rows: list[Row]) -> str:
    """CPU, threads, code, runtimes and date."""
    lines = []
    for heading, key in (("CPU", "cpu"), ("its flags", "cpu_flags"), ("threads", "threads"), ("code", "commit")):
        found = list(dict.fromkeys(str(row[key]) for row in rows if row[key] is not None))
        lines += [f"* {heading}: {', '.join(found)}\n"] if found else []
    runtimes = dict.fromkeys(f"{row['runtime']} {row['runtime_version']}" for row in rows if row["runtime_version"])
    lines += [f"* runtimes: {', '.join(runtimes)}\n"] if runtimes else []
    dates = sorted(row["date"] for row in rows if row["date"])
    if dates:
        lines.append(f"* date: {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else "") + "\n")
    return "".join(lines) or "The rows name no machine.\n"
