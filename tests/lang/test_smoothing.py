"""Smoothed ARPA models against sums over the vocabulary, a search over the weights, and what the smoothing is for."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize

from asrcompress.cli import main
from asrcompress.errors import UserError
from asrcompress.lang import ngram, smoothing

ARPA = r"""\data\
ngram 1=6
ngram 2=6
ngram 3=2

\1-grams:
-99 <s> -1.5
-0.7 </s>
-0.6 CAT -2
-0.8 DOG -2
-0.5 EMU -1
-99 FOX

\2-grams:
-0.01 <s> CAT -2
-0.4 CAT EMU
-0.4 CAT </s>
-99 EMU DOG -0.5
-0.02 DOG </s>
-0.04 EMU CAT

\3-grams:
-0.01 <s> CAT EMU
-0.02 EMU DOG </s>

\end\
"""
TEXT = ["CAT DOG EMU", "CAT EMU DOG", "DOG", "EMU EMU CAT", "CAT </s", "DOG CAT EMU", "FOX"]
WORDS = ["</s>", "CAT", "DOG", "EMU", "FOX"]


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "cut.arpa"
    path.write_text(ARPA)
    return path


def probability(path: Path, words: tuple[str, ...]) -> float:
    """A back-off model read by the definition of the format."""
    listed: dict[tuple[str, ...], tuple[float, float]] = {}
    for order, fields in ngram.ngrams(path):
        weight = float(fields[-1]) if len(fields) > order + 1 else 0.0
        listed[tuple(fields[1:order + 1])] = float(fields[0]), weight
    if words in listed:
        return float(10 ** listed[words][0])
    return float(10 ** listed.get(words[:-1], (0, 0.0))[1]) * probability(path, words[1:])


def test_every_context_sums_to_one(arpa: Path, tmp_path: Path) -> None:
    smoothing.smooth(arpa, tmp_path / "out.arpa", TEXT)
    for history in [(), ("<s>",), ("CAT",), ("EMU",), ("<s>", "CAT"), ("EMU", "DOG"), ("DOG", "DOG")]:
        total = sum(probability(tmp_path / "out.arpa", (*history, word)) for word in WORDS)
        assert total == pytest.approx(1, abs=1e-5), history


def test_keeps_the_ngrams_and_their_order(arpa: Path, tmp_path: Path) -> None:
    smoothing.smooth(arpa, tmp_path / "out.arpa", TEXT)
    before, after = ([(n, f[1:n + 1]) for n, f in ngram.ngrams(path)] for path in (arpa, tmp_path / "out.arpa"))
    assert before == after


def test_perplexity_is_that_of_the_file(arpa: Path, tmp_path: Path) -> None:
    found = smoothing.smooth(arpa, tmp_path / "out.arpa", TEXT)
    logs = []
    for sentence in TEXT:
        words = ("<s>", *sentence.split(), "</s>")
        logs += [math.log(probability(tmp_path / "out.arpa", words[max(0, i - 2):i + 1]))
                 for i in range(1, len(words)) if words[i] in WORDS]
    assert found.words == len(logs)
    assert found.after == pytest.approx(math.exp(-np.mean(logs)), rel=1e-4)


def test_weights_are_the_most_likely() -> None:
    """Expectation maximisation against scipy on random events of three orders, one bin each."""
    rng = np.random.default_rng(0)
    sums = rng.uniform(0.3, 1, (400, 3))
    listed = sums * rng.uniform(0, 0.5, sums.shape) * (rng.random(sums.shape) < 0.5)
    bins = np.broadcast_to(smoothing.BINS * np.arange(3), sums.shape)

    def loss(a: np.ndarray) -> float:
        mixed = np.full(len(sums), 0.01)
        for n in range(3):
            mixed = a[n] * listed[:, n] + (1 - a[n] * sums[:, n]) * mixed
        return float(-np.log(mixed).sum() - 0.5 * (np.log(a) + np.log(1 - a)).sum())  # and the made-up events

    best = scipy.optimize.minimize(loss, np.full(3, 0.5), bounds=[(1e-3, 1 - 1e-3)] * 3)
    a, _ = smoothing._fit(bins, listed, sums, 100)
    np.testing.assert_allclose(a[::smoothing.BINS][:3], best.x, atol=5e-3)


def test_mends_a_model_with_cut_offs(tmp_path: Path) -> None:
    """A grammar's sentences; the model of those seen twice is smoothed on some and is better on others."""
    rng = np.random.default_rng(1)
    nouns = [f"N{i}" for i in range(40)]
    frequent = 1 / np.arange(1, 41)
    draw = lambda: rng.choice(nouns, p=frequent / frequent.sum())  # noqa: E731
    sentences = [f"THE {draw()} SEES A {draw()}" for _ in range(900)]
    ngram.train(sentences[:500], tmp_path / "cut.arpa", 3, [0, 2, 2])
    ngram.train(sentences[:500], tmp_path / "whole.arpa", 3)
    orders = smoothing.read(tmp_path / "cut.arpa")
    events = [event for sentence in sentences[700:] for event in smoothing._events(sentence, 3)]
    held_out = [(history, word) for history, word in events if word in orders[0]]
    smoothing.smooth(tmp_path / "cut.arpa", tmp_path / "smooth.arpa", sentences[500:700])
    smooth = smoothing.perplexity(smoothing.read(tmp_path / "smooth.arpa"), held_out)
    assert smooth < smoothing.perplexity(orders, held_out)
    assert smooth < 1.05 * smoothing.perplexity(smoothing.read(tmp_path / "whole.arpa"), held_out)


def test_long_texts_are_sampled(arpa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothing, "MAX_SENTENCES", 3)
    assert smoothing.smooth(arpa, tmp_path / "out.arpa", ["CAT"] * 9).words == 2 * 3


def test_a_model_without_sentence_ends(tmp_path: Path) -> None:
    (tmp_path / "no.arpa").write_text(ARPA.replace("</s>", "END"))
    with pytest.raises(UserError, match="has no 1-gram </s>"):
        smoothing.smooth(tmp_path / "no.arpa", tmp_path / "out.arpa", TEXT)


@pytest.mark.parametrize("text", [[], ["cat"]])
def test_a_text_of_other_words(arpa: Path, tmp_path: Path, text: list[str]) -> None:
    with pytest.raises(UserError, match="no word of the text"):
        smoothing.smooth(arpa, tmp_path / "out.arpa", text)
    assert not (tmp_path / "out.arpa").exists()


def test_command(arpa: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text"
    text.write_text("".join(f"utt{i} {line}\n" for i, line in enumerate(TEXT)))
    out = tmp_path / "out.arpa"
    common = ["--smooth", str(text), "--utterance-ids", "--out", str(out)]
    assert main(["ngram", "--arpa", str(arpa), *common, "--if-cut"]) == 0
    assert "perplexity" in capsys.readouterr().out and out.exists()
    whole = tmp_path / "whole.arpa"
    assert main(["ngram", "--arpa", str(out), "--smooth", str(text), "--if-cut", "--out", str(whole)]) == 0
    assert "left as it is" in capsys.readouterr().out and not whole.exists()
    assert main(["ngram", "--text", str(text), *common]) != 0
    assert "--smooth goes with --arpa" in capsys.readouterr().err


def test_weights_stay_inside(arpa: Path) -> None:
    orders = smoothing.read(arpa)
    contexts = [smoothing._contexts(order) for order in orders]
    text = [event for line in TEXT for event in smoothing._events(line, 3) if event[1] in orders[0]]
    a, shares = smoothing._fit(*smoothing._arrays(text, orders, contexts), len(WORDS))
    assert np.all((a > 0) & (a < 1)) and all(0 <= share <= 1 for share in shares)
    assert a[smoothing.BINS - 1] == pytest.approx(0.5, abs=1e-6)  # an empty bin
