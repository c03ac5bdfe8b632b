from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from asrcompress.report.labels import Labels


@pytest.fixture
def labels() -> Labels:
    figure = Figure(figsize=(4, 3), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    canvas.draw()
    return Labels(axes, canvas.get_renderer())


def boxes(labels: Labels) -> list[Any]:
    """The boxes of the words, without the lines to their points."""
    for text in labels.axes.texts:
        text.update_positions(labels.renderer)
    return [Text.get_window_extent(text, labels.renderer) for text in labels.axes.texts]


def test_labels_of_one_place_stand_apart(labels: Labels) -> None:
    for i in range(8):
        labels.avoid(5, 5)
        labels.put(f"name {i}", 5, 5)
    drawn = boxes(labels)
    assert len(drawn) == 8
    assert not any(one.overlaps(other) for i, one in enumerate(drawn) for other in drawn[:i])


def test_labels_keep_off_lines_and_inside_the_axes(labels: Labels) -> None:
    labels.avoid_line([0, 10], [0.6, 0.6])
    labels.put("corner", 9.9, 0.2)
    box, = boxes(labels)
    assert labels.axes.bbox.containsx(box.x1) and box.y0 > labels.axes.transData.transform((0, 0.6))[1]
