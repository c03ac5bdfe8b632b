"""Trellis-coded quantization against every path, a decoder of its own, and the gains that are published."""

import itertools

import numpy as np
import pytest
import torch

from asrcompress.compression import coders, quantization
from asrcompress.compression.quantization import Encoded, trellis
from asrcompress.compression.quantization.trellis import Trellis
from asrcompress.errors import UserError

AFTER = {0: (0, 2), 1: (7, 5), 2: (1, 3), 3: (6, 4), 4: (2, 0), 5: (5, 7), 6: (3, 1), 7: (4, 6)}  # docs/packed.md


def reconstructed(codes: list[int]) -> list[int]:
    state, made = 0, []
    for i, code in enumerate(codes):
        state = 0 if i % 256 == 0 else state
        made.append(2 * code if state % 2 == 0 else 2 * code - (code > 0) + (code < 0))
        state = AFTER[state][code % 2]
    return made


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).laplace(scale=0.05, size=shape).astype(np.float32))


def test_points_follow_the_states() -> None:
    codes = np.random.default_rng(0).integers(-4, 5, (3, 7, 30))
    assert trellis.points(codes).ravel().tolist() == reconstructed(codes.ravel().tolist())


@pytest.mark.parametrize("lagrange", [0.0, 0.3])
def test_search_finds_the_best_of_all_paths(lagrange: float) -> None:
    rng = np.random.default_rng(1)
    price = np.array([0.5, 2.0, 4.0, 5.0, 7.0])
    for _ in range(5):
        numbers = rng.normal(0, 1.5, 5).astype(np.float32).clip(-3.4, 3.4)

        def cost(codes: tuple[int, ...], numbers: np.ndarray = numbers) -> float:
            return float(np.square(np.array(reconstructed(list(codes))) - numbers).sum()
                         + lagrange * price[np.abs(codes)].sum())

        # Each code is one of the two nearest on either quantizer, or dearer with the same parity.
        best = min(map(cost, itertools.product(range(-2, 3), repeat=5)))
        assert cost(tuple(trellis.search(numbers, price, lagrange).tolist())) == pytest.approx(best, rel=1e-5)


def test_gain_at_many_bits() -> None:
    """Eight states gain 1.1 dB of the 1.53 that are possible; rounding has an error of step^2 / 12."""
    numbers = np.random.default_rng(2).uniform(-300, 300, 2**16).astype(np.float32)
    codes = trellis.search(numbers, np.zeros(2))
    error = np.square(trellis.points(codes) - numbers).mean()
    assert 10 * np.log10((2**2 / 12) / error) == pytest.approx(1.09, abs=0.05)


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
    w = weight(4, 256)
    step = trellis.step_for(w.numpy(), bits=3.0)
    price = np.array([1.0, 2.0])
    whole = trellis.search(w.numpy() / step, price)
    for row in range(4):
        np.testing.assert_array_equal(whole[row], trellis.search(w.numpy()[row] / step, price))


def test_step_for_an_error() -> None:
    numbers = weight(200, 300).numpy()
    step = trellis.step_for(numbers, error=1e-5)
    assert trellis.quantize(numbers, step)[2] == pytest.approx(1e-5, rel=0.03)


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


@pytest.mark.parametrize("options", [{"bits": 0.0}, {"bits": 13.0}, {"step": -1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="quantization trellis: (bits|step) is"):
        quantization.fit("trellis", weight(3, 3), **options)


def test_codes_beyond_the_most() -> None:
    with pytest.raises(ValueError, match="codes from"):
        Trellis.decode(Encoded({"codes": np.array([[2**40]])}, {"step": np.ones(1, np.float32)}), (1, 1))
