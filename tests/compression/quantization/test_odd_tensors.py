"""Every quantization on tensors that pruning, dead units and badly scaled layers leave, and in every precision."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from asrcompress.compression import coders, quantization
from asrcompress.compression.packed import coding
from asrcompress.compression.quantization import Quantizer
from asrcompress.errors import UserError


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(*scales: float) -> torch.Tensor:
    return random(len(scales), 40) * torch.tensor(scales)[:, None]


TENSORS = {
    "zero": torch.zeros(6, 40),
    "minus_zero": -torch.zeros(6, 40),
    "constant": torch.full((6, 40), 0.3),
    "negative_constant": torch.full((6, 5, 3), -0.3),
    "one_element": torch.full((1, 1), 0.7),
    "one_zero": torch.zeros(1, 1),
    "vector_of_one": torch.full((1,), -2.5),
    "tiny": 1e-38 * random(6, 40),
    "denormal": 1e-42 * random(6, 40),
    "tiny_kernel": 1e-38 * random(6, 8, 3),
    "huge": 1e30 * random(6, 40),
    "huge_kernel": 1e30 * random(6, 8, 3),
    "zero_rows": rows(1, 0, 1, 0, 0.1, 0),
    "faint_rows": rows(1, 1e-8, 1, 1e-8, 1e-8, 1),
    "vanishing_rows": rows(1, 1e-38, 1e-30, 1e-20, 1e20, 1),
    "one_outlier": torch.cat([torch.full((1, 1), 1e20), torch.full((1, 63), 1e-20)], 1),
    "four_axes": 0.1 * random(4, 3, 2, 5),
}
OPTIONS = [("int8", {"affine": True}), ("int8", {"group": 7}), ("int4", {"affine": True}),
           ("codebook", {"exact": True}), ("codebook", {"start": "density"}),
           ("codebook", {"start": "random", "entries": 1}),
           ("pruned", {"precision": "float16"}), ("pruned", {"score": "random"}), ("pruned", {"unit": "row"}),
           ("pruned", {"unit": "block", "density": 1}), ("pruned", {"schedule": "cubic"}),
           ("pruned_codebook", {"density": 0.5}), ("trellis", {"bits": 0.5}), ("epr", {"bits": 8}),
           ("epr", {"bits": 0.1})]
WAYS = [*((name, {}) for name in quantization.names()), *OPTIONS]
every_way = pytest.mark.parametrize(("name", "options"), WAYS, ids=lambda way: str(way))
every_tensor = pytest.mark.parametrize("kind", TENSORS)


def beyond_half(name: str, options: dict, kind: str) -> bool:
    """Whether half precision cannot hold the tensor."""
    half = name == "float16" or options.get("precision") == "float16"
    return half and float(TENSORS[kind].abs().max()) > 65504


def through_the_file(one: Quantizer, coder: str) -> np.ndarray:
    entry, stream = coding.encode(one, coder, {})
    entry = json.loads(json.dumps({"name": "x", **entry}))
    coding.check(entry)
    return coding.decode(entry, stream)


def error(tensor: torch.Tensor, made: np.ndarray) -> float:
    """Squared, relative to the largest value, by numpy."""
    exact = tensor.double().numpy()
    largest = np.abs(exact).max() or 1.0
    return float(np.square((exact - made.astype(np.float64)) / largest).sum())


@every_tensor
@every_way
def test_what_is_made_is_finite_and_what_every_coder_gives_back(name: str, options: dict, kind: str) -> None:
    if beyond_half(name, options, kind):
        with pytest.raises(UserError, match="reach|beyond"):
            quantization.fit(name, TENSORS[kind], **options)
        return
    one = quantization.fit(name, TENSORS[kind], **options)
    made = one.tensor().detach().numpy()
    assert np.isfinite(made).all() and made.shape == tuple(TENSORS[kind].shape)
    for coder in coders.names():
        again = through_the_file(one, coder)
        np.testing.assert_array_equal((again + 0.0).view(np.int32), (made + 0.0).view(np.int32))  # 0.0 for -0.0


@every_tensor
@every_way
def test_it_trains_to_finite_values(name: str, options: dict, kind: str) -> None:
    if beyond_half(name, options, kind):
        return
    one = quantization.fit(name, TENSORS[kind], **options)
    optimizer = torch.optim.Adam(one.parameters(), 1e-3)
    for step in range(3):
        one.advance(step / 3)
        optimizer.zero_grad()
        loss = one().flatten() @ random(one().numel(), seed=step)
        (loss if (rate := one.rate()) is None else loss + 1e-3 * rate).backward()
        optimizer.step()
    made = one.tensor().detach().numpy()
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(through_the_file(one, "range"), made)


@pytest.mark.parametrize(("name", "bits", "group"), [("int8", 8, 40), ("int4", 4, 32)])
@every_tensor
def test_integers_are_as_near_as_numpys_rounding_of_each_group(name: str, bits: int, group: int, kind: str) -> None:
    tensor, top = TENSORS[kind], 2 ** (bits - 1) - 1
    made = quantization.fit(name, tensor).tensor().detach().numpy()
    flat = tensor.double().numpy().reshape(len(tensor) if tensor.dim() > 1 else 1, -1)
    plain = np.empty_like(flat)
    for start in range(0, flat.shape[1], group):
        part = flat[:, start : start + group]
        scale = np.abs(part).max(1, keepdims=True) / top
        scale[scale == 0] = 1
        plain[:, start : start + group] = np.round(part / scale) * scale
    # scales are float32 or half precision, and below 1e-38 they have few digits
    coarse = np.abs(flat).max() < 1e-36
    assert error(tensor, made) <= error(tensor, plain.reshape(made.shape)) * 1.02 + (2e-3 if coarse else 1e-12)


@pytest.mark.parametrize(("name", "group"), [("int8", 0), ("int4", 32)])
def test_faint_rows_keep_their_digits_and_zero_rows_are_zero(name: str, group: int) -> None:
    tensor = rows(1, 0, 1e-8, 1e8)
    made = quantization.fit(name, tensor, group=group).tensor().detach().numpy()
    assert not made[1].any()
    for row in (0, 2, 3):
        assert error(tensor[row], made[row]) < {"int8": 1e-3, "int4": 0.1}[name] * len(tensor[row])


@every_tensor
def test_centroids_are_the_nearest_by_numpy(kind: str) -> None:
    tensor = TENSORS[kind].numpy()
    one = quantization.fit("codebook", TENSORS[kind], entries=6)
    book = np.sort(one.codebook.detach().numpy())
    near = book[np.abs(tensor[..., None].astype(np.float64) - book.astype(np.float64)).argmin(-1)]
    assert error(TENSORS[kind], one.tensor().detach().numpy()) <= error(TENSORS[kind], near) * (1 + 1e-5) + 1e-12
    if len(np.unique(tensor)) <= 6:
        np.testing.assert_array_equal(one.tensor().detach().numpy(), tensor)


@pytest.mark.parametrize("density", [0.25, 1.0])
@every_tensor
def test_pruned_keeps_the_largest_by_numpy_as_they_are(kind: str, density: float) -> None:
    tensor = TENSORS[kind].numpy()
    made = quantization.fit("pruned", TENSORS[kind], density=density).tensor().detach().numpy()
    count = max(1, round(density * tensor.size))
    largest = np.sort(np.abs(tensor).ravel())[-count:]
    np.testing.assert_array_equal(np.sort(np.abs(made[made != 0])), largest[largest != 0])
    np.testing.assert_array_equal(made[made != 0], tensor[made != 0])


@pytest.mark.parametrize("name", ["trellis", "epr"])
@pytest.mark.parametrize("power", [2.0**-100, 1.0, 2.0**90])
def test_trellis_and_epr_do_not_depend_on_the_unit(name: str, power: float) -> None:
    plain, scaled = (quantization.fit(name, p * random(12, 40)).tensor().detach().numpy() for p in (1.0, power))
    assert error(random(12, 40), scaled / np.float64(power)) == pytest.approx(error(random(12, 40), plain), rel=0.02)


@every_way
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_a_sentence(name: str, options: dict, bad: float) -> None:
    tensor = random(4, 5)
    tensor[2, 3] = bad
    with pytest.raises(UserError, match="not finite; take an earlier checkpoint"):
        quantization.fit(name, tensor, **options)


@pytest.mark.parametrize("name", quantization.names())
def test_a_state_that_became_nan_in_training_is_a_sentence(name: str) -> None:
    one = quantization.fit(name, random(4, 5))
    with torch.no_grad():
        next(one.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(UserError, match="not finite; take an earlier checkpoint"):
        coding.encode(one, "raw", {})


@pytest.mark.parametrize("name", quantization.names())
def test_beyond_float32_is_a_sentence(name: str) -> None:
    for largest in (1e300, 2e38):
        with pytest.raises(UserError, match="rescale"):
            quantization.fit(name, torch.tensor([[largest, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@every_way
def test_models_keep_their_precision(name: str, options: dict, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Unflatten(1, (8, 3)), nn.Conv1d(8, 4, 2)).to(dtype)
    small = quantization.apply(model, name, **options)
    x = random(5, 16).to(dtype)
    y = small(x)
    assert y.dtype == dtype and torch.isfinite(y).all()
    y.float().square().sum().backward()
    for path, one in quantization.attached(small).items():
        assert one().dtype == dtype and any(p.grad is not None for p in one.parameters())
        again = quantization.family(name).build(json.loads(json.dumps(one.spec())))
        again.load_state_dict(one.state_dict())
        assert torch.equal(again(), one()) and one.spec()["dtype"] == str(dtype).removeprefix("torch.")
        stored = torch.from_numpy(through_the_file(one, "raw")).to(dtype)
        assert torch.equal(stored, one().detach()), path
    assert all(p.dtype == dtype for p in quantization.materialize(copy.deepcopy(small)).parameters())


@every_way
def test_a_model_that_is_moved_to_another_precision_keeps_what_is_stored(name: str, options: dict) -> None:
    small = quantization.apply(nn.Sequential(nn.Linear(16, 24)), name, **options)
    one = quantization.attached(small)["0.weight"]
    before = one.tensor().detach()
    small.half()
    assert torch.equal(one.tensor(), before) and torch.equal(small[0].weight, before.half())
    assert small(random(2, 16).half()).dtype == torch.float16
    assert torch.equal(small.float()[0].weight, before) and "dtype" not in one.spec()


def test_integer_parameters_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.table = nn.Parameter(torch.ones(3, 3, dtype=torch.int64), requires_grad=False)
    model.nothing = nn.Parameter(torch.ones(3, 0))
    assert [path for path, _ in quantization.tensors(model)] == ["0.weight"]
