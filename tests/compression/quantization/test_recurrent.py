"""Recurrent modules of torch, which keep the weights of their last forward."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asrcompress.compression import packed, quantization


class Tagger(nn.Module):
    def __init__(self, kind: type, **options: object) -> None:
        super().__init__()
        self.rnn, self.out = kind(8, 12, batch_first=True, **options), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0][..., :12])


KINDS = [(nn.LSTM, {}), (nn.GRU, {}), (nn.RNN, {}), (nn.LSTM, {"num_layers": 2, "bidirectional": True})]


def x() -> torch.Tensor:
    return torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
@pytest.mark.parametrize("name", quantization.names())
def test_it_trains_is_copied_after_gradients_and_comes_back(name: str, kind: type, options: dict) -> None:
    torch.manual_seed(0)
    small = quantization.apply(Tagger(kind, **options), name).train()
    optimizer = torch.optim.Adam(small.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (small(x()) - 1).square().mean()
        loss.backward()
        assert all(any(p.grad is not None for p in one.parameters()) for one in quantization.attached(small).values())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    y = small(x())
    twin = copy.deepcopy(small)
    assert torch.equal(twin(x()), y)
    with torch.no_grad():
        next(iter(quantization.attached(twin).values())).parameters().__next__().mul_(2)
    assert torch.equal(small(x()), y)  # a copy has weights of its own
    plain = quantization.materialize(copy.deepcopy(small))
    torch.testing.assert_close(plain(x()), y)
    again = quantization.apply_config(Tagger(kind, **options), quantization.specs(small))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x()), y)


def test_it_is_copied_after_it_was_moved() -> None:
    small = quantization.apply(Tagger(nn.LSTM), "int8").to(torch.float64)
    twin = copy.deepcopy(small)
    assert torch.equal(twin(x().double()), small(x().double())) and twin(x().double()).dtype == torch.float64


def test_a_packed_file_after_gradients_gives_the_same_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small: Any = quantization.apply(Tagger(nn.LSTM), "int8")
    small(x()).square().mean().backward()
    packed.save(tmp_path / "x.packed", small, build=lambda config: Tagger(nn.LSTM))
    again = packed.load(tmp_path / "x.packed", lambda config: Tagger(nn.LSTM))
    torch.testing.assert_close(again(x()), small(x()), rtol=0, atol=1e-6)
