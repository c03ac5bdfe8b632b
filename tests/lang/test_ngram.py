"""ARPA files against models written by hand, and kaldingram's against the sum of its probabilities."""

import gzip
from pathlib import Path

import pytest

from asrcompress.cli import main
from asrcompress.errors import UserError
from asrcompress.lang import ngram

ARPA = r"""\data\
ngram 1=5
ngram 2=3

\1-grams:
-99 <s> -0.3
-0.6 </s>
-0.5 CAT -0.2
-0.7 DOG -0.1
-0.9 EMU

\2-grams:
-0.1 <s> CAT
-0.2 CAT EMU
-0.3 CAT </s>

\end\
"""


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "bigram.arpa"
    path.write_text(ARPA)
    return path


def test_plain_and_gzip_give_the_same_ngrams(arpa: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"  # gzip is known by its first bytes, not by its name
    packed.write_bytes(gzip.compress(ARPA.encode()))
    found = list(ngram.ngrams(arpa))
    assert list(ngram.ngrams(packed)) == found
    assert len(found) == 8
    assert found[2] == (1, ["-0.5", "CAT", "-0.2"])
    assert found[-1] == (2, ["-0.3", "CAT", "</s>"])
    assert list(ngram.ngrams(arpa, max_order=1)) == found[:5]


def test_restrict_leaves_out_and_counts(arpa: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.arpa"
    assert ngram.restrict(arpa, out, {"CAT", "DOG"}) == ngram.Kept([4, 2], 2, 1, 0)
    kept = [fields[1:1 + order] for order, fields in ngram.ngrams(out)]
    assert kept == [["<s>"], ["</s>"], ["CAT"], ["DOG"], ["<s>", "CAT"], ["CAT", "</s>"]]
    assert "-0.5\tCAT\t-0.2\n" in out.read_text()


def test_words_without_probability_share_a_hundredth(arpa: Path, tmp_path: Path) -> None:
    arpa.write_text(ARPA.replace("-0.5 CAT -0.2", "-99 CAT -0.2").replace("-0.5\tCAT\t-0.2", "-99\tCAT\t-0.2"))
    assert ngram.restrict(arpa, tmp_path / "out", {"CAT", "DOG"}).raised == 1
    ((_, cat),) = [found for found in ngram.ngrams(tmp_path / "out") if found[1][1:2] == ["CAT"] and found[0] == 1]
    assert 10 ** float(cat[0]) == pytest.approx(0.01, rel=1e-5)
    assert cat[2] == "-0.2"
    start = next(found for _, found in ngram.ngrams(tmp_path / "out") if found[1] == "<s>")
    assert float(start[0]) == -99  # the start of a sentence is never predicted


def test_the_highest_order_has_no_back_off(arpa: Path, tmp_path: Path) -> None:
    ngram.restrict(arpa, tmp_path / "out", {"CAT", "DOG", "EMU"}, max_order=1)
    assert [len(fields) for _, fields in ngram.ngrams(tmp_path / "out")] == [2] * 5


def test_restrict_without_a_common_word(arpa: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="same case"):
        ngram.restrict(arpa, tmp_path / "out", {"cat"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("symbol", ["<s>", "</s>"])
def test_restrict_without_sentence_ends(arpa: Path, tmp_path: Path, symbol: str) -> None:
    arpa.write_text(ARPA.replace(symbol, "EMU"))
    with pytest.raises(UserError, match=f"has no 1-gram {symbol}"):
        ngram.restrict(arpa, tmp_path / "out", {"CAT", "DOG", "EMU"})


@pytest.mark.parametrize(("old", "new", "line"), [
    ("\\data\\", "CAT K AE T", 1),  # a lexicon
    ("ngram 2=3", "ngram 2=x", 3),
    ("-0.7 DOG -0.1\n", "", 11),  # fewer 1-grams than promised, so that the next section comes too early
    ("-0.2 CAT EMU", "-0.2 CAT", 14),
    ("-0.2 CAT EMU", "x CAT EMU", 14),
    ("-0.7 DOG -0.1", "-0.7 DOG x", 9),
    ("\\end\\\n", "", 15),
])
def test_not_an_arpa(arpa: Path, old: str, new: str, line: int) -> None:
    arpa.write_text(ARPA.replace(old, new))
    with pytest.raises(UserError, match=rf"bigram.arpa, line {line}:"):
        list(ngram.ngrams(arpa))


def test_truncated_gzip(tmp_path: Path) -> None:
    path = tmp_path / "cut.arpa.gz"
    packed = gzip.compress(ARPA.encode())
    path.write_bytes(packed[:len(packed) // 2])
    with pytest.raises(UserError, match="cut.arpa.gz, line"):
        list(ngram.ngrams(path))


def test_command_says_what_is_wrong(arpa: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arpa.write_text("HELLO WORLD\n")
    assert main(["ngram", "--arpa", str(arpa), "--out", str(tmp_path / "out")]) == 1
    assert "line 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [arpa]


def test_trained_model_is_a_distribution(tmp_path: Path) -> None:
    pytest.importorskip("kaldingram")
    text = tmp_path / "text"
    text.write_text("u1 A B A\nu2 A B C\nu3 B A\n")
    out = tmp_path / "lm" / "trigram.arpa"
    assert main(["ngram", "--text", str(text), "--utterance-ids", "--out", str(out)]) == 0
    grams = {tuple(fields[1:1 + order]): fields for order, fields in ngram.ngrams(out)}
    assert max(map(len, grams)) == 3
    assert not any("u1" in words for words in grams)

    def log10(words: tuple[str, ...]) -> float:
        if words in grams:
            return float(grams[words][0])
        back_off = grams.get(words[:-1], ["0"] * (len(words) + 1))
        return (float(back_off[len(words)]) if len(back_off) > len(words) else 0.0) + log10(words[1:])

    for history in [(), ("A",), ("<s>", "A"), ("A", "B")]:
        assert sum(10 ** log10((*history, word)) for word in ["A", "B", "C", "</s>"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("order", "cut"), [(1, []), (2, []), (2, [0, 9])])  # of the last, the 1-grams are left
def test_the_start_of_a_sentence_is_no_word(order: int, cut: list[int], tmp_path: Path) -> None:
    pytest.importorskip("kaldingram")
    ngram.train(["A B A", "A B C", "B A"], tmp_path / "arpa", order, cut)
    found = {fields[1]: float(fields[0]) for n, fields in ngram.ngrams(tmp_path / "arpa") if n == 1}
    assert found.pop("<s>") == -99
    assert found.keys() == {"A", "B", "C", "</s>"} and sum(10 ** p for p in found.values()) == pytest.approx(1)


@pytest.mark.parametrize(("options", "kept"), [([], 4), (["--order", "2"], 2)])
def test_an_arpa_keeps_all_its_orders_unless_told(options: list[str], kept: int, tmp_path: Path) -> None:
    pytest.importorskip("kaldingram")
    ngram.train(["A B C A", "A B C B"], tmp_path / "arpa", 4)
    assert main(["ngram", "--arpa", str(tmp_path / "arpa"), "--out", str(tmp_path / "out"), *options]) == 0
    assert max(order for order, _ in ngram.ngrams(tmp_path / "out")) == kept


def test_order_is_refused_where_it_would_be_ignored(arpa: Path, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--prune", "1e-7"], ["--smooth", str(arpa)]):
        assert main(["ngram", "--arpa", str(arpa), "--order", "1", "--out", str(tmp_path / "out"), *options]) == 1
        assert "keep every order" in capsys.readouterr().err


def test_cut_offs(tmp_path: Path) -> None:
    pytest.importorskip("kaldingram")
    sentences = ["A B C", "A B D", "A B C"]
    ngram.train(sentences, tmp_path / "all", 3)
    ngram.train(sentences, tmp_path / "cut", 3, [0, 0, 2])
    trigrams = [[tuple(fields[1:4]) for order, fields in ngram.ngrams(tmp_path / name) if order == 3]
                for name in ("all", "cut")]
    assert set(trigrams[0]) - set(trigrams[1]) == {("A", "B", "D"), ("B", "D", "</s>")}


def test_nothing_to_train_on(tmp_path: Path) -> None:
    pytest.importorskip("kaldingram")
    with pytest.raises(UserError, match="no sentence"):
        ngram.train(["", " "], tmp_path / "out")


@pytest.mark.parametrize(("old", "new", "line"), [
    ("-0.5 CAT -0.2", "nan CAT -0.2", 8), ("-0.5 CAT -0.2", "-0.5 CAT nan", 8), ("-0.5 CAT -0.2", "-0.5 CAT inf", 8),
    ("-0.2 CAT EMU", "0.3 CAT EMU", 14), ("-0.2 CAT EMU", "-1_0 CAT EMU", 14), ("-0.5 CAT -0.2", "-0.5 CAT 1e38", 8),
])
def test_numbers_that_are_none(arpa: Path, old: str, new: str, line: int) -> None:
    arpa.write_text(ARPA.replace(old, new))
    with pytest.raises(UserError, match=rf"bigram.arpa, line {line}: .* where a number of at most"):
        list(ngram.ngrams(arpa))


def test_minus_infinity_is_no_probability(arpa: Path, tmp_path: Path) -> None:
    arpa.write_text(ARPA.replace("-99 <s> -0.3", "-inf <s> -inf").replace("-0.2 CAT EMU", "-1e400 CAT EMU"))
    found = list(ngram.ngrams(arpa))
    assert found[0] == (1, ["-99", "<s>", "-99"]) and found[6] == (2, ["-99", "CAT", "EMU"])


def test_reserved_words_and_misplaced_ends_are_left_out(arpa: Path, tmp_path: Path) -> None:
    text = ARPA.replace("ngram 1=5", "ngram 1=8").replace("ngram 2=3", "ngram 2=6")
    text = text.replace("-0.9 EMU", "-0.9 EMU\n-0.5 <eps> -0.1\n-0.5 #0 -0.1\n-0.5 nan -0.1")
    arpa.write_text(text.replace("-0.3 CAT </s>", "-0.3 CAT </s>\n-0.1 CAT <s>\n-0.1 </s> CAT\n-0.1 nan CAT"))
    kept = ngram.restrict(arpa, tmp_path / "out", ["<eps>", "CAT", "EMU", "nan", "#0", "<s>", "</s>"])
    words = [fields[1:1 + order] for order, fields in ngram.ngrams(tmp_path / "out")]
    assert words == [["<s>"], ["</s>"], ["CAT"], ["EMU"], ["nan"],
                     ["<s>", "CAT"], ["CAT", "EMU"], ["CAT", "</s>"], ["nan", "CAT"]]
    assert kept.dropped_ngrams == 5  # DOG, <eps>, #0 and the two that go over the ends of a sentence
