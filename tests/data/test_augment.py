import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrcompress.data import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def speech(n: int = 3, t: int = 200) -> torch.Tensor:
    """Something like log-mel energies: (n, t, 80), from -10 to 10."""
    return 3 * torch.randn(n, t, 80, generator=generator(1)) + torch.linspace(4, -4, 80)


def test_no_warp_is_the_identity() -> None:
    x = speech()
    assert torch.equal(augment.warp_frequency(x, 0.0, generator()), x)


def test_warp_is_numpys_interpolation_and_one_factor_an_utterance() -> None:
    x, limit = speech(4), 0.2
    warped = augment.warp_frequency(x, limit, generator(5))
    factors = 1 + limit * (2 * torch.rand(4, 1, generator=generator(5)) - 1).numpy()
    assert factors.min() < 1 < factors.max()
    for row, before, factor in zip(warped.numpy(), x.numpy(), factors[:, 0], strict=True):
        place = np.arange(80) * factor
        expected = np.stack([np.interp(place, np.arange(80), frame) for frame in before])  # clamps at the last bin
        np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_noise_has_the_power_that_was_asked_for(snr: float) -> None:
    x, lens = speech(8, 400), torch.full((8,), 400)
    noisy = augment.add_noise(x, lens, 1.0, (snr, snr), generator())
    clean, both = (np.exp(v.double().numpy()) for v in (x, noisy))
    assert (both >= clean * (1 - 1e-5)).all()
    measured = 10 * np.log10(clean.sum((1, 2)) / (both - clean).sum((1, 2)))
    np.testing.assert_allclose(measured, snr, atol=0.05)


def test_noise_is_measured_inside_the_utterance() -> None:
    x, lens = speech(4, 400), torch.tensor([400, 300, 200, 50])
    for row, length in zip(x, lens, strict=True):
        row[length:] = -23.0  # lhotse's padding
    noisy = augment.add_noise(x, lens, 1.0, (10, 10), generator())
    for row, clean, length in zip(noisy.double(), x.double(), lens, strict=True):
        noise = row[:length].exp() - clean[:length].exp()
        assert 10 * torch.log10(clean[:length].exp().sum() / noise.sum()) == pytest.approx(10, abs=0.05)


def test_noise_falls_on_the_share_that_was_asked_for_with_snrs_in_the_range() -> None:
    x = speech(400, 20)
    noisy = augment.add_noise(x, torch.full((400,), 20), 0.3, (10, 20), generator())
    touched = (noisy != x).flatten(1).any(1)
    assert 0.2 < touched.float().mean() < 0.4
    clean, both = x[touched].double().exp(), noisy[touched].double().exp()
    snr = 10 * torch.log10(clean.sum((1, 2)) / (both - clean).sum((1, 2)))
    assert snr.min() > 9.9 and snr.max() < 20.1 and snr.max() - snr.min() > 8
    assert augment.add_noise(x, torch.full((400,), 20), 0.0, (10, 20), generator()) is x


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.floats(0, 6),
    st.integers(1, 60),
    st.floats(0, 1),
)
def test_spec_augment_masks_within_bounds(
    seed: int, lengths: list[int], per_second: float, width: int, fraction: float
) -> None:
    lens = torch.tensor(lengths)
    x = torch.randn(len(lengths), max(lengths), 80, generator=generator(seed))
    before = x.clone()
    out = augment.spec_augment(
        x,
        lens,
        generator(seed),
        frequency_masks=2,
        frequency_width=20,
        time_width=width,
        time_masks_per_second=per_second,
        time_fraction=fraction,
    )
    assert torch.equal(x, before)
    for row, old, length in zip(out, x, lengths, strict=True):
        assert torch.equal(row[length:], old[length:])
        mean = old[:length].mean(0)
        changed = row[:length] != old[:length]
        assert torch.equal(row[:length][changed], mean.expand(length, 80)[changed])
        frames, bins = changed.all(1), changed[~changed.all(1)].any(0)
        assert frames.sum() <= fraction * length and bins.sum() <= 40
        assert torch.equal(changed, frames[:, None] | bins if length > 1 else changed)


def test_the_generator_alone_decides() -> None:
    x, lens = speech(), torch.tensor([200, 150, 100])

    def run(seed: int) -> list[torch.Tensor]:
        g = generator(seed)
        return [
            augment.warp_frequency(x, 0.1, g),
            augment.add_noise(x, lens, 0.9, (5, 20), g),
            augment.spec_augment(x, lens, g),
        ]

    torch.manual_seed(1)
    first = run(3)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, run(3), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, run(4), strict=True))
