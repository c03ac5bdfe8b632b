"""Greedy against exhaustive search, and what each budget promises."""

import itertools

import numpy as np
import pytest
import torch

from asrcompress.compression import budget, structures
from asrcompress.compression.budget.parameters import GlobalGreedyOptions, UniformOptions
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.low_rank.svd import Svd
from asrcompress.errors import UserError


def request(shapes: list[tuple[int, ...]], size: float | None, others: int = 0, scale: float = 1.0,
            family: str = "svd", **options: object) -> budget.Request:
    torch.manual_seed(0)
    weights = {str(i): torch.randn(*shape) * scale**i for i, shape in enumerate(shapes)}
    total = others + sum(weight.numel() for weight in weights.values())
    return budget.Request(structures.family(family), weights, structures.make_options(family, options), size, total)


def numbers(request: budget.Request, shares: budget.Allocation) -> int:
    paying = {path: share for path, share in shares.items() if share is not None}
    made = structures.fit_all(request.family.name, {path: request.weights[path] for path in paying}, paying)
    return sum(made[path].num_parameters() if path in made else weight.numel()
               for path, weight in request.weights.items())


def squared_error(weights: list[np.ndarray], ranks: tuple[int, ...], relative: bool) -> float:
    total = 0.0
    for weight, rank in zip(weights, ranks, strict=True):
        squares = np.linalg.svd(weight, compute_uv=False) ** 2
        total += squares[rank:].sum() / (squares.sum() if relative else 1)
    return total


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("size", [0.35, 0.5, 0.65])
def test_greedy_is_the_best_of_all_rank_choices(size: float, relative: bool) -> None:
    """With equal shapes every step costs the same, so greedy is optimal."""
    asked = request([(10, 9)] * 3, size, scale=1.7)
    shares = budget.global_greedy(asked, GlobalGreedyOptions(relative))
    weights = [weight.numpy() for weight in asked.weights.values()]
    chosen = tuple(9 if share is None else share.options.rank for share in shares.values())
    highest = (10 * 9 - 1) // 19  # at rank 4 dense is near: a higher rank would not pay
    allowed = [ranks for ranks in itertools.product(range(1, highest + 1), repeat=3) if sum(ranks) * 19 <= size * 270]
    best = min(squared_error(weights, ranks, relative) for ranks in allowed)
    assert numbers(asked, shares) <= size * 270
    assert squared_error(weights, chosen, relative) <= best * (1 + 1e-6)


def test_greedy_with_other_shapes_is_within_one_step_of_the_best() -> None:
    shapes, size = [(12, 10), (8, 14), (16, 9)], 0.5
    asked = request(shapes, size)
    total = asked.total
    shares = budget.global_greedy(asked, GlobalGreedyOptions(relative=False))
    weights = [weight.numpy() for weight in asked.weights.values()]
    chosen = tuple(share.options.rank for share in shares.values() if share)
    costs = [sum(shape) for shape in shapes]
    allowed = [ranks for ranks in itertools.product(range(1, 5), repeat=3)
               if sum(r * c for r, c in zip(ranks, costs, strict=True)) <= size * total]
    best = min(squared_error(weights, ranks, False) for ranks in allowed)
    one_step = max(np.linalg.svd(w, compute_uv=False)[r] ** 2 for w, r in zip(weights, chosen, strict=True))
    assert squared_error(weights, chosen, False) <= best + one_step


def test_relative_ignores_the_scale_of_a_layer() -> None:
    plain, scaled = request([(20, 20)] * 2, 0.5), request([(20, 20)] * 2, 0.5, scale=100)
    assert budget.global_greedy(plain) == budget.global_greedy(scaled)
    absolute = budget.global_greedy(scaled, GlobalGreedyOptions(relative=False))
    assert absolute["0"] is not None and absolute["0"].options.rank == 1


def test_a_layer_that_takes_all_its_steps_becomes_dense() -> None:
    shares = budget.global_greedy(request([(20, 20)] * 2, 0.9, scale=1e4), GlobalGreedyOptions(relative=False))
    assert shares["1"] is None and shares["0"] is not None
    assert set(budget.global_greedy(request([(20, 20)] * 2, 1.0)).values()) == {None}


@pytest.mark.parametrize("name", ["uniform", "global_greedy", "alds"])
@pytest.mark.parametrize("size", [0.5, 0.25, 0.125])
def test_size_is_of_the_whole_model_and_never_exceeded(name: str, size: float) -> None:
    shapes = [(128, 96, 3), (128, 128, 3), (64, 128), (40, 64)]
    asked = request(shapes, size, others=3000, rank_multiple=2)
    spent = numbers(asked, budget.allocate(name, asked, {})) + 3000
    assert 0.85 * size <= spent / asked.total <= size


def test_uniform_gives_each_layer_the_same_share_and_small_layers_their_fewest() -> None:
    asked = request([(100, 100), (100, 100), (12, 12)], 0.1)
    shares = budget.uniform(asked)
    assert all(share is not None for share in shares.values())
    assert shares["2"] is not None and shares["2"].size == pytest.approx(24 / 144)
    assert shares["0"] == shares["1"] and shares["0"] and shares["0"].size < 0.1


def test_uniform_leaves_layers_of_next_to_no_numbers_dense_where_the_others_fit() -> None:
    shapes = [(100, 100), (100, 100), (8, 10)]
    shares = budget.uniform(request(shapes, 0.1))
    assert shares["2"] is None and shares["0"] is not None
    assert shares["0"].size == pytest.approx((0.1 * 20_080 - 80) / 20_000)
    assert budget.uniform(request(shapes, 0.1), UniformOptions(keep=0.0))["2"] is not None
    least = [Svd.min_parameters(shape, Svd.Options()) for shape in shapes]
    scarce = (sum(least) + 1) / 20_080
    assert all(share is not None for share in budget.uniform(request(shapes, scarce)).values())


def test_a_layer_that_never_pays_stays_dense() -> None:
    for name in ("uniform", "global_greedy", "alds"):
        shares = budget.allocate(name, request([(100, 100), (1, 50)], 0.5), {})
        assert shares["1"] is None and shares["0"] is not None


@pytest.mark.parametrize("name", ["uniform", "global_greedy", "alds"])
def test_an_impossible_size_says_the_smallest(name: str) -> None:
    with pytest.raises(CannotShrink, match=r"the smallest is 0\.2\d+ of the model"):
        budget.allocate(name, request([(100, 100)], 0.1, others=2500), {})


def error_bounds(asked: budget.Request, shares: budget.Allocation) -> list[float]:
    """What the bound of each layer is at its share, from numpy's singular values."""
    found = []
    for path, share in shares.items():
        matrix = asked.weights[path].flatten(1).double().numpy()
        groups, rank = (share.options.groups, share.options.rank) if share else (1, min(matrix.shape))
        lost = [np.linalg.svd(block, compute_uv=False)[rank:] for block in np.split(matrix, groups, axis=1)]
        largest = max((values[0] for values in lost if len(values)), default=0)
        found.append(np.sqrt(groups) * largest / np.linalg.norm(matrix, 2))
    return found


@pytest.mark.parametrize("size", [0.3, 0.5, 0.7, 0.9])
def test_alds_is_the_best_of_all_groups_and_ranks(size: float) -> None:
    """Every choice of (groups, rank) or dense, for three layers of different shapes."""
    asked = request([(12, 8), (6, 12), (8, 4, 2)], size, family="grouped")
    family = asked.family
    ways = [[*((c.error, c.num_parameters) for c in family.error_bounds(w, asked.options)
               if c.num_parameters < w.numel()), (0.0, w.numel())]
            for w in asked.weights.values()]
    best = min(max(error for error, _ in chosen) for chosen in itertools.product(*ways)
               if sum(cost for _, cost in chosen) <= size * asked.total)
    shares = budget.alds(asked)
    assert max(error_bounds(asked, shares)) == pytest.approx(best, rel=1e-5)
    assert numbers(asked, shares) <= size * asked.total


def test_alds_never_gets_worse_with_more_numbers_and_ignores_the_scale_of_a_layer() -> None:
    errors = []
    for size in (0.2, 0.3, 0.4, 0.6, 0.8, 1.0):
        asked = request([(24, 16), (16, 24), (16, 8, 3)], size, family="grouped")
        errors.append(max(error_bounds(asked, budget.alds(asked))))
    assert errors == sorted(errors, reverse=True) and errors[-1] == pytest.approx(0, abs=1e-6)
    plain, scaled = (budget.alds(request([(24, 16)] * 2, 0.5, scale=scale, family="grouped")) for scale in (1, 100))
    assert plain == scaled


def test_what_a_budget_cannot_do_is_a_user_error() -> None:
    asked = request([(20, 20)], 0.5)
    for name, options in (("lottery", {}), ("uniform", {"colour": 1}), ("global_greedy", {"colour": 1})):
        with pytest.raises(UserError):
            budget.allocate(name, asked, options)
    with pytest.raises(UserError, match="needs a size"):
        budget.uniform(request([(20, 20)], None))
    with pytest.raises(UserError, match="0: structure cp has no error bounds; use budget=uniform"):
        budget.allocate("alds", request([(20, 20)], 0.5, family="cp"))
    with pytest.raises(UserError, match="keep is 2"):
        budget.allocate("uniform", asked, {"keep": 2})


def test_without_a_size_the_options_say_how_much() -> None:
    asked = request([(20, 20), (10, 8)], None, rank=3)
    for name in budget.methods():
        assert budget.allocate(name, asked) == dict.fromkeys(asked.weights, budget.Allotment(None, asked.options))
    assert numbers(asked, budget.allocate("uniform", asked)) == 3 * 58


def test_dense_is_not_asked() -> None:
    for name, size in itertools.product(budget.methods(), (None, 0.01, 1.0)):
        assert set(budget.allocate(name, request([(20, 20), (10, 8)], size, family="dense")).values()) == {None}


def test_without_an_order_among_parameters_greedy_is_uniform() -> None:
    asked = request([(20, 20), (10, 8)], 0.5, family="hashed")
    assert budget.allocate("global_greedy", asked) == budget.uniform(asked)
