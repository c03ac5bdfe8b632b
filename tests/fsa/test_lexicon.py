from pathlib import Path

import pytest

k2 = pytest.importorskip("k2")

from asrcompress.errors import UserError  # noqa: E402
from asrcompress.fsa import lexicon  # noqa: E402
from tests.fsa import tiny  # noqa: E402


@pytest.mark.parametrize(("pronunciations", "symbols"), [
    (["a b", "c"], [0, 0]),
    (["a b", "c", "c"], [0, 1, 2]),  # homophones
    (["a", "a b", "b"], [1, 0, 0]),  # one begins another
    (["a b c", "a", "a b"], [0, 1, 1]),  # a chain of beginnings
    (["a", "a", "a b", "a b", "b a"], [1, 2, 1, 2, 0]),
    (["b a", "a"], [0, 0]),  # an ending is no beginning
])
def test_disambiguate_by_hand(pronunciations: list[str], symbols: list[int]) -> None:
    """What kaldi's utils/add_lex_disambig.pl gives for these lexicons, worked out by hand."""
    assert lexicon.disambiguate([spelling.split() for spelling in pronunciations]) == symbols


def test_lexicon_fst(tmp_path: Path) -> None:
    """Token ids: a 1, b 2, c 3, #0 4, #1 5, #2 6. Word ids: AB 1, HEAR 2, HERE 3, #0 4."""
    fst = lexicon.lexicon_fst(lexicon.read_lang(tiny.write_lang(tmp_path)))
    arcs = {(*arc[:3], word) for arc, word in zip(fst.arcs.values().tolist(), fst.aux_labels.tolist(), strict=True)}
    assert arcs == {(0, 0, 4, 4), (0, 1, 1, 1), (1, 0, 2, 0), (0, 2, 3, 2), (2, 0, 5, 0), (0, 3, 3, 3), (3, 0, 6, 0),
                    (0, 4, -1, -1)}
    assert fst.scores.tolist() == [0] * 8


def test_a_single_token_word(tmp_path: Path) -> None:
    fst = lexicon.lexicon_fst(lexicon.read_lang(tiny.write_lang(tmp_path, [("AB", ["a"]), ("HEAR", ["c"])])))
    assert {tuple(arc[:3]) for arc in fst.arcs.values().tolist()} == {(0, 0, 4), (0, 0, 1), (0, 0, 3), (0, 1, -1)}


def test_lang_that_does_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'AB' uses the token x that is not in tokens.txt"):
        lexicon.read_lang(tiny.write_lang(tmp_path, [("AB", ["a", "x"])]))
    with pytest.raises(UserError, match="lacks 'NEW'"):
        lexicon.read_lang(tiny.write_lang(tmp_path, [("NEW", ["a"])]))
    (tmp_path / "lexicon.txt").write_text("AB a b\nHEAR\n")
    with pytest.raises(UserError, match="line 2"):
        lexicon.read_lang(tmp_path)
