"""Figures published elsewhere, as a table of their own."""

from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.report import reference
from tests.conftest import REPO

HEAD = "system,parameters,search,test_set,wer,source\n"


def test_a_line_for_each_system_and_a_column_for_each_search(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEAD + '"A, large",6,tgpr,dev,9.1,book:3\n"A, large",6,tg,dev,8.5,book:3\n'
                                    "B,,tgpr,eval,5,book:4\n")
    heading, _, table = reference.section(reference.read(tmp_path / "a.csv"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line]
    assert heading.startswith("## ") and [cells[0], *cells[2:]] == [
        ["system", "parameters", "dev tgpr", "dev tg", "eval tgpr", "source"],
        ["A, large", "6", "9.1", "8.5", "", "book:3"], ["B", "", "", "", "5", "book:4"]]
    assert reference.section([]) == []


@pytest.mark.parametrize(("content", "said"), [
    ("", "line 1: a file of published figures begins with system,"), ("system,wer\nA,3\n", "line 1"),
    (HEAD + "A,,tg,dev,low,book\n", "line 2: 'A,,tg,dev,low,book' is not"), (HEAD + "A,,tg,dev,3\n", "line 2"),
    (HEAD + "A,,tg,dev,-3,book\n", "line 2")])
def test_another_file_is_a_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        reference.read(tmp_path / "a.csv")
    with pytest.raises(UserError, match="does not exist"):
        reference.read(tmp_path / "none.csv")


def test_the_figures_of_the_wall_street_journal() -> None:
    """The study's losses against the row that it meant, and as it printed them (docs/wsj.md)."""
    figures = {(one.system.split(":")[0], one.system, one.search, one.test_set): float(one.wer)
               for one in reference.read(REPO / "recipes" / "wsj" / "reference.csv")}

    def wer(part: str, search: str, test_set: str) -> float:
        return next(rate for (_, name, *rest), rate in figures.items() if part in name and rest == [search, test_set])

    losses = [round(wer("4 layers", search, test_set) - wer("(the study's original)", search, test_set), 2)
              for search in ("tgpr", "bd_tgpr") for test_set in ("dev93", "eval92")]
    assert losses == [0.20, 0.33, 0.05, 0.45]
    assert wer("as printed", "tgpr", "dev93") == wer("LSTM", "tgpr", "dev93") == 9.57
    assert wer("as printed", "bd_tgpr", "dev93") == wer("(the study's original)", "bd_tgpr", "dev93") == 7.19
