import random
from pathlib import Path

import pytest

from asrcompress.data import grammar
from asrcompress.errors import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "grammar.txt"
    path.write_text(text)
    return path


def test_draws_every_sentence_and_no_other(tmp_path: Path) -> None:
    rules = grammar.read(write(tmp_path, "# a comment\nsentence: the <animal> <does>\nanimal: cat | dog\n\n"
                                         "does: sleeps\ndoes: runs <how>\nhow: fast\n"))
    rng = random.Random(0)
    drawn = {" ".join(grammar.draw(rules, rng)) for _ in range(200)}
    assert drawn == {"THE CAT SLEEPS", "THE DOG SLEEPS", "THE CAT RUNS FAST", "THE DOG RUNS FAST"}
    assert grammar.words(rules) == {"THE", "CAT", "DOG", "SLEEPS", "RUNS", "FAST"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence the cat\n", "line 1: no colon"),
        ("sentence: the <animal>\n", "does not say what <animal> is"),
        ("animal: cat\n", "does not say what <sentence> is"),
        ("sentence: one <x>, two\nx: three\n", "line 1: '<x>,' is a slot and more"),
    ],
)
def test_bad_grammar(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        grammar.read(write(tmp_path, text))


def test_missing_grammar(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        grammar.read(tmp_path / "none.txt")
