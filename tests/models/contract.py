"""What every acoustic model keeps to, and what its tests share."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from asrcompress import models

VOCAB = 9


def build(config: dict[str, Any]) -> Any:
    """A model in eval mode, with norms that are not those of a new one."""
    torch.manual_seed(0)
    built = models.build(config)
    for module in built.modules():
        if isinstance(module, _BatchNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return built.eval()


def features(n: int, t: int) -> Tensor:
    return 3 * torch.randn(n, t, 80, generator=torch.Generator().manual_seed(n + t))


def shifted(x: np.ndarray, offset: int) -> np.ndarray:
    """Row t is x[t + offset], zero outside."""
    return np.stack([x[t + offset] if 0 <= t + offset < len(x) else 0 * x[0] for t in range(len(x))])


def batchnorm(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    mean, var, gain, bias = (weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * gain + bias


@torch.inference_mode()
def check_a_batch_gives_what_its_utterances_give_one_by_one(net: nn.Module) -> None:
    lengths = [57, 56, 41, 5, 1]
    x = features(5, 57)
    noise = x.clone()
    for i, length in enumerate(lengths):
        noise[i, length:] = 1000.0
    log_probs, lens = net(x, torch.tensor(lengths))
    loud, _ = net(noise, torch.tensor(lengths))
    for row, other, count, source, length in zip(log_probs, loud, lens, x, lengths, strict=True):
        alone, one = net(source[None, :length], torch.tensor([length]))
        assert one.tolist() == [count] == [math.ceil(length / 4)]
        torch.testing.assert_close(row[:count], alone[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other[:count], row[:count], atol=1e-5, rtol=1e-5)


def check_an_utterance_of_no_frames_has_none_and_changes_no_other(net: nn.Module) -> None:
    x = features(3, 40)
    x[1] = 0
    log_probs, lens = net(x, torch.tensor([40, 0, 24]))
    assert lens.tolist() == [10, 0, 6] and log_probs.isfinite().all()
    torch.testing.assert_close(log_probs[::2], net(x[::2], torch.tensor([40, 24]))[0], atol=1e-5, rtol=1e-5)
    log_probs[0].sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in net.parameters())
    alone, none = net(x[1:2, :0], torch.tensor([0]))
    assert alone.shape == (1, 0, VOCAB) and none.tolist() == [0]
