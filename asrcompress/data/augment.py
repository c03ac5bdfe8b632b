"""Augmentation of log-mel features, a batch at a time: vocal-tract length, noise, SpecAugment.

All take features (N, T, F), return a copy, and draw from the generator of the caller, so that an epoch can be repeated.
"""

import math

import torch
from torch import Tensor


def warp_frequency(x: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    """Stretch the mel axis of each utterance by a factor from [1 - limit, 1 + limit], by linear interpolation.

    Vocal-tract length perturbation (Jaitly and Hinton, 2013), on the mel scale.
    """
    n, t, f = x.shape
    factor = 1 + limit * (2 * torch.rand(n, 1, generator=generator) - 1)
    place = (torch.arange(f) * factor).clamp(max=f - 1)
    low = place.floor().long().clamp(max=f - 2)
    part = (place - low).unsqueeze(1)
    index = low.unsqueeze(1).expand(n, t, f)
    return x.gather(2, index) * (1 - part) + x.gather(2, index + 1) * part


def add_noise(x: Tensor, lens: Tensor, probability: float, snr: tuple[float, float],
              generator: torch.Generator) -> Tensor:
    """Mix some utterances with stationary coloured noise at an SNR (dB) drawn from `snr`.

    In the power domain log-mel energies add: log(e^x + e^n). The noise has a smooth random spectrum and the
    exponential distribution over time of a periodogram averaged over a mel band (about 4 bins).

    x is (N, T, F) log-mel energies and stays as it is; lens is (N,).
    """
    n, t, f = x.shape
    chosen = (torch.rand(n, generator=generator) < probability).nonzero().flatten()
    if not len(chosen):
        return x
    inside = torch.arange(t) < lens[:, None]
    speech = x[chosen]
    # The level of an utterance is that of its louder frames: the mean over its frames of the power summed over mel.
    power = speech.exp().sum(2) * inside[chosen]
    level = (power.sum(1) / lens[chosen].clamp(min=1)).clamp_min(1e-30).log()
    knots = torch.randn(len(chosen), 1, 5, generator=generator) * 1.5
    tilt = torch.nn.functional.interpolate(knots, size=f, mode="linear", align_corners=True)
    flutter = torch.randn(len(chosen), t, f, generator=generator) * 0.5
    noise = tilt + flutter
    noise_level = torch.logsumexp(noise, 2).exp().mean(1).log()
    db = snr[0] + (snr[1] - snr[0]) * torch.rand(len(chosen), generator=generator)
    noise = noise + (level - noise_level - db * math.log(10) / 10)[:, None, None]
    out = x.clone()
    out[chosen] = torch.logaddexp(speech, noise)
    return out


def spec_augment(x: Tensor, lens: Tensor, generator: torch.Generator, *, frequency_masks: int = 2,
                 frequency_width: int = 27, time_masks_per_second: float = 1.0, time_width: int = 20,
                 time_fraction: float = 0.4) -> Tensor:
    """Replace bands and stretches by the utterance's mean (Park et al., 2019; time masks scale with length, 2020).

    Widths are in mel bins and in frames; `time_fraction` bounds the share of frames under time masks.
    """
    x = x.clone()
    for i, length in enumerate(lens.tolist()):
        fill = x[i, :length].mean(0)
        for _ in range(frequency_masks):
            width = int(torch.randint(min(frequency_width, x.shape[2]) + 1, (1,), generator=generator))
            start = int(torch.randint(x.shape[2] - width + 1, (1,), generator=generator))
            x[i, :length, start:start + width] = fill[start:start + width]
        count = min(int(length / 100 * time_masks_per_second), int(time_fraction * length / max(1, time_width)))
        for _ in range(count):
            width = int(torch.randint(min(time_width, length) + 1, (1,), generator=generator))
            start = int(torch.randint(length - width + 1, (1,), generator=generator))
            x[i, start:start + width] = fill
    return x
