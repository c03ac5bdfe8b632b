from pathlib import Path

import pytest

from asrcompress.cli import main
from asrcompress.decoding.greedy import bpe_words
from asrcompress.errors import UserError
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang.prepare import bpe_lang, phone_lang
from asrcompress.lang.tokens import read_symbols

LEXICON = "!SIL SIL\n<UNK> SPN\nTHE DH AH0\nCAT K AE1 T\nTHE DH IY1\n"
SENTENCES = ["THE CAT SAT ON THE MAT", "THE MAT SAT ON A CAT", "A CAT AND A HAT", "THE HAT SAT", "NO CAT HAS THAT HAT"]


def check(out: Path, words: set[str]) -> dict[str, int]:
    """What holds of every lang folder; returns its tokens."""
    tokens, table = read_symbols(out / "tokens.txt"), read_symbols(out / "words.txt")
    lexicon = lexicons.read(out / "lexicon.txt")
    assert set(lexicon) == words
    assert list(tokens)[0] == "<blk>" and set(tokens) - {"<blk>"} == set(lexicons.tokens_of(lexicon))
    assert list(table) == ["<eps>", *sorted(words), "#0", "<s>", "</s>"]
    return tokens


def test_phones(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(LEXICON)
    lexicon = phone_lang(tmp_path / "lang", tmp_path / "in.txt")
    assert lexicon["THE"] == [["DH", "AH"], ["DH", "IY"]]
    assert list(check(tmp_path / "lang", {"THE", "CAT"})) == ["<blk>", "AE", "AH", "DH", "IY", "K", "T"]
    phone_lang(tmp_path / "stress", tmp_path / "in.txt", strip_stress=False)
    assert "AE1" in check(tmp_path / "stress", {"THE", "CAT"})


def test_bpe_spells_every_word_it_can(tmp_path: Path) -> None:
    words = sorted({word for text in SENTENCES for word in text.split()} | {"CATS", "ÜBER"})
    lexicon = bpe_lang(tmp_path / "lang", words, SENTENCES, 20)
    assert set(words) - set(lexicon) == {"ÜBER"}  # it has a letter that no sentence holds
    tokens = check(tmp_path / "lang", set(lexicon))
    assert len(tokens) <= 20 + 1
    for word, (pieces,) in lexicon.items():
        assert bpe_words(pieces) == word and not set(pieces) & {"<unk>", "<s>", "</s>"}
    encode = lexicons.Encoder(lexicon, tokens)
    names = {number: token for token, number in tokens.items()}
    for sentence in SENTENCES:
        assert bpe_words([names[number] for number in encode(sentence)]) == sentence


def test_bpe_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    for size, sentences in ((10_000, SENTENCES), (3, SENTENCES), (20, [])):
        with pytest.raises(UserError, match=f"cannot make {size} BPE tokens"):
            bpe_lang(tmp_path / "lang", ["CAT"], sentences, size)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("unit", ["phone", "bpe"])
def test_command_counts_words_without_pronunciation(
    tmp_path: Path, unit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text(LEXICON)
    (tmp_path / "text").write_text("".join(f"u{i} {sentence}\n" for i, sentence in enumerate(SENTENCES)))
    arguments = [
        "lang",
        "--unit",
        unit,
        "--lexicon",
        str(tmp_path / "in.txt"),
        "--text",
        str(tmp_path / "text"),
        "--vocab-size",
        "20",
        "--out",
        str(tmp_path / "lang"),
    ]
    assert main(arguments) == 0
    missing, spoken = {"phone": 9, "bpe": 0}[unit], len({word for text in SENTENCES for word in text.split()})
    assert f"{missing} of {spoken} training words have no pronunciation" in capsys.readouterr().out


def test_words_that_a_lexicon_cannot_hold_stay_outside(tmp_path: Path) -> None:
    words = ["CAT", "#CAT", ";;;CAT", "CAT(2)", "<CAT>", "<s>"]
    out = tmp_path / "lang"
    assert set(bpe_lang(out, words, [*SENTENCES, *words], 30)) == {"CAT"} == set(lexicons.read(out / "lexicon.txt"))


def test_transcripts_in_another_case_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text(LEXICON.lower())
    (tmp_path / "text").write_text("u1 THE CAT\n")
    assert main(["lang", "--lexicon", str(tmp_path / "in.txt"), "--text", str(tmp_path / "text"),
                 "--out", str(tmp_path / "lang")]) == 1
    assert "none of the 2 training words, such as CAT; write both in the same case" in capsys.readouterr().err


ARPA = """\\data\\
ngram 1=6

\\1-grams:
-1.0\t</s>
-99\t<s>
-2.5\tSEA
-1.5\tA
-3\tTHREE
-0.5\tUNHEARD

\\end\\
"""


def small(tmp_path: Path, *words: str, arpa: str = ARPA) -> int:
    (tmp_path / "lexicon").write_text("A AH\nA EY\nSEA S IY\nSEE S IY\nTHREE TH R IY\n")
    (tmp_path / "text").write_text("u1 A SEA\n")
    (tmp_path / "lm.arpa").write_text(arpa)
    made = main(["lang", "--lexicon", str(tmp_path / "lexicon"), "--text", str(tmp_path / "text"), "--out",
                 str(tmp_path / "lang")])
    return made or main(["lang", "--of", str(tmp_path / "lang"), *words, "--out", str(tmp_path / "small")])


def test_the_most_frequent_words_with_all_tokens(tmp_path: Path) -> None:
    assert small(tmp_path, "--arpa", str(tmp_path / "lm.arpa"), "--words", "2") == 0
    assert lexicons.read(tmp_path / "small" / "lexicon.txt") == {"A": [["AH"], ["EY"]], "SEA": [["S", "IY"]]}
    assert list(read_symbols(tmp_path / "small" / "words.txt")) == ["<eps>", "A", "SEA", "#0", "<s>", "</s>"]
    assert (tmp_path / "small" / "tokens.txt").read_bytes() == (tmp_path / "lang" / "tokens.txt").read_bytes()


@pytest.mark.parametrize(("words", "arpa", "said"), [
    (["--words", "2"], ARPA, "--of needs --arpa"),
    (["--arpa", "{}/lm.arpa", "--words", "0"], ARPA, "--words 0: give 1 or more"),
    (["--arpa", "{}/lm.arpa"], ARPA.replace("A\n", "a\n").replace("THREE", "three"), "has none of the 4 words"),
    (["--arpa", "{}/lm.arpa", "--text", "{}/text"], ARPA, "neither --lexicon nor --text")])
def test_a_small_lang_that_cannot_be_made_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                        words: list[str], arpa: str, said: str) -> None:
    assert small(tmp_path, *(word.format(tmp_path) for word in words), arpa=arpa) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "small").exists()
