"""Labels beside points, where they cover neither points nor lines nor one another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Where a label may stand: the way from its point to the nearest edge or corner of its box, in points; near ones first.
PLACES = [(x * reach, y * reach) for reach in (6, 11, 18, 28, 40, 55, 72)
          for x, y in ((0.7, -0.7), (-0.7, -0.7), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0, 1), (1, 0), (-1, 0))]
CLOSE = 15.0  # points; a label that is farther away gets a line to its point
STEP = 4.0  # pixels between the boxes that stand for a line

Box = NDArray[np.float64]  # left, bottom, right, top in pixels


class Labels:
    """The labels of one axes, whose figure has to be laid out already."""

    def __init__(self, axes: Any, renderer: Any) -> None:
        self.axes, self.renderer = axes, renderer
        self.scale = axes.figure.dpi / 72
        self.taken: list[Box] = []  # boxes that no label should cover

    def avoid(self, x: float, y: float, radius: float = 3.0) -> None:
        """Keep labels `radius` points away from the point (x, y), in data units."""
        self._take(self.axes.transData.transform((x, y)), radius)

    def avoid_line(self, xs: list[float], ys: list[float], radius: float = 1.0) -> None:
        """Keep labels `radius` points away from the line through these points, in data units."""
        corners = self.axes.transData.transform(list(zip(xs, ys, strict=True)))
        for start, end in zip(corners[:-1], corners[1:], strict=True):
            for part in np.linspace(0, 1, 2 + int(np.abs(end - start).max() / STEP)):
                self._take(start + (end - start) * part, radius)

    def put(self, text: str, x: float, y: float, **style: Any) -> None:
        """Write `text` near (x, y) at the first of the places that cover least."""
        artist = self.axes.annotate(text, (x, y), **style)
        extent = artist.get_window_extent(self.renderer)
        artist.remove()
        point = self.axes.transData.transform((x, y))
        boxes = [self._box(point, place, extent.width, extent.height) for place in PLACES]
        covered = [self._covered(box) for box in boxes]
        best = covered.index(min(covered))
        self.taken.append(boxes[best])
        self._draw(text, x, y, PLACES[best], style)

    def _take(self, middle: Box, radius: float) -> None:
        reach = radius * self.scale
        self.taken.append(np.concatenate([middle - reach, middle + reach]))

    def _box(self, point: Box, place: tuple[float, float], width: float, height: float) -> Box:
        """The box of a label of this size in pixels at a place."""
        left, bottom = (at + offset * self.scale - {"left": 0.0, "center": size / 2, "right": size}[align]
                        for at, offset, size, align in zip(point, place, (width, height), _aligned(place), strict=True))
        return np.array([left - 1, bottom - 1, left + width + 1, bottom + height + 1])

    def _covered(self, box: Box) -> int:
        """How many taken boxes a label would meet; one outside the axes counts as very many."""
        taken, edges = np.array(self.taken or np.empty((0, 4))), self.axes.bbox.extents
        met = (box[0] < taken[:, 2]) & (taken[:, 0] < box[2]) & (box[1] < taken[:, 3]) & (taken[:, 1] < box[3])
        return int(met.sum()) + 1000 * bool((box[:2] < edges[:2]).any() or (box[2:] > edges[2:]).any())

    def _draw(self, text: str, x: float, y: float, place: tuple[float, float], style: dict[str, Any]) -> None:
        horizontal, vertical = _aligned(place)
        line = {"arrowstyle": "-", "color": style.get("color"), "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        self.axes.annotate(text, (x, y), xytext=place, textcoords="offset points", ha=horizontal,
                           va={"left": "bottom", "right": "top"}.get(vertical, vertical),
                           arrowprops=line if np.hypot(*place) > CLOSE else None, **style)


def _aligned(place: tuple[float, float]) -> tuple[str, str]:
    """Which side of a label is at its place, across and up: `left` is the lower side in a column too."""
    across, up = ("left" if offset > 0 else "right" if offset < 0 else "center" for offset in place)
    return across, up
