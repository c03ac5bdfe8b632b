"""Lattice rescoring by hand and by enumeration, the search of whole archives, and its command."""

import faulthandler
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

k2 = pytest.importorskip("k2")
pytest.importorskip("kaldilm")

from asrcompress.cli import main  # noqa: E402
from asrcompress.decoding.archive import Archive  # noqa: E402
from asrcompress.errors import UserError  # noqa: E402
from asrcompress.fsa import decode, graph, lexicon, search, storage  # noqa: E402
from tests.fsa import tiny  # noqa: E402
from tests.fsa.test_graph import EXACT, hlg_of  # noqa: E402


def rescoring_searcher(folder: Path, small: tiny.Model, large: tiny.Model) -> search.Searcher:
    words = lexicon.read_lang(tiny.write_lang(folder)).words
    grammar, _ = graph.grammar_fst(tiny.write_arpa(folder / "large", large), words, 3)
    return search.Searcher(hlg_of(folder, small), graph.rescoring_grammar(grammar, words["#0"]), EXACT)


def words_of(lattices: "k2.Fsa") -> list[list[str]]:
    return [[tiny.WORDS[i] for i in ids] for ids in search.best_words(lattices)]


def test_rescoring_changes_the_best_path_as_calculated(tmp_path: Path) -> None:
    """One frame that can only be c. The small model prefers HERE, the large one HEAR; in log10:

    small: HEAR </s> is -0.9 - 0.6 = -1.5, HERE </s> is -0.5 - 0.55 = -1.05;
    large: HEAR </s> is -0.2 + (-0.1 - 0.6) = -0.9, HERE </s> is (-0.2 - 0.5) + (-0.4 - 0.6) = -1.7.
    """
    searcher = rescoring_searcher(tmp_path, tiny.SMALL, tiny.BIGRAM)
    lattices = searcher.lattices([np.log(np.array([[1e-30, 1e-30, 1e-30, 1.0]]))], 1.0)
    assert words_of(lattices) == [["HERE"]]
    rescored = searcher.rescored(lattices)
    assert words_of(rescored) == [["HEAR"]]
    score = rescored.get_tot_scores(use_double_scores=True, log_semiring=False).tolist()
    assert score == pytest.approx([-0.9 * np.log(10)], abs=1e-4)


@pytest.mark.parametrize("lm_scale", [1.0, 0.5, 3.0])
def test_rescoring_finds_what_enumeration_finds(tmp_path: Path, lm_scale: float) -> None:
    """Words of one token each, on neighbouring frames, need back-off between two frames.

    The small model backs off from every word to every word: both homophones must have come through.
    """
    searcher = rescoring_searcher(tmp_path, tiny.SMALL, tiny.BIGRAM)
    posteriors = [tiny.random_posteriors(5, seed) for seed in range(8)]
    rescored = search.with_lm_scale(searcher.rescored(searcher.lattices(posteriors, 1.5)), lm_scale)
    scores = rescored.get_tot_scores(use_double_scores=True, log_semiring=False).tolist()
    scaled = {gram: (prob * lm_scale, back_off * lm_scale) for gram, (prob, back_off) in tiny.BIGRAM.items()}
    for log_probs, score, words in zip(posteriors, scores, words_of(rescored), strict=True):
        best, expected = tiny.enumerate_best(log_probs, scaled, 1.5)
        assert score == pytest.approx(best, abs=1e-3)
        assert words == expected


def test_blank_penalty(tmp_path: Path) -> None:
    searcher = search.Searcher(hlg_of(tmp_path, tiny.UNIGRAM), beams=EXACT)
    rows = np.log(np.array([[0.9, 0.02, 0.02, 0.06]]))
    assert words_of(searcher.lattices([rows], 1.0)) == [[]]
    assert words_of(searcher.lattices([rows], 1.0, blank_penalty=5.0)) == [["HERE"]]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    utterances = {f"u{i}": tiny.random_posteriors(2 + i % 3, i) for i in range(9)}
    return tiny.write_archive(tmp_path / "x.post", {**utterances, "silent": np.zeros((0, 4))})


@pytest.mark.parametrize("lattice_scale", [None, 0.7])
def test_archive_at_several_scales(tmp_path: Path, archive: Path, lattice_scale: float | None) -> None:
    searcher = search.Searcher(hlg_of(tmp_path, tiny.BIGRAM), beams=EXACT)
    posteriors = Archive(archive)
    settings = [decode.Setting(0.5), decode.Setting(2.0), decode.Setting(2.0, blank_penalty=1.5)]
    decoder = decode.Decoder(posteriors, searcher, settings, lattice_scale)
    calls: list[tuple[int, int]] = []
    results = decode.decode(decoder, 1, lambda done, total: calls.append((done, total)))
    for setting, result in results.items():
        assert (result.empty, result.retried) == (1, 0)  # the one without a frame
        assert result.words["silent"] == []
        for utt in posteriors.utts[:-1]:
            rows = posteriors[utt].astype(float)
            rows[:, 0] -= setting.blank_penalty
            _, words = tiny.enumerate_best(rows, tiny.BIGRAM, setting.acoustic_scale)
            assert [tiny.WORDS[i] for i in result.words[utt]] == words
        assert result.seconds > 0 and result.peak_rss_bytes > 0
    assert calls[-1][0] == calls[-1][1]


def test_no_path_is_retried_and_counted(tmp_path: Path) -> None:
    """A graph that ends only after two tokens: one frame is too short whatever the beam."""
    two = k2.Fsa.from_str("0 1 1 -0.1\n1 2 2 -0.1\n2 3 -1 0\n3")
    two.aux_labels = k2.RaggedTensor([[1], [], [-1]])
    path = tiny.write_archive(tmp_path / "x", {"short": np.zeros((1, 4)), "long": np.zeros((2, 4))})
    decoder = decode.Decoder(Archive(path), search.Searcher(two), [decode.Setting(1.0)])
    result = decode.decode(decoder)[decode.Setting(1.0)]
    assert result.words == {"short": [], "long": [1]}
    assert (result.empty, result.retried) == (1, 1)


def test_batches_hold_everything_once_and_fit(tmp_path: Path) -> None:
    utterances = {f"u{i}": np.zeros((1 + 7 * i % 11, 4)) for i in range(20)}
    archive = Archive(tiny.write_archive(tmp_path / "x", utterances))
    batches = search.batches(archive, archive.utts, 15)
    assert sorted(utt for batch in batches for utt in batch) == sorted(utterances)
    assert all(len(batch) * max(map(archive.frames, batch)) <= 15 for batch in batches)
    lengths = [archive.frames(utt) for batch in batches for utt in batch]
    assert lengths == sorted(lengths, reverse=True)


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    storage.save(tmp_path / "graph" / "HLG.npz", hlg_of(tmp_path / "lang", tiny.UNIGRAM), "HLG")
    words = lexicon.read_lang(tmp_path / "lang").words
    grammar, _ = graph.grammar_fst(tiny.write_arpa(tmp_path / "large", tiny.BIGRAM), words, 3)
    storage.save(tmp_path / "graph" / "G.npz", graph.rescoring_grammar(grammar, words["#0"]), "G")
    return tmp_path


def command(graphs: Path, *options: str) -> list[str]:
    return ["search", "--archive", str(graphs / "x.post"), "--graph", str(graphs / "graph" / "HLG.npz"),
            "--words", str(graphs / "lang" / "words.txt"), "--out", str(graphs / "hyp"), *options]


def test_command(graphs: Path, archive: Path) -> None:
    assert main(command(graphs, "--search-beam", "1000", "--output-beam", "1000")) == 0
    lines = (graphs / "hyp").read_text().splitlines()
    posteriors = Archive(archive)
    assert [line.split()[0] for line in lines] == sorted(posteriors.utts)
    assert lines[1].split()[1:] == tiny.enumerate_best(posteriors["u0"].astype(float), tiny.UNIGRAM)[1]
    report = json.loads((graphs / "hyp.json").read_text())
    assert report["frames"] == sum(2 + i % 3 for i in range(9))
    assert (report["utts"], report["empty"]) == (10, 1)
    assert report["rtf"] == pytest.approx(report["cpu_seconds"] / (0.04 * report["frames"]))


def test_command_in_several_processes(graphs: Path, archive: Path) -> None:
    assert main(command(graphs)) == 0
    alone = (graphs / "hyp").read_text()
    (graphs / "hyp").unlink()
    subprocess.run([sys.executable, "-m", "asrcompress.cli", *command(graphs, "--nj", "2")], check=True, timeout=60)
    assert (graphs / "hyp").read_text() == alone
    with pytest.raises(RuntimeError, match="has not searched yet"):
        main(command(graphs, "--nj", "2"))


def test_command_sweeps(graphs: Path, archive: Path) -> None:
    rescore = ("--rescore", str(graphs / "graph" / "G.npz"))
    assert main(command(graphs, "--acoustic-scale", "0.5,1.0", "--lm-scale", "0.8,1", *rescore)) == 0
    assert sorted(path.name for path in (graphs / "hyp").glob("*.txt")) == [
        "ac0.5-lm0.8.txt", "ac0.5-lm1.txt", "ac1-lm0.8.txt", "ac1-lm1.txt"]
    assert main(command(graphs, "--blank-penalty=-1,0.5", "--out", str(graphs / "blanks"))) == 0
    assert sorted(path.name for path in (graphs / "blanks").glob("*.txt")) == ["ac1-bp-1.txt", "ac1-bp0.5.txt"]
    (graphs / "one").mkdir()
    assert main(command(graphs, "--blank-penalty=0.5", "--out", str(graphs / "one"))) == 0
    assert [path.name for path in (graphs / "one").glob("*.txt")] == ["ac1-bp0.5.txt"]
    assert json.loads((graphs / "blanks" / "ac1-bp0.5.txt.json").read_text())["blank_penalty"] == 0.5


@pytest.mark.parametrize(("options", "message"), [
    (["--acoustic-scale", "0.5,x"], "is not a list of positive numbers"),
    (["--blank-penalty", "0,x"], "is not a list of numbers"),
    (["--lm-scale", "2"], "give that too"),
    (["--lattice-scale", "0"], "is not a list of positive numbers"),
    (["--lattice-scale", "1", "--rescore", "graph/G.npz"], "goes without --rescore"),
    (["--nj", "0"], "at least one process"),
    (["--search-beam", "-1"], "give numbers above 0"),
    (["--output-beam", "nan"], "give numbers above 0"),
    (["--max-active", "0"], "give 1 or more"),
    (["--min-active", "20", "--max-active", "20"], "fewer than the most (--max-active), which is 20"),
    (["--words", "short.txt"], "short.txt has 2 words, and the graph "),
])
def test_command_with_bad_options(graphs: Path, archive: Path, options: list[str], message: str,
                                  capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(graphs)
    Path("short.txt").write_text("<eps> 0\nAB 1\n")
    monkeypatch.setattr(decode, "decode", lambda *_: pytest.fail("it searched before it refused"))
    assert main(command(graphs, *options)) == 1
    assert message in capsys.readouterr().err
    assert not (graphs / "hyp").exists()


@pytest.mark.parametrize("most", ["1", "20"])  # the 30 that are kept unless told are more
def test_command_with_few_active_states(graphs: Path, archive: Path, most: str) -> None:
    assert main(command(graphs, "--max-active", most)) == 0
    assert len((graphs / "hyp").read_text().splitlines()) == len(Archive(archive))


def test_command_of_an_archive_without_utterances(graphs: Path) -> None:
    tiny.write_archive(graphs / "x.post", {})
    assert main(command(graphs)) == 0
    assert (graphs / "hyp").read_text() == "" and json.loads((graphs / "hyp.json").read_text())["rtf"] == 0


def test_command_with_an_archive_cut_in_half(graphs: Path, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive.write_bytes(archive.read_bytes()[:archive.stat().st_size // 2])
    assert main(command(graphs)) == 1
    assert "x.post is" in capsys.readouterr().err
    assert not (graphs / "hyp").exists()


def test_graph_of_another_lang(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the graph reads token 3"):
        from asrcompress.decoding.archive import ArchiveWriter

        with ArchiveWriter(tmp_path / "x", 3) as writer:
            writer.add("u", np.zeros((1, 3)))
        searcher = search.Searcher(hlg_of(tmp_path, tiny.UNIGRAM))
        decode.Decoder(Archive(tmp_path / "x"), searcher, [decode.Setting(1.0)])


def test_a_process_that_dies_is_a_sentence(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        archive: Archive

        def __call__(self, utts: list[str]) -> None:
            faulthandler.disable()  # pytest would print the stack
            os.abort()

    dying = Dying()
    dying.archive = Archive(archive)
    monkeypatch.setattr(decode.Decoder, "used", False)
    monkeypatch.setattr(decode, "_decoder", None)
    with pytest.raises(UserError, match=f"searched {archive} ended early, .* fewer with --nj"), \
            decode._mapped(dying, [["a"], ["b"]], 2) as results:
        list(results)
