"""What the picture shows: the models of a test set by family, and which of them are on the front of their family."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.report import table
from asrcompress.report.rows import Row
from asrcompress.report.table import Cell, Line

STRUCTURES = Path(__file__).resolve().parent.parent / "compression" / "structures"
DENSE, CONTROL, QUANTIZED, OTHER = "dense", "control", "quantized", "other structures"
MIN_MODELS = 4  # a test set with fewer has no panel, unless no test set has more

Rate = tuple[str, str]  # ("wer" or "ter", search)


@dataclass(frozen=True)
class Point:
    """One model: its row's name, the megabytes of its packed file, its error rate in percent, its 95 % interval."""

    name: str
    megabytes: float
    rate: float
    ci95: tuple[float, float] | None = None


def rate_to_draw(rows: list[Row], search: str | None = None) -> Rate:
    """The (rate, search) to draw: words before tokens, and by default the search that the most lines have; of several
    the one that comes last in the rows.

    Errors: UserError where no row has an error rate, or none of the named search.
    """
    lines = [line for name in table.test_sets(rows) for line in table.pivot(rows, name)]
    order = list(dict.fromkeys(row["search"] for row in rows))
    found = sorted(table.rates(lines), key=lambda one: (one[0] == "wer", sum(one in line.cells for line in lines),
                                                        order.index(one[1])))
    wanted = [one for one in found if search in (None, one[1])]
    if not wanted:
        raise UserError(f"no row of a packed file has an error rate for the search '{search}'; there are "
                        f"{', '.join(one[1] for one in found) or 'none'}" if search else
                        "no row of a packed file has an error rate; score some hypotheses first")
    return wanted[-1]


def panels(rows: list[Row], rate: Rate) -> dict[str, dict[str, list[Point]]]:
    """Test set -> family -> its models by size, for the test sets with `MIN_MODELS` models or more.

    Where no test set has so many, the one with the most models; none where no row of a packed file has this rate and a
    size.
    """
    found = {name: families(table.pivot(rows, name), rate) for name in table.test_sets(rows)}
    count = {name: sum(map(len, models.values())) for name, models in found.items()}
    enough = max(1, min(MIN_MODELS, max(count.values(), default=0)))
    return {name: models for name, models in found.items() if count[name] >= enough}


def families(lines: Sequence[Line], rate: Rate) -> dict[str, list[Point]]:
    """Family -> its models by size; a line without this rate or without a size is left out."""
    out: dict[str, list[Point]] = {}
    compressed = compressed_model(lines)
    for line in lines:
        if rate in line.cells and line.facts["packed_bytes"]:
            out.setdefault(family(line, compressed), []).append(_point(line, line.cells[rate]))
    return {name: sorted(points, key=lambda point: point.megabytes) for name, points in out.items()}


def front_of(lines: Iterable[Line], rate: Rate) -> list[Line]:
    """The lines of all families that no smaller one beats, the smallest first."""
    points = {_point(line, line.cells[rate]): line for line in lines
              if rate in line.cells and line.facts["packed_bytes"]}
    return [points[point] for point in front(list(points))]


def _point(line: Line, cell: Cell) -> Point:
    ends = (cell.ci95[0], cell.ci95[1]) if cell.ci95 else None
    return Point(line.facts["name"], line.facts["packed_bytes"] / 1e6, cell.rate, ends)


def compressed_model(lines: Iterable[Line]) -> str | None:
    """The `model` of the dense reference, which the others are made of; None where there is none."""
    return next((line.facts["model"] for line in lines if line.is_dense()), None)


def family(line: Line, compressed: str | None) -> str:
    """`dense`, `control`, `quantized` (dense weights in fewer bits), or the folder of the structure: `low rank`,
    `displacement`, `hashing`; with `, quantized` where its values have fewer bits. What is made of a control, and not
    of the `compressed` model, is a control: it is what the same bytes buy without the large one."""
    facts = line.facts
    if line.is_dense():
        return DENSE
    if line.is_control() or (compressed not in (None, facts["model"]) and facts["structure"] in (None, "dense")):
        return CONTROL
    quantized = facts["quantization"] not in (None, "float32")
    if facts["structure"] in (None, "dense"):
        return QUANTIZED
    return _folder(facts["structure"]) + (f", {QUANTIZED}" if quantized else "")


@cache
def _folder(structure: str) -> str:
    """The family of a structure is the folder that its file is in."""
    file = next(STRUCTURES.glob(f"*/{structure}.py"), None)
    return file.parent.name.replace("_", " ") if file else OTHER


def front(points: list[Point], alike: float = 1.03) -> list[Point]:
    """The models that no smaller one beats, by size: each has a lower error rate than all before it.

    Sizes within a factor of `alike` count as one size, of which the lowest rate stands.
    """
    out: list[Point] = []
    for point in sorted(points, key=lambda point: (point.megabytes, point.rate)):
        if out and point.rate >= out[-1].rate:
            continue
        if out and point.megabytes <= alike * out[-1].megabytes:
            out.pop()
        out.append(point)
    return out
