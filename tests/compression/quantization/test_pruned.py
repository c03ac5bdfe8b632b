"""Against numpy's sorting and torch's own pruning."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from asrcompress.compression import quantization
from asrcompress.errors import UserError


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_magnitude_is_torchs_own_pruning() -> None:
    layer = nn.Linear(40, 30)
    one = quantization.fit("pruned", layer.weight, density=0.2)
    prune.l1_unstructured(layer, "weight", amount=0.8)
    assert torch.equal(one.tensor(), layer.weight)


@pytest.mark.parametrize("shape", [(90,), (12, 10), (6, 5, 3)])
def test_density_is_exact_and_the_largest_stay(shape: tuple[int, ...]) -> None:
    w = weight(*shape)
    kept = quantization.fit("pruned", w, density=0.3).tensor().detach()
    count = round(0.3 * w.numel())
    assert int((kept != 0).sum()) == count
    largest, stayed = (np.sort(t.abs().numpy().ravel())[-count:] for t in (w, kept))
    np.testing.assert_array_equal(stayed, largest)


def test_random_has_the_density_and_does_not_look_at_the_weights() -> None:
    w = weight(50, 40)
    one, same, other = (quantization.fit("pruned", t, seed, density=0.25, score="random")
                        for t, seed in ((w, 1), (w * w, 1), (w, 2)))
    assert int(one.mask.sum()) == 500
    assert torch.equal(one.mask, same.mask) and not torch.equal(one.mask, other.mask)
    magnitude = quantization.fit("pruned", w, density=0.25)
    assert one.tensor().norm() < 0.8 * magnitude.tensor().norm()


@pytest.mark.parametrize(("unit", "axis"), [("row", 1), ("column", 0)])
def test_rows_and_columns_go_whole(unit: str, axis: int) -> None:
    w = weight(8, 12)
    mask = quantization.fit("pruned", w, density=0.5, unit=unit).mask.numpy()
    norms = np.linalg.norm(w.numpy(), axis=axis)
    whole = mask.all(axis)
    assert (whole | ~mask.any(axis)).all() and whole.sum() == len(norms) // 2
    assert norms[whole].min() >= norms[~whole].max()


def test_blocks_go_whole() -> None:
    mask = quantization.fit("pruned", weight(8, 12), density=0.5, unit="block", block=[4, 3]).mask
    blocks = mask.reshape(2, 4, 4, 3).permute(0, 2, 1, 3).reshape(8, 12)
    assert (blocks.all(1) | ~blocks.any(1)).all() and int(blocks.all(1).sum()) == 4


@pytest.mark.parametrize("unit, sides", [("row", (1, 10)), ("column", (7, 1)), ("block", (4, 3)), ("element", (1, 1))])
@pytest.mark.parametrize("score", ["magnitude", "random"])
@pytest.mark.parametrize("density", [0.01, 0.3, 0.75])
def test_units_go_whole_where_the_density_is_not_that_of_whole_ones(unit: str, sides: tuple[int, int], score: str,
                                                                    density: float) -> None:
    """One was cut where density x size was no multiple of it."""
    one = quantization.fit("pruned", weight(7, 10), density=density, unit=unit, block=[4, 3], score=score)
    units = [[block.flatten() for block in rows.split(sides[1], 1)] for rows in one.mask.split(sides[0])]
    whole = [bool(block.all()) for row in units for block in row]
    assert whole == [bool(block.any()) for row in units for block in row]
    assert sum(whole) == max(1, round(density * len(whole)))
    before = one.mask.clone()
    one.weight.data += 1
    one.advance(1.0)
    assert torch.equal(one.mask, before)


def test_one_threshold_for_all_layers_is_numpys_percentile() -> None:
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    with torch.no_grad():
        model[0].weight.mul_(0.01)  # the scale of a layer says nothing, but how its numbers are spread does
        model[1].weight.copy_(weight(10, 30) ** 3)
    small = quantization.apply(model, "pruned", density=0.2, scope="global")
    relative = [layer.weight.detach().numpy() for layer in model]
    relative = [w / np.sqrt((w.astype(np.float64) ** 2).mean()) for w in relative]
    threshold = np.quantile(np.abs(np.concatenate([w.ravel() for w in relative])), 0.8)
    for path, w in zip(("0.weight", "1.weight"), relative, strict=True):
        kept = int(quantization.attached(small)[path].mask.sum())
        assert abs(kept - int((np.abs(w) > threshold).sum())) <= 1


def test_the_cubic_schedule_is_the_papers_and_masks_only_grow() -> None:
    one = quantization.fit("pruned", weight(40, 25), density=0.1, schedule="cubic", until=0.5)
    assert bool(one.mask.all())
    before = one.mask.clone()
    for progress in (0.1, 0.25, 0.4, 0.5, 1.0):
        one.advance(progress)
        t = min(1, progress / 0.5)
        assert int(one.mask.sum()) == round((0.1 + 0.9 * (1 - t) ** 3) * 1000)
        assert not (one.mask & ~before).any()
        before = one.mask.clone()


def test_the_iterative_schedule_has_four_equal_factors() -> None:
    one = quantization.fit("pruned", weight(100, 100), density=0.0625, schedule="iterative", until=0.8)
    seen = []
    for progress in (0, 0.2, 0.4, 0.6, 0.8):
        one.advance(progress)
        seen.append(int(one.mask.sum()) / 10000)
    assert seen == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.0625])


def test_masks_hold_through_training_and_averaging() -> None:
    layer = quantization.apply(nn.Sequential(nn.Linear(20, 10)), "pruned", density=0.3)
    one = quantization.attached(layer)["0.weight"]
    mask = one.mask.clone()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    states = []
    for step in range(5):
        optimizer.zero_grad()
        layer(weight(8, 20, seed=step)).square().sum().backward()
        optimizer.step()
        states.append(copy.deepcopy(layer.state_dict()))
    mean = {key: torch.stack([s[key] for s in states]).mean(0) if value.is_floating_point() else value
            for key, value in states[-1].items()}
    layer.load_state_dict(mean)
    assert torch.equal(one.mask, mask) and torch.equal(one.tensor() != 0, mask)


def test_impossible_options_are_user_errors() -> None:
    for options in ({"density": 0}, {"density": 2}, {"score": "beauty"}, {"unit": "corner"}, {"schedule": "never"},
                    {"until": 0}, {"block": [0, 2]}, {"precision": "int8"}):
        with pytest.raises(UserError, match="quantization pruned"):
            quantization.fit("pruned", weight(4, 4), **options)
    with pytest.raises(UserError, match="scope"):
        quantization.apply(nn.Sequential(nn.Linear(3, 3)), "pruned", scope="city")
