import csv
import io
from typing import Any

import numpy as np

from asrcompress.report import rows, table


def row(name: str, structure: str, when: str, size: int, wer: float, **more: Any) -> rows.Row:
    return rows.check({"name": name, "structure": structure, "when": when, "packed_bytes": size, "wer": wer,
                       "test_set": "dev", "search": "tgsmall", "ci95": [wer - 1, wer + 1], "parameters": size // 4,
                       "macs_per_second": 24_600_000, "ratio": 40_000_000 / size, **more}, "here")


ROWS = [
    row("svd-0.25", "svd", "after", 10_000_000, 31.26, p_better_than_dense=0.034),
    row("dense", "dense", "none", 40_000_000, 30.0),
    row("dense", "dense", "none", 40_000_000, 25.0, search="tglarge"),
    row("dense", "dense", "none", 40_000_000, 0.0, search="greedy") | {"wer": None, "ter": 16.0, "ci95": None},
    row("small", "dense", "scratch", 10_000_000, 33.0),
    row("dense", "dense", "none", 40_000_000, 50.0, test_set="other"),
]


def test_one_line_per_level_with_the_dense_model_first() -> None:
    lines = table.pivot(ROWS, "dev")
    assert [line.facts["name"] for line in lines] == ["dense", "svd-0.25", "small"]
    assert [line.is_dense() for line in lines] == [True, False, False]
    assert [line.is_control() for line in lines] == [False, False, True]
    assert table.rates(lines) == [("ter", "greedy"), ("wer", "tgsmall"), ("wer", "tglarge")]
    assert table.test_sets(ROWS) == ["dev", "other"]


def test_cells() -> None:
    head, *body = table.table(table.pivot(ROWS, "dev"))
    assert head == ["name", "structure", "when", "parameters (M)", "MB", "ratio", "MMAC/s", "TER % greedy",
                    "WER % tgsmall", "WER % tglarge"]
    assert body[0] == ["dense", "dense", "none", "10.00", "40.00", "1.00", "25", "16.0", "30.0 [29.0, 31.0]",
                       "25.0 [24.0, 26.0]"]
    assert body[1][4:] == ["10.00", "4.00", "25", "", "31.3 [30.3, 32.3] p=0.03", ""]


def test_columns_appear_where_lines_differ() -> None:
    int8 = row("svd-0.25-int8", "svd", "after", 3_000_000, 31.0, quantization="int8")
    assert "quantization" in table.table(table.pivot([*ROWS, int8], "dev"))[0]
    seeds = [row("dense", "dense", "none", 40_000_000, 30.0 + seed, seed=seed) for seed in (0, 1)]
    assert [line[3] for line in table.table(table.pivot(seeds, "dev"))] == ["seed", "0", "1"]


def test_mean_and_spread_over_seeds() -> None:
    def made(name: str, wers: list[float], **more: Any) -> list[rows.Row]:
        return [row(name if seed == 0 else f"{name}-seed{seed}", "svd", "after", 1_000_000 * (seed + 1), wer, seed=seed,
                    **more) for seed, wer in enumerate(wers)]

    once = made("svd-0.25", [33.0])
    large = row("svd-0.5", "svd", "after", 1_000_000, 26.0, seed=0, search="tglarge")
    lines = table.pivot([*made("svd-0.5", [30.0, 31.0, 34.0]), *once, large], "dev")
    assert table.by_seed(lines) == [["name", "seeds", "MB", "WER % tgsmall", "WER % tglarge"],
                                    ["svd-0.5", "0, 1, 2", "2.00", f"31.7 ± {np.std([30, 31, 34], ddof=1):.1f}", ""]]
    assert table.by_seed(table.pivot(ROWS, "dev")) == []
    twins = [*made("svd-0.5", [30.0, 31.0]), *made("svd-0.5", [20.0, 21.0], runtime="other")]  # one name, two models
    assert [line[-1] for line in table.by_seed(table.pivot(twins, "dev"))[1:]] == ["30.5 ± 0.7", "20.5 ± 0.7"]


def test_markdown_parses_back() -> None:
    lines = table.pivot(ROWS, "dev")
    written = [line.strip("|").split("|") for line in table.markdown(lines).splitlines()]
    cells = [[cell.strip() for cell in line] for line in written]
    assert [cells[0], *cells[2:]] == table.table(lines)
    assert all(set(cell) <= set(":-") for cell in cells[1])


def test_csv_parses_back_in_full_precision() -> None:
    read = list(csv.DictReader(io.StringIO(table.to_csv(ROWS))))
    assert [(line["test_set"], line["name"]) for line in read] == [
        ("dev", "dense"), ("dev", "svd-0.25"), ("dev", "small"), ("other", "dense")]
    svd = read[1]
    assert (svd["tgsmall_wer"], svd["tgsmall_wer_low"], svd["tgsmall_wer_p"]) == ("31.26", "30.26", "0.034")
    more = row("int8", "dense", "after", 10_000_000, 30.0) | {"del": 7, "blank_penalty": 0.5}
    (line,) = csv.DictReader(io.StringIO(table.to_csv([more])))
    assert (line["tgsmall_wer_deleted"], line["tgsmall_wer_blank_penalty"]) == ("7", "0.5")
    assert (svd["tglarge_wer"], svd["packed_bytes"], read[0]["greedy_ter"]) == ("", "10000000", "16.0")


def test_structures_by_size() -> None:
    more = [row("svd-0.25", "svd", "after", 10_000_000, 31.26, p_better_than_dense=0.049) | {"size": 0.25},
            row("svd-0.5", "svd", "after", 20_000_000, 30.1, p_better_than_dense=0.05) | {"size": 0.5},
            row("cp-0.25", "cp", "after", 10_000_000, 30.9, p_better_than_dense=0.01) | {"size": 0.25},
            row("svd-0.25-during", "svd", "during", 10_000_000, 32.0, p_better_than_dense=0.0) | {"size": 0.25},
            row("int8", "dense", "after", 10_000_000, 30.0, quantization="int8") | {"size": 0.25},
            row("small", "dense", "scratch", 10_500_000, 33.0, p_better_than_dense=0.0) | {"size": 1},
            row("smaller", "dense", "scratch", 10_000_000, 34.0, p_better_than_dense=0.0) | {"size": 1},
            row("tiny", "dense", "scratch", 1_000_000, 60.0, p_better_than_dense=0.0) | {"size": 1}]
    lines = table.pivot([row("dense", "dense", "none", 40_000_000, 30.0) | {"size": 1}, *more], "dev")
    assert table.by_size(lines, ("wer", "tgsmall")) == [
        ["structure", "0.5", "0.25"], ["cp", "", "30.9"], ["svd", "30.1*", "31.3"], ["svd, during", "", "32.0"],
        ["dense, scratch", "", "33.0 / 34.0"]]
    assert table.by_size(lines, ("wer", "tglarge")) == table.by_size(lines[:2], ("wer", "tgsmall")) == []
    near = row("svd-0.22", "svd", "after", 8_800_000, 35.0, p_better_than_dense=0.0) | {"size": 0.22}
    assert table.by_size(table.pivot([*more, near], "dev"), ("wer", "tgsmall"))[2] == ["svd", "30.1*", "31.3", "35.0"]
