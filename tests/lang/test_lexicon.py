from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang.lexicon import Encoder

TEXT = "READ  R IY1 D\nREAD\tR EH1 D\nA AH0\nA EY1\nREAD R IY1 D\n\nRED R EH1 D\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "lexicon.txt").write_text(TEXT)
    return tmp_path / "lexicon.txt"


def test_distinct_pronunciations_in_file_order(path: Path) -> None:
    assert lexicons.read(path) == {
        "READ": [["R", "IY1", "D"], ["R", "EH1", "D"]],
        "A": [["AH0"], ["EY1"]],
        "RED": [["R", "EH1", "D"]],
    }


def test_stress_goes_and_with_it_what_differs_in_stress_only(path: Path) -> None:
    path.write_text(TEXT + "A AH1\n")
    assert lexicons.read(path, strip_stress=True)["A"] == [["AH"], ["EY"]]


def test_cases_and_encodings_are_one(path: Path) -> None:
    path.write_bytes(b"caf\xe9 K\nCAF\xc9 F\n" + "CAF\xc9 K\nred R\nRed(2) D\n".encode())
    assert lexicons.read(path, upper=True, otherwise="latin-1") == {"CAF\xc9": [["K"], ["F"]], "RED": [["R"], ["D"]]}
    with pytest.raises(UserError, match="line 1: the byte 0xe9 is not UTF-8"):
        lexicons.read(path, upper=True)


def test_written_sorted_and_read_again(path: Path, tmp_path: Path) -> None:
    lexicon = lexicons.read(path)
    lexicons.write(tmp_path / "out.txt", lexicon)
    assert (tmp_path / "out.txt").read_text().splitlines()[0] == "A AH0"
    assert lexicons.read(tmp_path / "out.txt") == lexicon
    assert lexicons.tokens_of(lexicon) == ["AH0", "D", "EH1", "EY1", "IY1", "R"]


def test_bad_lexicons_are_sentences(path: Path, tmp_path: Path) -> None:
    path.write_text(TEXT + "WORD\n")
    with pytest.raises(UserError, match="line 8: 'WORD' has no pronunciation"):
        lexicons.read(path)
    path.write_text("\n")
    with pytest.raises(UserError, match="holds no words"):
        lexicons.read(path)
    with pytest.raises(UserError, match="the lexicon .* does not exist"):
        lexicons.read(tmp_path / "other.txt")


def test_encoder_takes_the_first_pronunciation(path: Path) -> None:
    lexicon = lexicons.read(path, strip_stress=True)
    encode = Encoder(lexicon, {token: i for i, token in enumerate(["<blk>", *lexicons.tokens_of(lexicon)])})
    assert encode("A RED  READ") == [1, 6, 3, 2, 6, 5, 2] and encode("") == []
    assert encode.unknown("A BLUE RED GREEN") == ["BLUE", "GREEN"]
    assert lexicons.words_of(["A RED", "", "RED READ"]) == ["A", "READ", "RED"]


CMUDICT = """;;; # CMUdict  --  Major Version: 0.07
AALBORG  AO1 L B AO0 R G # place, danish
A  AH0
A(1)  EY1
A(2) AH0
#HASH-MARK  HH AE1 SH M AA2 R K
# a comment
'BOUT  B AW1 T\t#abbrev
"""


def test_both_forms_of_cmudict(path: Path) -> None:
    path.write_text(CMUDICT)
    assert lexicons.read(path) == {"AALBORG": [["AO1", "L", "B", "AO0", "R", "G"]], "A": [["AH0"], ["EY1"]],
                                   "'BOUT": [["B", "AW1", "T"]]}


@pytest.mark.parametrize(("line", "sentence"), [
    ("WORD # nothing yet", "'WORD' has no pronunciation"),
    ("WORD W ER0 D #1", "'#1' is a reserved symbol and no token"),
    ("WORD <eps>", "'<eps>' is a reserved symbol"),
    ("WORD <blk> W", "'<blk>' is a reserved symbol"),
    ("WORD 1.0 W ER0 D", "'1.0' is a probability and no token"),
    ("WORD 0.25 W ER0 D", "'0.25' is a probability"),
    ("WORD 5e-06 W ER0 D", "'5e-06' is a probability"),
])
def test_lines_that_are_not_understood_are_named(path: Path, line: str, sentence: str) -> None:
    path.write_text(f"A AH0\n{line}\n")
    with pytest.raises(UserError, match=f"lexicon.txt, line 2: {sentence}"):
        lexicons.read(path)


def test_silence_and_noise_are_no_words(path: Path) -> None:
    path.write_text("!SIL SIL\n<UNK> SPN\n<s> SIL\n!EXCLAMATION-POINT P OY2 N T\nA AH0\n")
    assert list(lexicons.spoken(lexicons.read(path))) == ["!EXCLAMATION-POINT", "A"]
