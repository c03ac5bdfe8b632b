"""Weights of layers: greedy with them against every choice of ranks, their globs, and their files."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from asrcompress import cli, models
from asrcompress.compression import Plan, budget, compress, save_model
from asrcompress.compression.budget import weights
from asrcompress.config import compose
from asrcompress.errors import UserError
from tests.compression.budget.test_parameters import request, squared_error


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("size", [0.35, 0.5, 0.65])
def test_greedy_is_the_best_of_all_rank_choices(size: float, relative: bool) -> None:
    """With equal shapes every step costs the same, so greedy is optimal."""
    asked, factors = request([(10, 9)] * 3, size), (0.3, 1.0, 7.0)
    given = {"relative": relative, "weights": {"0": 0.3, "*2": 7}}
    chosen = tuple(9 if one is None else one.options.rank
                   for one in budget.allocate("global_greedy", asked, given).values())
    matrices = [weight.numpy() for weight in asked.weights.values()]

    def error(ranks: tuple[int, ...]) -> float:
        return sum(w * squared_error([m], (r,), relative) for w, m, r in zip(factors, matrices, ranks, strict=True))

    highest = (10 * 9 - 1) // 19
    allowed = [ranks for ranks in itertools.product(range(1, highest + 1), repeat=3) if sum(ranks) * 19 <= size * 270]
    assert error(chosen) <= min(map(error, allowed)) * (1 + 1e-6)
    assert chosen[0] < chosen[2]


def test_equal_weights_change_nothing_and_the_last_glob_counts() -> None:
    asked = request([(20, 20), (12, 30)], 0.5)
    assert budget.allocate("global_greedy", asked, {"weights": {"*": 4}}) == budget.allocate("global_greedy", asked)
    assert weights.of_layers({"*.a": 2, "x.*": 3}, ["x.a", "y.a", "z"]) == {"x.a": 3, "y.a": 2, "z": 1}


def test_what_hydra_gives_reaches_the_layers(tmp_path: Path) -> None:
    weights.write(tmp_path / "w.yaml", {"blocks.*.up": 0.01, "blocks.1.*.up": 50})
    given = compose("compress", ["structure=svd", "structure.rank_multiple=1", "size=0.6",
                                 f"budget.weights={tmp_path / 'w.yaml'}"])
    model = models.build({"model": "conformer", "features": 80, "vocab": 9, "dim": 16, "heads": 2, "hidden": 32,
                          "blocks": 2, "front": 12, "kernel": 3})
    rank = {row.path: row.after / row.before for row in compress(model, Plan.from_config(given))[1]}
    assert rank["blocks.1.ff1.up"] == 1 > rank["blocks.0.ff1.up"]
    assert compose("compress", ["budget.weights={blocks.*.up:2}"])["budget"]["weights"] == {"blocks.*.up": 2}
    shipped = compose("compress", ["budget=conformer", "budget.weights={*.query:3}"])["budget"]["weights"]
    assert (shipped["*.query"], shipped["*.pointwise_out"]) == (3, 2.3)


@pytest.mark.parametrize("name", ["w.yaml", "w.json"])
def test_files_come_back_in_order_and_are_whole_or_not_there(name: str, tmp_path: Path) -> None:
    given = {"b.*": 0.25, "a.*.c": 12.0, "*": 3.0}
    weights.write(tmp_path / name, given)
    assert list(weights.read(tmp_path / name).items()) == list(given.items())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(UserError, match="the weight of b is nan"):
        weights.write(tmp_path / "bad.json", {"a": 1.0, "b": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("given", "sentence"), [
    ({"*": 0}, r"the weight of \* is 0"), ({"*": -1}, "above 0"), ({"*": float("inf")}, "is inf"),
    ({"*": "much"}, "a number"), ({"moon.*": 2}, r"for moon.\*, and no layer is called so; the layers are 0, 1"),
    ("none.yaml", "the file of weights none.yaml does not exist"), (3, "weights is 3; it is a mapping of names to")])
def test_mistakes_are_sentences(given: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        budget.allocate("global_greedy", request([(20, 20)] * 2, 0.5), {"weights": given})


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "a: b: c", "{}", "a: true", "a: -2", "\0"])
def test_a_file_that_is_none_is_one_sentence(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.yaml").write_text(content)
    model = models.build({"model": "tdnn", "vocab": 5, "stack": [{"dim": 8, "taps": 3}]})
    save_model(tmp_path / "m.safetensors", model)
    out = tmp_path / "out.safetensors"
    assert cli.main(["compress", "--model", str(tmp_path / "m.safetensors"), "--out", str(out), "structure=svd",
                     "size=0.9", f"budget.weights={tmp_path / 'w.yaml'}"]) == 1
    error = capsys.readouterr().err
    assert "w.yaml" in error and error.count("\n") == 1 and not out.exists()


def test_weights_need_an_order_among_parameters() -> None:
    with pytest.raises(UserError, match="hashed has no order among its parameters, so weights of layers cannot count"):
        budget.allocate("global_greedy", request([(20, 20)], 0.5, family="hashed"), {"weights": {"*": 2}})


def test_ranks_follow_the_error_that_is_left() -> None:
    """Two equal layers: where one counts four times, its next singular value is at most twice the other's."""
    asked = request([(30, 30)] * 2, 0.5, scale=1)
    asked.weights["1"].copy_(asked.weights["0"])
    found = budget.allocate("global_greedy", asked, {"weights": {"1": 4}})
    s = np.linalg.svd(asked.weights["0"].numpy(), compute_uv=False) ** 2
    low, high = (found[path].options.rank for path in "01")
    assert low < high and s[low - 1] >= 4 * s[high] and 4 * s[high - 1] >= s[low]
