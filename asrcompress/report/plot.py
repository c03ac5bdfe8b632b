"""The picture of the rows: error rate against the bytes of the file, one panel per test set."""

from pathlib import Path
from typing import Any

from asrcompress.options import require
from asrcompress.report import series
from asrcompress.report.labels import Labels
from asrcompress.report.rows import Row
from asrcompress.report.series import CONTROL, DENSE, Point

# Okabe and Ito's colours, which the colour-blind tell apart. Families that are not named here are grey.
COLOURS = {"quantized": "#0072B2", "low rank": "#D55E00", "low rank, quantized": "#7F3C8D", "displacement": "#009E73",
           "hashing": "#B8860B", DENSE: "black", CONTROL: "#555555"}
SAID = {CONTROL: "smaller dense models,\ntrained from scratch", "quantized": "dense, quantized",
        "displacement": "displacement rank", "low rank, quantized": "low rank\nand quantized",
        "hashing, quantized": "hashing and quantized"}
CUT = 1.75  # rates above this many times the dense model's are marked at the upper edge only


def wer_vs_bytes(rows: list[Row], path: Path | str, search: str | None = None, note: str = "") -> None:
    """Write a PNG of the `search` column (by default that of `series.rate_to_draw`) against the packed bytes.

    `note`, a statement about the test sets, stands at the foot. Errors: UserError where no row has an error rate for
    the search, or none of those has a size.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rate = series.rate_to_draw(rows, search)
    shown = series.panels(rows, rate)
    require(bool(shown), f"no row of a packed file has both packed_bytes and the {rate[0].upper()} of {rate[1]}, so "
            "there is nothing to draw; `score --packed` writes both")
    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.6, 6.0 * len(shown)), dpi=150, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for ax, (name, families) in zip(axes, shown.items(), strict=True):
            frame(ax, [point for points in families.values() for point in points], limits(families))
            ax.set_title(f"{name}: {rate[0].upper()} against the size of the file that was decoded", loc="left",
                         fontsize=12, fontweight="bold")
            ax.set_ylabel(f"{rate[0].upper()} (%), search {rate[1]}, 95 % intervals")
        axes[-1].set_xlabel("packed file (MB, log scale)" + f"\n{note}" * bool(note))
        canvas.draw()  # the layout, which labels need
        figure.set_layout_engine("none")
        for ax, families in zip(axes, shown.values(), strict=True):
            panel(ax, families, canvas.get_renderer())
        figure.savefig(path, format="png")


def limits(families: dict[str, list[Point]]) -> tuple[float, float]:
    """The lowest and the highest error rate that the axis shows."""
    points = [point for group in families.values() for point in group]
    best, worst = min(low(point) for point in points), max(high(point) for point in points)
    dense = max((point.rate for point in families.get(DENSE, [])), default=best)
    top = min(worst, max(CUT * dense, best + 5))
    return best - 0.06 * (top - best) - 0.5, top + 0.5


def low(point: Point) -> float:
    """The lower end of a point's interval, or its rate."""
    return point.ci95[0] if point.ci95 else point.rate


def high(point: Point) -> float:
    """The upper end of a point's interval, or its rate."""
    return point.ci95[1] if point.ci95 else point.rate


def frame(ax: Any, points: list[Point], rates: tuple[float, float]) -> None:
    """Axes and grid: megabytes on a log scale, error rates from `rates[0]` to `rates[1]`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    sizes = [point.megabytes for point in points]
    ax.set_xscale("log")
    ax.set_xlim(min(sizes) / 1.7, max(sizes) * 1.5)
    ax.set_ylim(*rates)
    span = max(sizes) / min(sizes)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if span < 5 else (1, 2, 5) if span < 200 else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda megabytes, _: f"{megabytes:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(True, which="major", color="#ececec", linewidth=0.8)
    ax.set_axisbelow(True)


def panel(ax: Any, families: dict[str, list[Point]], renderer: Any) -> None:
    """Draw one test set: the dense line, the control, the front of every family, what is behind and what is above."""
    labels, top = Labels(ax, renderer), ax.get_ylim()[1]
    for point in families.get(DENSE, []):
        labels.avoid_line(list(ax.get_xlim()), [point.rate] * 2, 0.5)
    fronts = {family: series.front(points) for family, points in families.items()}
    if CONTROL in families:  # the control's curve ends at the dense model, which is trained in the same way
        fronts[CONTROL] = series.front(families[CONTROL] + families.get(DENSE, []))
    dense_line(ax, families.get(DENSE, []))
    for family, best in fronts.items():
        curve(ax, family, [point for point in best if point.rate <= top or family == CONTROL], labels)
        behind(ax, family, [point for point in families[family] if point not in best and point.rate <= top], labels)
    above(ax, families, top)
    for family, best in fronts.items():
        name_family(family, best, top, labels)
    named = [(family, point) for family, best in fronts.items() if family != DENSE for point in best]
    for family, point in sorted(named, key=lambda one: one[1].rate):
        if point.rate <= top and point not in families.get(DENSE, []):
            labels.put(point.name, point.megabytes, point.rate, color=colour(family), fontsize=8)


def colour(family: str) -> str:
    """The colour of a family; grey where it has none of its own."""
    return COLOURS.get(family) or COLOURS.get(family.partition(",")[0], "#7A7A7A")


def dense_line(ax: Any, points: list[Point]) -> None:
    """A line at the dense model's error rate, and a band for its interval."""
    for point in points[-1:]:
        ax.axhline(point.rate, color="black", linewidth=0.9, zorder=1)
        ax.axhspan(low(point), high(point), color="black", alpha=0.06, linewidth=0, zorder=0)


def curve(ax: Any, family: str, points: list[Point], labels: Labels) -> None:
    """The front of a family with its intervals; the control is dashed and hollow, the dense model a star."""
    look = {DENSE: {"marker": "*", "markersize": 15, "linestyle": "none", "zorder": 6},
            CONTROL: {"marker": "o", "markersize": 6, "markerfacecolor": "white", "linestyle": "--"}}
    sizes, rates = [point.megabytes for point in points], [point.rate for point in points]
    bounds = [[point.rate - low(point) for point in points], [high(point) - point.rate for point in points]]
    if points:
        ax.errorbar(sizes, rates, yerr=bounds, color=colour(family), linewidth=1.8, elinewidth=0.8,
                    **{"marker": "o", "markersize": 5, "zorder": 4, **look.get(family, {})})
        labels.avoid_line(sizes, rates)
    for point in points:
        labels.avoid(point.megabytes, point.rate, 3)
        labels.avoid_line([point.megabytes] * 2, [low(point), high(point)], 0.7)


def behind(ax: Any, family: str, points: list[Point], labels: Labels) -> None:
    """Models that a smaller one of their family beats: pale dots."""
    for point in points:
        ax.plot(point.megabytes, point.rate, marker="o", markersize=4, color=colour(family), alpha=0.4, zorder=3)
        labels.avoid(point.megabytes, point.rate, 2)


def above(ax: Any, families: dict[str, list[Point]], top: float) -> None:
    """A triangle at the upper edge for every model above it, and how many there are."""
    points = [(family, point) for family, group in families.items() for point in group if point.rate > top]
    for family, point in points:
        ax.plot(point.megabytes, top, marker="^", markersize=7, color=colour(family), markeredgecolor="white",
                markeredgewidth=0.4, clip_on=False, zorder=5)
    said = "pale: a smaller model of the same kind makes fewer errors"
    if points:
        worst = max(point.rate for _, point in points)
        said = f"▲ {len(points)} models above {top:.0f} %, up to {worst:.0f} %\n{said}"
    ax.text(0.995, 0.98, said, transform=ax.transAxes, ha="right", va="top", fontsize=8.5, color="#444444")


def name_family(family: str, points: list[Point], top: float, labels: Labels) -> None:
    """The name of a family in bold, near the smallest of its models that is below the edge."""
    shown = [point for point in points if point.rate <= top]
    if shown:
        where = shown[-1] if family == DENSE else shown[0]
        text = f"{family}, {where.rate:.1f} %" if family == DENSE else SAID.get(family, family)
        labels.put(text, where.megabytes, where.rate, color=colour(family), fontsize=10.5, fontweight="bold")
