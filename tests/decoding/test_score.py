import json
import random
from pathlib import Path

import pytest

from asrcompress.cli import main
from asrcompress.decoding import score as scoring
from asrcompress.errors import UserError
from asrcompress.lang import text

REFS = {"a": "THE CAT SAT", "b": "ON THE MAT", "c": "OH"}
HYPS = {"a": "THE HAT SAT DOWN", "b": "ON MAT"}


def levenshtein(ref: list[str], hyp: list[str]) -> int:
    """The textbook table, which shares nothing with kaldialign."""
    above = list(range(len(hyp) + 1))
    for i, word in enumerate(ref, 1):
        row = [i]
        for j, other in enumerate(hyp, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
        above = row
    return above[-1]


def spoken(seed: int, error: float, utterances: int = 200) -> tuple[dict[str, str], dict[str, str]]:
    """Random references of a few words, and hypotheses in which about `error` of the words went wrong."""
    chance = random.Random(seed)
    refs = {f"u{i:03}": [str(chance.randrange(9)) for _ in range(chance.randint(1, 12))] for i in range(utterances)}

    def heard(word: str) -> list[str]:
        return [word] if chance.random() > error else chance.choice([[], [word, "0"], ["x"]])

    hyps = {key: [out for word in words for out in heard(word)] for key, words in refs.items()}
    return {key: " ".join(words) for key, words in refs.items()}, {key: " ".join(words) for key, words in hyps.items()}


def test_counts_of_a_hand_made_alignment() -> None:
    result = scoring.score(REFS, HYPS)
    assert (result.words, result.sub, result.ins, result.dels) == (7, 1, 1, 2)
    assert result.missing == ["c"]  # OH is one of the two deletions
    assert result.row()["wer"] == pytest.approx(100 * 4 / 7, abs=1e-3)
    assert result.row()["ter"] is None


def test_alignment_file_by_hand() -> None:
    assert scoring.alignment(scoring.score(REFS, HYPS).pairs) == (
        "a ref THE CAT SAT ***\na hyp THE HAT SAT DOWN\na op  C   S   C   I\na #csid 2 1 1 0\n"
        "b ref ON THE MAT\nb hyp ON *** MAT\nb op  C  D   C\nb #csid 2 0 0 1\n"
        "c ref OH\nc hyp ***\nc op  D\nc #csid 0 0 0 1\n")


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_levenshtein_distances(seed: int) -> None:
    refs, hyps = spoken(seed, 0.3)
    result = scoring.score(refs, hyps)
    expected = sum(levenshtein(refs[key].split(), hyps[key].split()) for key in refs)
    assert result.sub + result.ins + result.dels == expected
    assert result.wer == pytest.approx(100 * expected / sum(len(words.split()) for words in refs.values()))


def test_interval_holds_the_rate_and_comes_out_the_same_again() -> None:
    refs, hyps = spoken(1, 0.25)
    result, again = scoring.score(refs, hyps), scoring.score(dict(reversed(refs.items())), hyps)
    assert result.ci95 and result.ci95[0] < result.wer < result.ci95[1]
    assert result.ci95 == again.ci95
    fewer = dict(list(refs.items())[:50])
    narrow, wide = result.ci95, scoring.score(fewer, {key: hyps[key] for key in fewer}).ci95
    assert wide and wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])  # about twice, for a quarter of the speech


def test_interval_is_that_of_a_plain_bootstrap() -> None:
    refs, hyps = spoken(2, 0.25, 100)
    counts = [(levenshtein(refs[k].split(), hyps[k].split()), len(refs[k].split())) for k in refs]
    chance, rates = random.Random(0), []
    for _ in range(2000):
        errors, words = zip(*chance.choices(counts, k=len(counts)), strict=True)
        rates.append(100 * sum(errors) / sum(words))
    rates.sort()
    assert scoring.score(refs, hyps).ci95 == pytest.approx((rates[50], rates[1950]), abs=0.5)


def test_p_better_than_dense_has_a_direction() -> None:
    refs, worse = spoken(3, 0.4)
    better = {key: refs[key] if i % 2 else worse[key] for i, key in enumerate(refs)}
    assert scoring.score(refs, better, worse).p_better_than_dense == pytest.approx(1, abs=1e-3)
    assert scoring.score(refs, worse, better).p_better_than_dense == pytest.approx(0, abs=1e-3)
    assert scoring.score(refs, worse, worse).p_better_than_dense == 0.5
    assert scoring.score(refs, worse).p_better_than_dense is None


def test_token_error_rate_is_never_called_wer() -> None:
    row = scoring.score({"a": "HH AH L OW"}, {"a": "HH AH L"}, unit="token").row()
    assert (row["wer"], row["ter"], row["del"]) == (None, 25.0, 1)


def test_no_interval_where_a_resample_may_be_wordless() -> None:
    assert scoring.score({"a": "YES", "b": ""}, {"a": "YES", "b": "UM"}).ci95 is None


def test_errors_are_sentences() -> None:
    with pytest.raises(UserError, match="1 of 1 hypotheses have no reference .* z"):
        scoring.score(REFS, {"z": "OH"})
    with pytest.raises(UserError, match="no reference"):
        scoring.score(REFS, HYPS, dense={"z": "OH"})
    with pytest.raises(UserError, match="no word"):
        scoring.score({"a": ""}, {"a": "OH"})
    with pytest.raises(UserError, match=r"the dense model's text lacks 1 of 2 hypotheses \(the first is b\)"):
        scoring.score(REFS, HYPS, dense={"a": "OH"})


def test_sweep_takes_the_lowest_rate(tmp_path: Path) -> None:
    swept = {"ac0.5": "THE CAT", "ac0.7": "THE CAT SAT", "ac1": "A CAT SAT", "ac0.7-lm0.9-bp0.5": "THE CAT SAT"}
    for name, hyp in swept.items():
        text.write(tmp_path / f"{name}.txt", {"a": hyp})
    (tmp_path / "ac0.7.txt.json").write_text("{}")
    found = scoring.sweep({"a": REFS["a"]}, tmp_path)
    assert found[0] == {"acoustic_scale": 0.7, "lm_scale": 0.9, "blank_penalty": 0.5, "wer": 0.0,
                        "hyp": "ac0.7-lm0.9-bp0.5.txt"}
    assert (found[1]["lm_scale"], found[1]["blank_penalty"]) == (1.0, 0.0)
    assert [row["wer"] for row in found] == [0, 0, 33.333, 33.333]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no ac<scale>.txt"):
        scoring.sweep(REFS, tmp_path / "empty")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    text.write(tmp_path / "ref", REFS)
    text.write(tmp_path / "hyp.txt", HYPS)
    text.write(tmp_path / "dense.txt", REFS)
    (tmp_path / "hyp.txt.json").write_text('{"acoustic_scale": 0.7, "lm_scale": 1.0, "rtf": 0.02}')
    (tmp_path / "small.packed").write_bytes(bytes(100))
    (tmp_path / "dense.packed").write_bytes(bytes(400))
    (tmp_path / "info.json").write_text('{"parameters": 25, "rss_before_load_bytes": 1, "dense_bytes": 1}')
    return tmp_path


def command(files: Path, *more: str) -> int:
    return main(["score", "--ref", str(files / "ref"), "--hyp", str(files / "hyp.txt"), *more])


def test_command_writes_score_alignment_and_row(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--out", str(files / "out"), "--rows", str(files / "results.jsonl"),
               "--dense-hyp", str(files / "dense.txt"), "--packed", str(files / "small.packed"),
               "--dense-packed", str(files / "dense.packed"), "--model-info", str(files / "info.json"),
               "--row", "name=svd-0.25", "--row", "test_set=dev",
               "--row", "search=tgsmall", "--row", "size=0.25", "--row", "seed="]
    assert command(files, *options) == 0 and command(files, *options) == 0
    output = capsys.readouterr()
    assert "%WER 57.14 [ 4 / 7, 1 ins, 2 del, 1 sub ]" in output.out and "p(better than dense) 0.0" in output.out
    assert "1 utterances of" in output.err and "the first is c" in output.err
    assert json.loads((files / "out/score.json").read_text())["missing"] == ["c"]
    assert (files / "out/align.txt").read_text().startswith("a ref THE CAT SAT ***\n")
    (row,) = [json.loads(line) for line in (files / "results.jsonl").read_text().splitlines()]
    assert (row["packed_bytes"], row["dense_bytes"], row["ratio"], row["parameters"]) == (100, 400, 4.0, 25)
    assert (row["size"], row["seed"], row["runtime"], row["acoustic_scale"]) == (0.25, None, "torch", 0.7)
    assert (row["words"], row["sub"], row["ins"], row["del"], row["search_rtf"]) == (7, 1, 1, 2, 0.02)


def test_command_refuses_before_it_writes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["--rows", str(files / "results.jsonl"), "--out", str(files / "out")]
    assert command(files, *rows, "--row", "name=x") == 1
    assert "has no test_set, search" in capsys.readouterr().err
    assert command(files, *rows, "--row", "sise=1") == 1
    assert "did you mean 'size'?" in capsys.readouterr().err
    assert command(files, *rows, "--packed", str(files / "none.packed")) == 1
    assert "does not exist" in capsys.readouterr().err
    (files / "info.json").write_text("{")
    assert command(files, *rows, "--model-info", str(files / "info.json")) == 1
    assert "info.json is not a JSON object" in capsys.readouterr().err
    assert not (files / "results.jsonl").exists() and not (files / "out").exists()


def test_command_sweep(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text.write(files / "sweep/ac0.6.txt", HYPS)
    text.write(files / "sweep/ac0.8.txt", REFS)
    assert main(["score", "--ref", str(files / "ref"), "--sweep", str(files / "sweep")]) == 0
    assert json.loads((files / "sweep/best.json").read_text())["acoustic_scale"] == 0.8
    assert "57.14" in capsys.readouterr().out


def test_an_utterance_with_two_hypotheses_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ref").write_text("u1 A B\nu2 C\n")
    (tmp_path / "hyp").write_text("u1 A\nu2 C\nu1 A B\n")
    assert main(["score", "--ref", str(tmp_path / "ref"), "--hyp", str(tmp_path / "hyp")]) == 1
    assert "hyp, line 3: utterance u1 is listed a second time (first on line 1)" in capsys.readouterr().err


def test_an_alignment_is_read_as_it_was_written(tmp_path: Path) -> None:
    refs = {"a": "ONE TWO THREE", "b": "FOUR", "c": "FIVE SIX"}
    hyps = {"a": "ONE TOO THREE AND", "b": "", "c": "FIVE SIX"}
    scoring.write(tmp_path, scoring.score(refs, hyps))
    assert scoring.read_alignment(tmp_path / "align.txt") == {
        "a": (refs["a"], hyps["a"], 2), "b": (refs["b"], hyps["b"], 1), "c": (refs["c"], hyps["c"], 0)}


def test_a_dense_text_without_an_utterance_is_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text.write(files / "dense.txt", {"b": REFS["b"]})
    assert command(files, "--dense-hyp", str(files / "dense.txt")) == 1
    assert "dense.txt lacks 1 of 2 hypotheses (the first is a); decode the same" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["scales.json", "scales", "there"])
def test_the_best_scales_go_into_a_folder_or_a_json_file(out: str, files: Path) -> None:
    text.write(files / "sweep/ac0.6.txt", HYPS)
    (files / "there").mkdir()
    sweep = ["score", "--ref", str(files / "ref"), "--sweep", str(files / "sweep"), "--out", str(files / out)]
    assert main(sweep) == 0
    best = files / out if out.endswith(".json") else files / out / "best.json"
    assert json.loads(best.read_text())["acoustic_scale"] == 0.6


@pytest.mark.parametrize(("what", "options", "sentence"), [
    ("sweep", ["--rows", "r.jsonl", "--row", "name=x"], "--sweep chooses scales and makes no row"),
    ("sweep", ["--dense-hyp", "dense.txt"], "--sweep chooses scales and makes no row"),
    ("sweep", ["--ref", "wordless"], "the references hold no word"),
    ("hyp", ["--row", "name=x"], "give --rows FILE too"),
    ("hyp", ["--packed", "small.packed"], "give --rows FILE too")])
def test_what_would_be_ignored_is_refused(what: str, options: list[str], sentence: str, files: Path,
                                          monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(files)
    text.write(files / "wordless", dict.fromkeys(REFS, ""))
    text.write(files / "sweep/ac1.txt", HYPS)
    given = {"sweep": ["--sweep", "sweep"], "hyp": ["--hyp", "hyp.txt"]}[what]
    assert main(["score", "--ref", "ref", *given, *options]) == 1
    assert sentence in capsys.readouterr().err and not (files / "sweep/best.json").exists()
