"""The language models of the Wall Street Journal's discs, on files like theirs with invented content."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from asrcompress.data.corpora import _wsj_bd as bd
from asrcompress.data.corpora import _wsj_lm as lm
from asrcompress.errors import UserError
from asrcompress.lang import backoff, pruning
from asrcompress.lang.ngram import ngrams
from recipes.wsj import discs

PREAMBLE = "# a model of invented sentences\n\\data\\\n# the line above is a part of the story\n\n"
MODEL = """\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-99 <s> -0.3
-0.5 </s>
-0.4 FISH -0.2
-0.9 <UNK> -0.1

\\2-grams:
-0.1 <s> FISH
-0.2 FISH </s>
-1.9 FISH FISH

\\end\\
"""
BASE = "wsj1/doc/lng_modl/base_lm"


def finder(root: Path) -> Callable[[str], Path | None]:
    return lambda inner: root / inner if (root / inner).exists() else None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """bcb20onp.z and tcb05cnp.z packed, the latter after a preamble with a line of its own, tcb20onp.z plain."""
    folder = tmp_path / "discs" / BASE
    folder.mkdir(parents=True)
    (folder / "bcb20onp.z").write_bytes(discs.lzw(MODEL.encode()))
    (folder / "tcb05cnp.z").write_bytes(discs.lzw((PREAMBLE + MODEL).encode()))
    (folder / "tcb20onp.z").write_text(f"# plain\n{MODEL}")
    return tmp_path / "discs"


def entries(path: Path) -> list[tuple[int, list[str]]]:
    return list(ngrams(path))


def test_the_models_come_out_as_plain_arpa_with_tabs(root: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.arpa").write_text(MODEL)
    lm.distributed(finder(root), tmp_path / "lm", ["bg", "tg", "tg_5k"], lambda _: None)
    for name in ("bg", "tg", "tg_5k"):
        assert entries(tmp_path / "lm" / f"{name}.arpa.gz") == entries(tmp_path / "plain.arpa")
    text = "".join(lm.lines(tmp_path / "lm" / "tg.arpa.gz"))
    assert text.startswith("\\data\\\n") and "-0.1\t<s> FISH\n" in text and "-0.4\tFISH\t-0.2\n" in text


def test_pruned_ones_are_made_of_the_whole_ones_and_nothing_twice(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    lm.distributed(finder(root), tmp_path / "lm", ["tgpr"], said.append)
    wanted = pruning.prune(backoff.read(tmp_path / "lm" / "tg.arpa.gz"), 1e-7)
    backoff.save(wanted, tmp_path / "wanted.arpa")
    assert entries(tmp_path / "lm" / "tgpr.arpa.gz") == entries(tmp_path / "wanted.arpa")
    assert len(entries(tmp_path / "lm" / "tgpr.arpa.gz")) == 6, "FISH FISH is less likely than its back-off says"
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "lm").iterdir()}
    lm.distributed(finder(root), tmp_path / "lm", ["tgpr", "tg"], said.append)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "lm").iterdir()} == times and len(said) == 2


def test_a_copy_on_the_discs_of_wsj0_will_do(root: Path, tmp_path: Path) -> None:
    (root / "wsj1").rename(root / "wsj0")
    lm.distributed(finder(root), tmp_path / "lm", ["bg"], lambda _: None)
    assert (tmp_path / "lm" / "bg.arpa.gz").exists()


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_was_cut_short_is_found(root: Path, tmp_path: Path, packed: bool, cut: float) -> None:
    path = root / BASE / "tcb20onp.z"
    whole = discs.lzw(MODEL.encode()) if packed else MODEL.encode()
    path.write_bytes(whole[:int(len(whole) * cut)])
    with pytest.raises(UserError, match=r"tcb20onp.z (ends before|holds no ARPA|cannot be unpacked)"):
        lm.distributed(finder(root), tmp_path / "lm", ["tg"])
    assert not list((tmp_path / "lm").glob("*"))


@pytest.mark.parametrize(("content", "said"), [
    ("nothing of the kind\n", "holds no ARPA language model"),
    (MODEL.replace("-1.9 FISH FISH\n", ""), "tcb20onp.z: .* where a 2-gram is expected"),
    (MODEL.replace("-0.2 FISH </s>", "one FISH </s>"), "tcb20onp.z: its language model, line .* 'one'"),
])
def test_a_file_that_is_no_model_is_a_sentence(root: Path, tmp_path: Path, content: str, said: str) -> None:
    (root / BASE / "tcb20onp.z").write_text(content)
    with pytest.raises(UserError, match=said):
        lm.distributed(finder(root), tmp_path / "lm", ["tgpr"])
    assert not list((tmp_path / "lm").glob("*"))


def test_what_cannot_be_opened_is_a_sentence(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / BASE / "bcb05onp.z").mkdir()
    with pytest.raises(UserError, match="bcb05onp.z cannot be unpacked .* has to be a file that can be read"):
        lm.distributed(finder(root), tmp_path / "lm", ["bg_5k"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="tcb20onp.z cannot be unpacked .* gzip has to be installed"):
        lm.distributed(finder(root), tmp_path / "lm", ["tg"])
    assert not list((tmp_path / "lm").glob("*"))


def test_a_missing_file_names_disc_and_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no wsj1/doc/lng_modl/base_lm/bcb05onp.z, which is on disc 13-32.1 .* --lms"):
        lm.distributed(lambda _: None, tmp_path, ["bg_5k"])


def text_files(root: Path, years: dict[str, str]) -> Callable[[str], list[Path]]:
    found = []
    for year, text in years.items():
        path = root / bd.FOLDER / year / "wall.z"
        path.parent.mkdir(parents=True)
        path.write_bytes(discs.lzw(text.encode()))
        found.append(path)
    return lambda inner: found if inner == bd.FOLDER else []


def test_sentences_end_where_kaldi_ends_them(tmp_path: Path) -> None:
    files = text_files(tmp_path, {"87": "<s id=1>\nMr. Fish swam. The U.S. sea\n.\n", "88": "it is 3. o'clock .\n"})
    found = list(bd.sentences(files, {"MR.", "U.S.", "FISH"}))
    assert found == ["MR. FISH SWAM", "THE U.S. SEA", "IT IS 3", "O'CLOCK"]
    with pytest.raises(UserError, match="disc 13-32.1 of WSJ1, or a language model with --bd-arpa"):
        list(bd.sentences(lambda _: [], ()))


def test_words_that_want_a_pronunciation() -> None:
    text = ["ACME ACME A1 A1 -- --", "KNOWN KNOWN ONCE O'ER", "O'ER"]
    assert bd.words(text, {"KNOWN"}) == ["ACME", "O'ER"]


def test_models_of_the_text(tmp_path: Path) -> None:
    said: list[str] = []
    text = ["THE FISH SWAM", "THE COD SWAM", "A FISH ATE THE COD", "THE FISH ATE"] * 10
    bd.train(text, {"THE", "A", "FISH", "SWAM", "ATE"}, tmp_path / "lm", bd.NAMES, 4, said.append)
    three, four = (backoff.read(tmp_path / "lm" / f"{name}.arpa.gz") for name in bd.NAMES)
    assert (len(three.orders), len(four.orders)) == (3, 4) and "<UNK>" in three.words and "COD" not in three.words
    assert "perplexity" in said[0] and sorted(path.name for path in (tmp_path / "lm").iterdir()) == [
        "bd_fg.arpa.gz", "bd_tgpr.arpa.gz"]
    with pytest.raises(UserError, match="40 sentences, of which 10,000 are held out"):
        bd.train(text, {"THE"}, tmp_path / "other", bd.NAMES)


def test_a_model_made_elsewhere(tmp_path: Path) -> None:
    text = ["THE FISH SWAM", "A FISH ATE THE FISH"] * 10
    bd.train(text, {"THE", "A", "FISH", "SWAM", "ATE"}, tmp_path / "own", ["bd_fg"], 0, lambda _: None)
    bd.given(tmp_path / "own" / "bd_fg.arpa.gz", tmp_path / "lm", bd.NAMES, lambda _: None)
    three, four = (backoff.read(tmp_path / "lm" / f"{name}.arpa.gz") for name in bd.NAMES)
    assert (len(three.orders), len(four.orders)) == (3, 4)
    assert [len(order.p) for order in three.orders] == [len(order.p) for order in four.orders[:3]]


def test_perplexity_by_hand(tmp_path: Path) -> None:
    """<s> FISH -0.1, FISH </s> -0.2; and, after a word that is not there, FISH alone -0.4."""
    (tmp_path / "m.arpa").write_text(MODEL)
    model = backoff.read(tmp_path / "m.arpa")
    assert backoff.perplexity(model, ["FISH"]) == (pytest.approx(10 ** 0.15), 2)
    value, events = backoff.perplexity(model, ["FISH", "WHALE FISH"])
    assert (math.log10(value), events) == (pytest.approx((0.1 + 0.2 + 0.4 + 0.2) / 4), 4)
