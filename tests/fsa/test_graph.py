"""HLG against every path of a language that is small enough to enumerate."""

import gzip
from pathlib import Path

import numpy as np
import pytest

k2 = pytest.importorskip("k2")
pytest.importorskip("kaldilm")

from asrcompress.cli import main  # noqa: E402
from asrcompress.errors import UserError  # noqa: E402
from asrcompress.fsa import graph, lexicon, search, storage  # noqa: E402
from tests.fsa import tiny  # noqa: E402

EXACT = search.Beams(search=1e4, output=1e4, max_active=1000000)


def hlg_of(folder: Path, model: tiny.Model) -> "k2.Fsa":
    lang = lexicon.read_lang(tiny.write_lang(folder))
    grammar, _ = graph.grammar_fst(tiny.write_arpa(folder / "arpa", model), lang.words, 3)
    return graph.compile_hlg(lang, grammar)


@pytest.mark.parametrize("model", [tiny.UNIGRAM, tiny.BIGRAM], ids=["unigram", "bigram"])
def test_search_finds_what_enumeration_finds(tmp_path: Path, model: tiny.Model) -> None:
    searcher = search.Searcher(hlg_of(tmp_path, model), beams=EXACT)
    posteriors = [tiny.random_posteriors(frames, seed) for frames in (1, 2, 5, 6) for seed in range(6)]
    for scale in (0.5, 1.0, 4.0):
        lattices = searcher.lattices(posteriors, scale)
        scores = lattices.get_tot_scores(use_double_scores=True, log_semiring=False).tolist()
        for log_probs, score, ids in zip(posteriors, scores, search.best_words(lattices), strict=True):
            best, words = tiny.enumerate_best(log_probs, model, scale)
            assert score == pytest.approx(best, abs=1e-3)
            assert [tiny.WORDS[i] for i in ids] == words


def test_homophones_are_told_apart_by_the_language_model(tmp_path: Path) -> None:
    """The token c alone. `<s> HEAR` has its bigram; after AB it is HERE's turn."""
    searcher = search.Searcher(hlg_of(tmp_path, tiny.BIGRAM), beams=EXACT)
    rows = [np.log(np.eye(4)[path] * 0.96 + 0.01) for path in ([3, 0], [1, 2, 0, 3])]
    found = search.best_words(searcher.lattices(rows, 1.0))
    assert [[tiny.WORDS[i] for i in ids] for ids in found] == [["HEAR"], ["AB", "HERE"]]


def test_words_outside_the_lexicon_are_left_out_and_counted(tmp_path: Path) -> None:
    model = {**tiny.BIGRAM, ("OTHER",): (-0.1, 0.0), ("OTHER", "AB"): (-0.1, 0.0), ("AB", "OTHER"): (-0.1, 0.0)}
    lang = lexicon.read_lang(tiny.write_lang(tmp_path))
    grammar, kept = graph.grammar_fst(tiny.write_arpa(tmp_path / "arpa", model), lang.words, 3)
    assert (kept.ngrams, kept.dropped_ngrams, kept.dropped_words) == ([5, 5], 3, 1)
    without, _ = graph.grammar_fst(tiny.write_arpa(tmp_path / "arpa", tiny.BIGRAM), lang.words, 3)
    assert k2.is_rand_equivalent(grammar, without, log_semiring=False)


def test_max_order_and_gzip(tmp_path: Path) -> None:
    words = lexicon.read_lang(tiny.write_lang(tmp_path)).words
    arpa = tiny.write_arpa(tmp_path / "arpa", tiny.BIGRAM)
    packed = tmp_path / "arpa.gz"
    packed.write_bytes(gzip.compress(arpa.read_bytes()))
    assert graph.grammar_fst(packed, words, 3)[1].ngrams == [5, 5]
    assert graph.grammar_fst(packed, words, 1)[1].ngrams == [5]


def test_no_word_in_common(tmp_path: Path) -> None:
    lang = lexicon.read_lang(tiny.write_lang(tmp_path))
    arpa = tiny.write_arpa(tmp_path / "arpa", {("<s>",): (-99.0, 0.0), ("ab",): (-0.1, 0.0), ("</s>",): (-0.1, 0.0)})
    with pytest.raises(UserError, match="same case"):
        graph.grammar_fst(arpa, lang.words, 3)


def test_command_builds_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lang, arpa = tiny.write_lang(tmp_path / "lang"), tiny.write_arpa(tmp_path / "arpa", tiny.UNIGRAM)
    large = tiny.write_arpa(tmp_path / "large", tiny.BIGRAM)
    command = ["graph", "--lang", str(lang), "--arpa", str(arpa), "--out", str(tmp_path / "out"), "--device-fst"]
    assert main(command) == 0
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert set(first) == {"HLG.npz", "HLG.fst", "graph.json"}
    capsys.readouterr()
    assert main([*command, "--large", str(large)]) == 0
    assert capsys.readouterr().out.count("up to date") == 2
    assert (tmp_path / "out" / "HLG.npz").stat().st_mtime_ns == first["HLG.npz"]
    assert (tmp_path / "out" / "G.npz").exists()
    tiny.write_arpa(arpa, tiny.BIGRAM)  # another language model: another graph
    assert main(command) == 0
    assert "up to date" not in capsys.readouterr().out
    alone = ["graph", "--lang", str(lang), "--out", str(tmp_path / "alone")]
    assert main([*alone, "--large", str(large)]) == 0
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == ["G.npz", "graph.json"]
    assert main(alone) == 1 and "give --arpa for HLG" in capsys.readouterr().err
    assert main([*alone, "--device-fst"]) == 1 and "HLG.npz" in capsys.readouterr().err


def test_command_with_an_arpa_that_is_not_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lang = tiny.write_lang(tmp_path / "lang")
    command = ["graph", "--lang", str(lang), "--arpa", str(lang / "lexicon.txt"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "lexicon.txt, line 1: 'AB a b' where \\data\\ is expected" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["<eps>", "#0", "nan"])
def test_a_model_with_odd_words_gives_the_graph_of_the_model_without(tmp_path: Path, word: str) -> None:
    """k2 aborted on the first two; `nan` is a word like any other, here outside the lexicon."""
    lang = tiny.write_lang(tmp_path / "lang")
    model = {**tiny.BIGRAM, ("<s>",): (float("-inf"), -0.2), (word,): (-0.5, -0.1), (word, "AB"): (-0.3, 0.0)}
    command = ["graph", "--lang", str(lang), "--out", str(tmp_path / "out"), "--arpa"]
    assert main([*command, str(tiny.write_arpa(tmp_path / "odd.arpa", model))]) == 0
    wanted = hlg_of(tmp_path / "plain", tiny.BIGRAM)
    assert k2.is_rand_equivalent(storage.load(tmp_path / "out" / "HLG.npz", "HLG"), wanted, log_semiring=False)
