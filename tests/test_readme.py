"""What the README and the tutorial say: their Python runs, their figures are those of the rows."""

import re
from pathlib import Path
from typing import Any

import pytest

from asrcompress import files
from asrcompress.report import rows, table

ROOT = Path(__file__).resolve().parent.parent
RATE = ("wer", "tgsmall")
CONFORMER = ROOT / "recipes/librispeech/conformer/longer/results.jsonl"


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks, names = python_blocks(ROOT / page), {"__name__": "page"}
    assert blocks
    for i, block in enumerate(blocks):  # a later block goes on from the earlier ones
        exec(compile(block, f"{page}, Python block {i}", "exec"), names)


def test_the_table_says_what_the_rows_say() -> None:
    known = {line.facts["name"]: line for line in table.pivot(rows.read(CONFORMER), "dev-clean-2")}
    text = (ROOT / "README.md").read_text().split("## What it costs\n")[1].split("\n## ")[0]
    shown: list[Any] = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
                        if re.match(r"\| [\w.-]+ \|.*\d", line)]
    assert 0 < len(shown) <= 8
    for name, _, megabytes, ratio, rate in shown:
        line = known[name]
        low, high = line.cells[RATE].ci95 or (0, 0)
        assert [megabytes, ratio, rate] == [f"{line.facts['packed_bytes'] / 1e6:.2f}", f"{line.facts['ratio']:.1f}",
                                            f"{line.cells[RATE].rate:.1f} [{low:.1f}, {high:.1f}]"], name


def test_released_files_are_those_of_the_rows_and_few_enough() -> None:
    released = ROOT / "recipes/librispeech/released"
    sizes = {row["name"]: row["packed_bytes"] for row in rows.read(CONFORMER)}
    models = sorted(released.glob("*/model.packed"))
    assert models and all(path.stat().st_size == sizes[path.parent.name] for path in models)
    given = [path for path in released.rglob("*") if "graph" not in path.relative_to(released).parts]  # graph is made
    assert sum(path.stat().st_size for path in given) < 12e6
    for sums in released.glob("*/SHA256SUMS"):
        for line in sums.read_text().splitlines():
            digest, name = line.split()
            assert files.sha256(sums.parent / name) == digest, sums.parent / name


def test_it_is_read_in_ten_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) < 1200
