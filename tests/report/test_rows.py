import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.report import rows

ROW = {"name": "svd", "test_set": "dev", "search": "tgsmall", "size": 0.25, "wer": 30.0}


def test_rows_are_replaced_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    for change in ({}, {"search": "tglarge"}, {"size": 0.5}, {"wer": 29.0}):
        rows.put(path, {**ROW, **change})
    found = rows.read(path)
    assert [(row["search"], row["size"], row["wer"]) for row in found] == [
        ("tgsmall", 0.25, 29.0), ("tglarge", 0.25, 30.0), ("tgsmall", 0.5, 30.0)]
    assert list(found[0]) == list(rows.KEYS)
    assert [file.name for file in path.parent.iterdir()] == ["results.jsonl"]


def test_a_row_has_the_keys_of_the_design() -> None:
    designed = """
        model structure options quantization coder when size seed train_set test_set search runtime parameters numbers
        packed_bytes ratio device_bytes macs_per_second rtf peak_rss_bytes cpu threads wer words sub ins del ci95
        p_better_than_dense train_seconds command commit date name acoustic_scale"""
    assert set(designed.split()) <= set(rows.KEYS)


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: rows.put(path, {**ROW, "seed": seed}), range(24)))
    assert sorted(row["seed"] for row in rows.read(path)) == list(range(24))


def test_merge_lets_the_later_row_stand() -> None:
    assert rows.merge([ROW], [{**ROW, "wer": 1.0}]) == [{**ROW, "wer": 1.0}]


def test_parse() -> None:
    assert rows.parse(["name=1e3", "size=0.25", "seed=", "when=null", "command=run.sh --x=y", "ci95=[1, 2]"]) == {
        "name": "1e3", "size": 0.25, "seed": None, "when": None, "command": "run.sh --x=y", "ci95": [1, 2]}
    with pytest.raises(UserError, match="expected key=value"):
        rows.parse(["name"])
    with pytest.raises(UserError, match="size holds a number, 'big' is none"):
        rows.parse(["size=big"])


@pytest.mark.parametrize(("line", "said"), [
    ("[1]", "is a JSON object"), ("{", "is not JSON"), ('{"name": "x"}', "has no test_set, search; add them"),
    (json.dumps({**ROW, "wre": 1}), "did you mean 'wer'"),
    (json.dumps({**ROW, "wer": "30"}), "wer is \"30\", expected"),
    (json.dumps({**ROW, "packed_bytes": 1.5}), "packed_bytes is 1.5, expected int"),
    (json.dumps({**ROW, "seed": True}), "seed is true"), (json.dumps({**ROW, "ci95": [1]}), "expected two numbers"),
])
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + line + "\n")
    with pytest.raises(UserError) as caught:
        rows.read(path)
    assert f"{path}, line 2" in str(caught.value) and said in str(caught.value)
