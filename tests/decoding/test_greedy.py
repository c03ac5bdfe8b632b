from pathlib import Path

import numpy as np
import pytest

from asrcompress.decoding import greedy
from asrcompress.decoding.archive import Archive, ArchiveWriter
from asrcompress.errors import UserError
from asrcompress.lang.tokens import collapse

TOKENS = {"<blk>": 0, "▁THE": 1, "▁C": 2, "AT": 3}


def path_to_rows(path: list[int]) -> np.ndarray:
    return np.log(np.eye(4)[path] * 0.6 + 0.1)


@pytest.mark.parametrize(("path", "tokens"), [
    ([], []),
    ([0, 0], []),
    ([1, 1, 0, 1], [1, 1]),  # a blank parts a repeated token
    ([0, 2, 2, 3, 3, 3, 0], [2, 3]),
    ([3], [3]),
])
def test_best_tokens(path: list[int], tokens: list[int]) -> None:
    assert greedy.best_tokens(path_to_rows(path).reshape(-1, 4)) == tokens


def test_against_the_ctc_map() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        rows = random.normal(size=(20, 3))
        assert greedy.best_tokens(rows) == collapse(rows.argmax(axis=1))


def test_archive_to_tokens_and_words(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "x", 4) as archive:
        archive.add("u1", path_to_rows([0, 1, 1, 2, 0, 3]))
        archive.add("u2", path_to_rows([0, 0]))
    tokens = greedy.greedy(Archive(tmp_path / "x"), TOKENS)
    assert tokens == {"u1": "▁THE ▁C AT", "u2": ""}
    assert greedy.greedy_words(tokens) == {"u1": "THE CAT", "u2": ""}


@pytest.mark.parametrize("count", [3, 5])
def test_tokens_of_another_lang_folder_are_refused(count: int, tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "x", 4) as archive:
        archive.add("u1", path_to_rows([0, 1]))
    with pytest.raises(UserError, match=f"x has 4 tokens, and tokens.txt of the lang folder {count}"):
        greedy.greedy(Archive(tmp_path / "x"), {str(i): i for i in range(count)})
