"""layers: a picture of what a byte budget gave to each layer: its bytes, by structure and quantization, its damage."""

from collections.abc import Sequence
from pathlib import Path

from asrcompress.compression import LayerRecord
from asrcompress.files import atomic


def plot(report: Sequence[LayerRecord], path: Path) -> None:
    """Write a PNG with a bar for each layer: above its bytes, coloured by what it became, below its damage."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.22 * len(report)), 6.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    kinds = [f"{row.structure} x {row.quantization.split()[0]}" for row in report]
    for number, kind in enumerate(sorted(set(kinds))):
        places = [place for place, one in enumerate(kinds) if one == kind]
        bars = above.bar(places, [(report[place].bytes or 0) / 1000 for place in places], label=kind,
                         color=colormaps["tab20"](number % 20))
        bits = [f"{8 * (report[place].bytes or 0) / report[place].before:.1f}" for place in places]
        above.bar_label(bars, bits, fontsize=6)
    below.bar(range(len(report)), [row.damage or 0.0 for row in report], color="grey")
    above.set_ylabel("kB (on a bar: bits a weight)")
    below.set_ylabel("damage (nats a frame)")
    below.set_xticks(range(len(report)), [row.path for row in report], rotation=90, fontsize=6)
    above.legend(fontsize=7)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")
