"""synthetic: features made from a trained model alone, to calibrate and fine-tune a compressed one without any data.

    batches = synthetic.gaussian(model)      # (x (N, T, features), x_lens (N,)), as model(...) takes them
    batches = synthetic.batchnorm(model)     # noise, changed until the model finds it familiar

Haroush, Hubara, Hoffer and Soudry, "The knowledge within: methods for data-free model compression", CVPR 2020; Cai et
al., "ZeroQ", CVPR 2020. For speech: the noise is smooth in time at the start, and the label of a segment is a random
sequence of tokens, of which CTC says where they are.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from asrcompress import precision
from asrcompress.compression.calibration import in_eval_mode
from asrcompress.errors import UserError

FRAMES = 400  # of a segment: 4 s
TOKENS = 40  # in a segment: 10 phones a second
Batch = tuple[Tensor, Tensor]


def gaussian(model: Any, batches: int = 4, size: int = 8, seed: int = 0) -> list[Batch]:
    """Independent N(0, 1) features: batches of `size` segments of 4 s. The scale of real features is not known."""
    generator = torch.Generator().manual_seed(seed)
    lens = torch.full((size,), FRAMES)
    return [(torch.randn(size, FRAMES, _features(model), generator=generator), lens) for _ in range(batches)]


@torch.enable_grad()
def batchnorm(model: Any, batches: int = 4, size: int = 8, steps: int = 100, labels: float = 1.0, lr: float = 0.3,
              seed: int = 0, prior: Tensor | None = None) -> list[Batch]:
    """Features for which every BatchNorm's statistics are what it saw in training: batches of `size` segments of 4 s.

    Each batch starts as noise and takes `steps` steps of Adam down `divergence` + `labels` x CTC, the latter per frame
    and for random tokens, so that the labels follow `prior` (vocab,), by default all but the blank alike.
    Errors: UserError for a model without BatchNorm: folded, as in a packed file, it is gone.
    """
    generator = torch.Generator().manual_seed(seed)
    if not Statistics(model).norms:
        raise UserError("data-free calibration by BatchNorm statistics needs a model that has them, and in this one "
                        "there are none or they were folded; give the model file, not the packed file, or use gaussian")
    if prior is None:
        prior = torch.ones(int(model.config["vocab"])).index_fill(0, torch.tensor([0]), 0.0)
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        with in_eval_mode(model):
            return [_matched(model, size, steps, labels, lr, prior, generator) for _ in range(batches)]
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def _matched(model: Any, size: int, steps: int, labels: float, lr: float, prior: Tensor, generator: torch.Generator,
             ) -> Batch:
    x = smooth_noise((size, FRAMES, _features(model)), generator)
    lens = torch.full((size,), FRAMES)
    targets = torch.multinomial(prior, size * TOKENS, True, generator=generator).view(size, TOKENS)
    x.requires_grad_(True)
    adam = torch.optim.Adam([x], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps))
    for _ in range(steps):
        adam.zero_grad()
        with Statistics(model) as seen, precision.autocast(x.device.type):
            log_probs, out_lens = model(x, lens)
        loss = seen.divergence()
        if labels:
            ctc = functional.ctc_loss(log_probs.float().transpose(0, 1), targets, out_lens, torch.full((size,), TOKENS),
                                      reduction="sum", zero_infinity=True)
            loss = loss + labels * ctc / out_lens.sum()
        loss.backward()
        adam.step()
        schedule.step()
    return x.detach(), lens


def smooth_noise(shape: tuple[int, int, int], generator: torch.Generator, rho: float = 0.9) -> Tensor:
    """N(0, 1) noise (N, T, F) that is a first-order autoregression over time."""
    white = torch.randn(shape, generator=generator)
    frames = [white[:, 0]]
    for t in range(1, shape[1]):
        frames.append(rho * frames[-1] + math.sqrt(1 - rho * rho) * white[:, t])
    return torch.stack(frames, 1)


class Statistics:
    """While it is open: the statistics of what every BatchNorm is given, (mean, variance) per channel, with gradients.

    The model runs in eval mode, so what is given to one layer does not depend on the batch's statistics in another.
    """

    def __init__(self, model: nn.Module) -> None:
        self.norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean
                      is not None]
        self.seen: dict[_BatchNorm, tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> "Statistics":
        self.hooks = [norm.register_forward_pre_hook(self._see) for norm in self.norms]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _see(self, norm: _BatchNorm, args: tuple[Tensor]) -> None:
        x = args[0].float().transpose(0, 1).flatten(1)  # (C, everything else)
        self.seen[norm] = x.mean(1), x.var(1, unbiased=False)

    def divergence(self) -> Tensor:
        """KL(N(mean, var) || N(running mean, running var)): the mean over the channels, the sum over the layers."""
        terms = []
        for norm, (mean, var) in self.seen.items():
            assert norm.running_mean is not None and norm.running_var is not None
            terms.append(divergence(mean, var + norm.eps, norm.running_mean, norm.running_var + norm.eps))
        return torch.stack(terms).sum()


def divergence(mean: Tensor, var: Tensor, mean_to: Tensor, var_to: Tensor) -> Tensor:
    """KL of normal distributions, vectors over channels, averaged: log(s'/s) - 1/2 + (s^2 + (m - m')^2) / (2 s'^2)."""
    return (0.5 * (var_to / var).log() - 0.5 + (var + (mean - mean_to).square()) / (2 * var_to)).mean()


def _features(model: Any) -> int:
    try:
        return int(model.config["features"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError("synthetic features need a model whose config says how many `features` it takes") from None


def examples(model: Any, how: str, minutes: float, seed: int, size: int = 8) -> list[Batch]:
    """About so many minutes of features, by the name of the way to make them: gaussian or batchnorm.

    Errors: UserError for another name, or too few minutes.
    """
    ways = {"gaussian": gaussian, "batchnorm": batchnorm}
    if how not in ways:
        raise UserError(f"synthetic features are {' or '.join(ways)}, not '{how}'")
    batches = math.ceil(6000 * minutes / FRAMES / size)
    if not batches > 0:
        raise UserError(f"{minutes:g} minutes of synthetic features are none; give more")
    return ways[how](model, batches, size, seed=seed)  # type: ignore[operator]
