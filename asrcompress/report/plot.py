"""The picture of a table: error rate against the bytes of the file, one panel per test set."""

from pathlib import Path
from typing import Any

from asrcompress.errors import UserError
from asrcompress.report import table
from asrcompress.report.rows import Row
from asrcompress.report.table import Cell, Line

# Okabe and Ito's colours, which the colour-blind tell apart; black is kept for dense models.
# Eight colours and eight markers, shifted by one every eight methods: no two methods look alike.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#8C8C2A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
CONTROL = "control: smaller dense, from scratch"

Point = tuple[float, Cell]  # megabytes, error rate


def wer_vs_bytes(rows: list[Row], path: Path | str, search: str | None = None) -> None:
    """Write a PNG of the `search` column (by default the strongest that most lines have) against the packed bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    rate, search = column(rows, search)
    sets = table.test_sets(rows)
    styles = styles_of([line for name in sets for line in table.pivot(rows, name)])
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(max(7.0, 5.2 * len(sets)), 4.8), dpi=160, layout="constrained")
        axes = figure.subplots(1, len(sets), squeeze=False)[0]
        for ax, name in zip(axes, sets, strict=True):
            panel(ax, series(table.pivot(rows, name), (rate, search)), styles)
            ax.set_title(name, loc="left", fontweight="bold")
            ax.set_xlabel("size of the packed file (MB, log scale)")
        axes[0].set_ylabel(f"{rate.upper()} (%), {search}, with 95 % interval")
        legend: dict[str, Any] = {}
        for ax in axes:
            legend |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        names = [name for name in styles if name in legend]
        figure.legend([legend[name] for name in names], names, loc="outside lower center", frameon=False,
                      ncols=min(3, len(names) or 1))
        figure.savefig(path, format="png")


def column(rows: list[Row], search: str | None = None) -> tuple[str, str]:
    """The (rate, search) to draw: by default that of the most lines, and among several the strongest search."""
    lines = [line for name in table.test_sets(rows) for line in table.pivot(rows, name)]
    found = sorted(table.rates(lines), key=lambda one: (one[0] == "wer", sum(one in line.cells for line in lines)))
    wanted = [one for one in found if search in (None, one[1])]
    if not wanted:
        raise UserError(f"no row has an error rate for the search '{search}'; there are "
                        f"{', '.join(one[1] for one in found) or 'none'}" if search else
                        "no row has an error rate; score some hypotheses first")
    return wanted[-1]


def method(line: Line) -> str:
    """The curve that a line belongs to: what was done to the weights and when, without how much."""
    if line.is_dense():
        return "dense"
    if line.is_control():
        return CONTROL
    facts = line.facts
    parts = [facts["structure"] or facts["name"], facts["quantization"], facts["coder"]]
    label = " × ".join(part for part in parts if part not in (None, "float32", "raw"))
    return label + {"after": ", after training", "during": ", during training", "scratch": ", from scratch"}.get(
        facts["when"] or "", "")


def series(lines: list[Line], rate: tuple[str, str]) -> dict[str, list[Point]]:
    """Method -> its points by size. The control's curve ends at the dense model, which is trained in the same way."""
    out: dict[str, list[Point]] = {}
    for line in lines:
        if rate in line.cells and line.facts["packed_bytes"]:
            out.setdefault(method(line), []).append((line.facts["packed_bytes"] / 1e6, line.cells[rate]))
    if CONTROL in out:
        out[CONTROL] += [(size, Cell(cell.rate, None, None)) for size, cell in out.get("dense", [])]
    return {name: sorted(points, key=lambda point: point[0]) for name, points in out.items()}


def styles_of(lines: list[Line]) -> dict[str, dict[str, Any]]:
    """How each method is drawn: the same in every panel."""
    names = sorted({method(line) for line in lines} - {"dense", CONTROL})
    return {
        "dense": {"color": "black", "marker": "*", "markersize": 17, "linestyle": "none", "zorder": 5},
        CONTROL: {"color": "#555555", "marker": "o", "markersize": 6, "markerfacecolor": "white", "linestyle": "--"},
        **{name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // 8) % 8], "markersize": 6}
           for i, name in enumerate(names)}}


def panel(ax: Any, curves: dict[str, list[Point]], styles: dict[str, dict[str, Any]]) -> None:
    """Draw one test set: curves with their intervals, and a faint line at the dense model's error rate."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for i, name in enumerate(styles):
        points = curves.get(name, [])
        cells = [cell for _, cell in points]
        bounds = [cell.ci95 or [cell.rate, cell.rate] for cell in cells]
        below = [max(0.0, cell.rate - low) for cell, (low, _) in zip(cells, bounds, strict=True)]
        above = [max(0.0, high - cell.rate) for cell, (_, high) in zip(cells, bounds, strict=True)]
        # Methods meet at the same bytes by design: a percent apart, within a marker's width, their bars can be read.
        apart = 1 if name == "dense" else 1.012 ** (i - len(styles) / 2)
        if points:
            ax.errorbar([size * apart for size, _ in points], [cell.rate for cell in cells], yerr=[below, above],
                        label=name, capsize=3, elinewidth=1, linewidth=1.6, **styles[name])
    if "dense" in curves:
        ax.axhline(curves["dense"][-1][1].rate, color="black", linewidth=0.8, alpha=0.25, zorder=0)
    sizes = [size for points in curves.values() for size, _ in points] or [1.0]
    ax.set_xscale("log")
    ax.set_xlim(min(sizes) / 1.35, max(sizes) * 1.35)
    span = max(sizes) / min(sizes)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if span < 5 else (1, 2, 5) if span < 100 else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda megabytes, _: f"{megabytes:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
