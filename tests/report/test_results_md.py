import json
from pathlib import Path

import pytest

from asrcompress.cli import main
from asrcompress.report import results_md, rows

ROW = {"name": "dense", "structure": "dense", "when": "none", "packed_bytes": 40_000_000, "wer": 30.0, "words": 5093,
       "ci95": [29.0, 31.0], "test_set": "dev-clean-2", "search": "tgsmall", "train_set": "train-clean-5",
       "command": "./run.sh --stage 4", "cpu": "Some CPU", "threads": 1, "commit": "abc123", "date": "2026-01-02"}
NOTE = "dev-clean-2 is a stand-in for mini LibriSpeech"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    large = {**ROW, "search": "tglarge", "wer": 25.0, "date": "2026-01-03"}
    made = [ROW, large, {**ROW, "test_set": "other", "words": 7}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return tmp_path / "results.jsonl"


def test_command_writes_the_three_files_and_prints_the_table(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = results.parent / "out"
    assert main(["report", "--rows", str(results), "--out", str(out), "--note", NOTE, "--title", "Mini"]) == 0
    assert {path.name for path in out.iterdir()} == {results_md.PAGE, results_md.SHEET, results_md.PICTURE}
    page = (out / "RESULTS.md").read_text()
    for part in ("# Mini\n", f"**{NOTE}**", "## dev-clean-2\n\n5,093 words; models trained on train-clean-5.",
                 "| dense | dense | none |", "30.0 [29.0, 31.0]", "(wer_vs_bytes.png)",
                 "```sh\n./run.sh --stage 4\n```", "* CPU: Some CPU", "* threads: 1",
                 "* code: abc123", "* date: 2026-01-02 to 2026-01-03"):
        assert part in page
    printed = capsys.readouterr().out
    assert "WER % tglarge" in printed and "30.0 [29.0, 31.0]" in printed and NOTE in printed


def test_the_same_rows_make_the_same_page(results: Path) -> None:
    for name in ("one", "two"):
        main(["report", "--rows", str(results), "--out", str(results.parent / name)])
    for file in (results_md.PAGE, results_md.SHEET, results_md.PICTURE):
        assert (results.parent / "one" / file).read_bytes() == (results.parent / "two" / file).read_bytes()


def test_errors_leave_nothing_behind(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = results.parent / "out"
    assert main(["report", "--rows", str(results), "--out", str(out), "--search", "huge"]) == 1
    assert "no row of a packed file has an error rate for the search 'huge'" in capsys.readouterr().err
    assert not out.exists()
    assert main(["report", "--rows", str(results.parent / "none"), "--out", str(out)]) == 1
    assert "does not exist" in capsys.readouterr().err
    results.write_text("")
    assert main(["report", "--rows", str(results), "--out", str(out)]) == 1
    assert "no result rows" in capsys.readouterr().err


def test_many_lines_are_shown_front_first_and_by_family(tmp_path: Path) -> None:
    more = [{**ROW, "name": f"svd-{size}", "structure": "svd", "when": "after", "packed_bytes": size * 1_000_000,
             "wer": 40.0 - size, "ci95": None} for size in range(1, 13)]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in [ROW, *more]))
    assert main(["report", "--rows", str(results), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "RESULTS.md").read_text()
    headings = [line for line in page.splitlines() if line.startswith("###")]
    assert headings == ["### The front", "### Dense", "### Low rank"]
    front = page[page.index("### The front"):page.index("### Dense")]
    assert front.count("| svd-") == 12 and "| dense |" not in front  # 28 % at 12 MB beats 30 % at 40 MB
    assert page.count("| svd-12 |") == 2


def test_several_seeds_have_a_mean() -> None:
    made = [rows.check({"name": name, "structure": "svd", "when": "after", "packed_bytes": 10**6, "wer": 30.0 + seed,
                        "test_set": "dev", "search": "tgsmall", "seed": seed}, "here")
            for seed, name in enumerate(("svd-0.5", "svd-0.5-seed1"))]
    assert "| svd-0.5 | 0, 1 | 1.00 | 30.5 ± 0.7 |" in results_md.page(made)
    assert "standard deviation" not in results_md.page(made[:1])


@pytest.mark.parametrize(("more", "files"), [({}, set()), ({"precision": "int8", "device_bytes": 10**6},
                                                           {results_md.DEVICES})])
def test_rows_without_a_packed_file_have_all_but_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                             more: dict[str, object], files: set[str]) -> None:
    (tmp_path / "results.jsonl").write_text(json.dumps({**ROW, "packed_bytes": None, **more}))
    out = tmp_path / "out"
    assert main(["report", "--rows", str(tmp_path / "results.jsonl"), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {results_md.PAGE, results_md.SHEET, *files}
    assert results_md.PICTURE not in (out / results_md.PAGE).read_text()
    printed = capsys.readouterr().out
    assert printed.count("no row of a packed file has both the error rate and packed_bytes") == 1 and "30.0" in printed
