import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from asrcompress.cli import main
from asrcompress.compression import compress, packed
from asrcompress.decoding import score as scoring
from asrcompress.files import write_json
from asrcompress.report import html, rows

REFS = {"a": "THE CAT SAT", "b": "ON A MAT", "c": "ALL DAY"}
SAID = {"dense": {**REFS, "b": "ON THE MAT"}, "int8": {**REFS, "a": "THE CAT", "b": "ON A A MAT"}, "</script>": REFS}


def row(name: str, size: int, wer: float, **more: Any) -> rows.Row:
    told = {"name": name, "structure": "dense", "quantization": "float32", "coder": "raw", "when": "after",
            "test_set": "dev", "search": "greedy", "runtime": "torch", "packed_bytes": size, "wer": wer,
            "ci95": [wer - 1, wer + 1], "command": "./run.sh --note 'a < b'"}
    return rows.check({**told, **more}, "test")


def made() -> list[rows.Row]:
    return [row("dense", 4_000_000, 12.5, when="none", rtf=0.01),
            row("int8", 1_000_000, 25.0, quantization="int8", coder="range", p_better_than_dense=0.2, rtf=0.02),
            row("</script>", 2_000_000, 5.0, structure="svd", rtf=0.04),
            row("int8", 1_000_000, 20.0, quantization="int8", coder="range", search="tgsmall")]


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """exp/ of a recipe: a decoding of each model, and the packed file of one."""
    for one in made()[:3]:
        out = tmp_path / "exp" / one["name"].replace("/", "") / "decode" / "dev" / "greedy"
        scoring.write(out, scoring.score(REFS, SAID[one["name"]]))
        write_json(out / html.RESULT, one)
    def build(config: Any) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(64, 64))

    small, _ = compress(build({}), quantization="int8", coder="range")
    packed.save(tmp_path / "exp" / "int8" / html.PACKED, small, build=build)
    return tmp_path / "exp"


@pytest.fixture
def written(exp: Path) -> Path:
    results = exp.parent / "results.jsonl"
    rows.put(results, *made())
    page = exp.parent / "results.html"
    assert main(["report", "--rows", str(results), "--html", str(page), "--exp", str(exp), "--title", "A & B",
                 "--note", "of a test"]) == 0
    return page


def held(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_holds_rows_texts_and_bytes(written: Path, exp: Path) -> None:
    data = held(written)
    dense, int8, svd, _ = data["rows"]
    assert [one["family"] for one in data["rows"]] == ["dense", "quantized", "low rank", "quantized"]
    assert data["references"] == {"dev wer": REFS}
    assert data["texts"][dense["key"]] == [None, ["ON THE MAT", 1], None]
    assert data["texts"][int8["key"]] == [["THE CAT", 1], ["ON A A MAT", 1], None]
    lines = data["files"][data["file_of"][int8["key"]]]
    assert sum(line[-1] for line in lines) == (exp / "int8" / html.PACKED).stat().st_size
    assert svd["key"] not in data["file_of"] and len(data["files"]) == 1
    assert "<title>A &amp; B</title>" in written.read_text()


def test_a_search_takes_costs_from_another_of_the_same_model() -> None:
    found = html.described([row("x", 5, 1.0, search="tgsmall"), row("x", 5, 2.0, rtf=0.5), row("y", 5, 2.0)])
    assert [one.get("rtf") for one in found] == [0.5, 0.5, None]


@pytest.mark.parametrize("words, said", [
    (["--rows", "none.jsonl", "--html", "page.html"], "does not exist"),
    (["--rows", "results.jsonl", "--html", "page.html", "--exp", "nowhere"], "the folder of the models"),
    (["--rows", "results.jsonl", "--exp", "exp"], "give --html FILE too"),
    (["--rows", "empty.jsonl", "--html", "page.html"], "no result rows"),
])
def test_what_cannot_be_shown_is_said(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    rows.put("results.jsonl", *made())
    Path("empty.jsonl").touch()
    assert main(["report", *words]) == 1
    assert said in capsys.readouterr().err and not Path("page.html").exists()


def test_decodings_of_other_utterances_are_not_compared(exp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scoring.write(exp / "int8" / "decode" / "dev" / "greedy", scoring.score({"d": "X"}, {"d": "X"}))
    rows.put(exp.parent / "results.jsonl", *made())
    assert main(["report", "--rows", str(exp.parent / "results.jsonl"), "--html", str(exp.parent / "page.html"),
                 "--exp", str(exp)]) == 1
    assert "was scored on other utterances of dev" in capsys.readouterr().err


@pytest.fixture
def page(written: Path) -> Iterator[Any]:
    """The page in headless Chromium, which may ask for nothing but the file and may raise no error."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine (apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1300, "height": 1400})
        asked: list[str] = []
        errors: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(written.as_uri())
        opened.wait_for_selector("#plot .point")
        yield opened
        assert asked == [written.as_uri()] and errors == []
        browser.close()


def names(page: Any) -> list[str]:
    return page.locator("#table tbody td:first-child").all_inner_texts()


def front(page: Any) -> set[str]:
    return set(page.locator("#table tr.front td:first-child").all_inner_texts())


def test_in_a_browser(page: Any) -> None:
    page.select_option("[name=search]", "greedy")
    assert names(page) == ["</script>", "dense", "int8"]  # by error rate
    page.click("#table th:text-is('MB')")
    assert names(page) == ["int8", "</script>", "dense"]
    page.click("#table th:text-is('MB')")
    assert names(page) == ["dense", "</script>", "int8"]
    page.click("#table th:text-is('p')")  # rows without a figure come last
    assert names(page)[0] == "int8"
    assert front(page) == {"int8", "</script>"}  # dense is larger than the one that beats it
    page.select_option("[name=cost]", "rtf")
    assert front(page) == {"dense", "</script>"}
    page.select_option("[name=quantization]", "int8")
    assert names(page) == ["int8"] and "1 of 3 models" in page.inner_text("#count")
    page.select_option("[name=quantization]", "")
    page.fill("[name=find]", "DEN")
    assert names(page) == ["dense"]
    page.fill("[name=find]", "")
    page.select_option("[name=search]", "tgsmall")
    assert names(page) == ["int8"]


def test_models_are_clicked_and_compared(page: Any) -> None:
    page.select_option("[name=search]", "greedy")
    points = page.locator("#plot .points path.point")
    assert points.count() == 3
    box = points.nth(0).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#plot .hovertext")
    told = page.text_content("#plot .hoverlayer")
    assert "'a < b'" in told and "[11.50, 13.50]" in told
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#table tr.first")
    assert page.inner_text("#table tr.first td:first-child") == "dense"
    assert "are not in this page" in page.inner_text("#details")  # its packed file is not there
    page.click("#table td:text-is('int8') >> nth=0")
    told = page.inner_text("#details")
    assert "2 utterances differ: dense makes fewer errors in 1, int8 in 0" in told
    chance = re.search(r"dense makes fewer errors than int8 with p (\d+\.\d+)", told)
    assert chance and abs(float(chance[1]) - scoring.p_better(REFS, SAID["dense"], SAID["int8"])) < 0.03
    assert "a: THE CAT SAT" in told and "c: ALL DAY" not in told
    assert page.locator("#details .missing").all_inner_texts() == ["SAT"]
    assert sorted(page.locator("#details .wrong").all_inner_texts()) == ["A", "THE"]
    page.click("#details summary")
    total = page.locator("#details table.bytes tr").last.inner_text()
    assert total.split()[0] == "file" and int(total.split()[-1].replace(",", "")) > 1000
    page.click("#table tr.second")  # a picked model is put back
    assert page.locator("#details h2").count() == 1
