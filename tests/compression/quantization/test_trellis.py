"""Trellis-coded quantization against every path, a decoder of its own, and the gains that are published."""

import itertools
import math

import numpy as np
import pytest
import torch

from asrcompress.compression import coders, quantization
from asrcompress.compression.quantization import Encoded
from asrcompress.compression.quantization import _cosine as cosine
from asrcompress.compression.quantization import _trellis_search as trellis
from asrcompress.compression.quantization.trellis import Trellis
from asrcompress.errors import UserError

AFTER = {0: (0, 2), 1: (7, 5), 2: (1, 3), 3: (6, 4), 4: (2, 0), 5: (5, 7), 6: (3, 1), 7: (4, 6)}  # docs/packed.md


MASKS = {16: (9, 2), 32: (18, 4), 64: (33, 10), 128: (78, 43)}


def reconstructed(codes: list[int], states: int = 64) -> list[int]:
    state, made = 0, []
    for i, code in enumerate(codes):
        state = 0 if i % (32 * states) == 0 else state
        made.append(2 * code if state % 2 == 0 else 2 * code - (code > 0) + (code < 0))
        if states == 8:
            state = AFTER[state][code % 2]
        else:
            a, b = MASKS[states]
            state = state // 2 ^ a * (state % 2) ^ b * (code % 2)
    return made


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).laplace(scale=0.05, size=shape).astype(np.float32))


@pytest.mark.parametrize("states", [8, 16, 32, 64, 128])
def test_points_follow_the_states(states: int) -> None:
    codes = np.random.default_rng(0).integers(-4, 5, (3, 70, 30))
    assert trellis.points(codes, states).ravel().tolist() == reconstructed(codes.ravel().tolist(), states)


@pytest.mark.parametrize("states", [8, 16, 64])
@pytest.mark.parametrize("lagrange", [0.0, 0.3, 1.0])
def test_search_finds_the_best_of_all_paths(lagrange: float, states: int) -> None:
    rng = np.random.default_rng(1)
    price = np.array([[0.5, 2.0, 4.0, 5.0, 7.0], [3.0, 2.5, 2.5, 3.0, 3.0]])
    for _ in range(3):
        numbers = rng.normal(0, 1.5, 5).astype(np.float32).clip(-3.4, 3.4)
        classes = rng.integers(0, 2, 5).astype(np.uint8)

        def cost(codes: tuple[int, ...], numbers: np.ndarray = numbers, classes: np.ndarray = classes) -> float:
            return float(np.square(np.array(reconstructed(list(codes), states)) - numbers).sum()
                         + lagrange * price[classes, np.abs(codes)].sum())

        best = min(map(cost, itertools.product(range(-2, 3), repeat=5)))
        found = trellis.search(numbers, price, lagrange, states=states, classes=classes)
        assert cost(tuple(found.tolist())) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize(("states", "gain"), [(8, 1.09), (16, 1.16), (32, 1.22), (64, 1.27), (128, 1.31)])
def test_gain_at_many_bits(states: int, gain: float) -> None:
    """Of 1.53 dB that are possible, as Marcellin and Fischer have it; rounding has an error of step^2 / 12."""
    numbers = np.random.default_rng(2).uniform(-300, 300, 2**17).astype(np.float32)
    codes = trellis.search(numbers, np.zeros(2), states=states)
    error = np.square(trellis.points(codes, states) - numbers).mean()
    assert 10 * np.log10((2**2 / 12) / error) == pytest.approx(gain, abs=0.03)


@pytest.mark.parametrize("rate", [0.5, 2.0, 5.0])
def test_takes_the_bits_and_fewer_than_rounding(rate: float) -> None:
    w = weight(160, 400)
    one = quantization.fit("trellis", w, bits=rate)
    coded = 8 * len(coders.encode("range", one.encode().integers["codes"])) / w.numel()
    assert coded == pytest.approx(rate, rel=0.06)
    error = float((one.tensor().detach() - w).square().mean())
    steps = np.geomspace(0.001, 0.5, 200)
    rounded = [np.rint(w.numpy() / step) for step in steps]
    step = max(i for i, codes in enumerate(rounded) if np.square(codes * steps[i] - w.numpy()).mean() <= error)
    uniform = 8 * len(coders.encode("range", rounded[step].astype(np.int64))) / w.numel()
    assert coded < {0.5: 0.85, 2.0: 0.96, 5.0: 0.98}[rate] * uniform


def test_lines_do_not_depend_on_each_other() -> None:
    w = weight(4, 512)
    step = trellis.step_for(w.numpy(), bits=3.0)
    price = np.array([1.0, 2.0])
    whole = trellis.search(w.numpy() / step, price, states=16)
    for row in range(4):
        np.testing.assert_array_equal(whole[row], trellis.search(w.numpy()[row] / step, price, states=16))


def test_step_for_an_error() -> None:
    numbers = weight(200, 300).numpy()
    sample = trellis.Sample(numbers)
    step = trellis.step_for(numbers, error=1e-5, sample=sample)
    assert trellis.quantize(numbers, step, sample)[2] == pytest.approx(1e-5, rel=0.03)


def test_file_holds_the_tensor_bit_for_bit() -> None:
    one = quantization.fit("trellis", weight(10, 70, 3), bits=2.5)
    again = Trellis.decode(one.encode(), one.shape)
    assert np.array_equal(again, one.tensor().detach().numpy())
    other = Trellis.build(one.spec())
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.tensor(), one.tensor())


def test_training_moves_the_step() -> None:
    one = quantization.fit("trellis", weight(20, 30), bits=3.0)
    codes, before = one.codes.clone(), one.step.detach().clone()
    optimizer = torch.optim.SGD(one.parameters(), 0.1)
    (one.tensor() - 2 * weight(20, 30)).square().mean().backward()
    optimizer.step()
    assert torch.equal(one.codes, codes) and not torch.equal(one.step, before)


def test_zeros_and_one_number() -> None:
    assert not quantization.fit("trellis", torch.zeros(4, 5)).tensor().any()
    assert float(quantization.fit("trellis", torch.full((1, 1), 0.3), step=0.15).tensor()) == pytest.approx(0.3)


@pytest.mark.parametrize("options", [{"bits": 0.0}, {"bits": 13.0}, {"step": -1.0}, {"states": 12}, {"states": 64.0},
                                     {"cosine": "0"}, {"cosine": "x"}, {"cosine": "1,1"}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="quantization trellis: (bits|step|states|cosine) is"):
        quantization.fit("trellis", weight(3, 3), **options)


def test_codes_beyond_the_most() -> None:
    with pytest.raises(ValueError, match="codes from"):
        Trellis.decode(Encoded({"codes": np.array([[2**40]])}, {"step": np.ones(1, np.float32)}), (1, 1))


def test_without_a_number_of_states_there_are_eight() -> None:
    """Files and checkpoints from before the number was written."""
    codes, step = np.random.default_rng(0).integers(-3, 4, (4, 200)), np.ones(1, np.float32)
    made = Trellis.decode(Encoded({"codes": codes}, {"step": step}), (4, 200))
    assert made.ravel().tolist() == reconstructed(codes.ravel().tolist(), 8)
    assert Trellis.build({"shape": [4, 200], "bits": 4.0, "step": 0.0}).options.states == 8


@pytest.mark.parametrize("states", [0, 12, -8, 2**40, "64", [64], 64.0, True, None])
def test_a_file_with_another_number_of_states(states: object) -> None:
    with pytest.raises(ValueError, match="a trellis of"):
        Trellis.decode(Encoded({"codes": np.ones((1, 1), int)}, {"step": np.ones(1, np.float32)}, {"states": states}),
                       (1, 1))


@pytest.mark.parametrize(("shape", "axes"), [((5, 4, 3), [1, 2]), ((6, 7), [1]), ((2, 3, 5), [2])])
def test_a_cosine_transform_is_the_formats(shape: tuple[int, ...], axes: list[int]) -> None:
    codes = np.random.default_rng(0).integers(-200, 200, shape)
    made = np.array([[float(x)] for x in reconstructed(codes.ravel().tolist(), 16)]).reshape(shape)
    for axis in axes:
        n = shape[axis]
        c = [[round(1024 * math.sqrt((2 if f else 1) / n) * math.cos(math.pi * (2 * t + 1) * f / (2 * n)))
              for t in range(n)] for f in range(n)]
        made = np.apply_along_axis(lambda line, c=c, n=n: [sum(line[f] * c[f][t] for f in range(n)) / 1024
                                                           for t in range(n)], axis, made)
    again = Trellis.decode(Encoded({"codes": codes}, {"step": np.full(1, 0.37, np.float32)},
                                   {"states": 16, "cosine": axes}), shape)
    assert np.array_equal(again, made.astype(np.float32) * np.float32(0.37))


def smooth(*shape: int) -> torch.Tensor:
    """Alike along the last two axes."""
    noise = np.random.default_rng(0).normal(size=shape)
    return torch.from_numpy((np.cumsum(np.cumsum(noise, 1), 2) + noise).astype(np.float32))


def test_a_smooth_kernel_takes_fewer_bits_at_the_same_error() -> None:
    w = smooth(64, 24, 9)
    found = {}
    for transform in ("auto", "none"):
        one = quantization.fit("trellis", w, step=0.2, cosine=transform)
        error = float((one.tensor().detach() - w).square().mean())
        found[transform] = 8 * len(coders.encode("range", one.encode().integers["codes"])) / w.numel(), error
        assert Trellis.build(one.spec()).options == one.options
        assert np.array_equal(Trellis.decode(one.encode(), one.shape), one.tensor().detach().numpy())
    assert one.encode().spec == {"states": 64}
    assert found["auto"][1] == pytest.approx(found["none"][1], rel=0.05)
    assert found["auto"][0] < found["none"][0] - 1.2


def test_no_transform_without_a_gain() -> None:
    assert quantization.fit("trellis", weight(64, 40, 3)).encode().spec == {"states": 64}


@pytest.mark.parametrize("axes", [[0], [3], [-1], [2, 1], [1, 1], "1", [1.0], [True], None, [1, 2, 3], {}, [10**30]])
def test_a_file_with_other_axes(axes: object) -> None:
    with pytest.raises(ValueError, match="a cosine transform of"):
        Trellis.decode(Encoded({"codes": np.ones((2, 2, 2), int)}, {"step": np.ones(1, np.float32)},
                               {"states": 64, "cosine": axes}), (2, 2, 2))


def test_sums_are_exact_at_the_extremes() -> None:
    """2^21 times the sums of the longest axes is below 2^53, so that no order of adding differs."""
    c = cosine.matrix(cosine.LONGEST)
    assert 2**21 * np.abs(c).sum(0).max() ** cosine.AXES < 2**53
    assert np.abs(c @ c.T / cosine.ONE**2 - np.eye(len(c))).max() < 0.02
