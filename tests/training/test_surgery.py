import copy

import torch
from torch import nn

from asrcompress.compression import modules, record, structures
from asrcompress.training import surgery


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12, bias=False), nn.Linear(12, 4))
    model.config = {"name": "net"}
    return model


def test_training_goes_on_after_a_swap_and_from_a_saved_optimizer_alike() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(3, 8)).square().sum().backward()
        optimizer.step()

    step(model, optimizer)
    for rank in (6, 3):
        new = structures.fit("svd", model[2].weight, rank=rank)
        surgery.place(model, "2", new)
        surgery.regroup(optimizer, [list(model.parameters())])
        fresh = set(new.parameters())
        assert set(optimizer.state) == set(model.parameters()) - fresh
        step(model, optimizer)
        assert {int(optimizer.state[parameter]["step"]) for parameter in fresh} == {1}
        assert {int(optimizer.state[parameter]["step"]) for parameter in model.parameters()} - {1}
    again = net()
    surgery.rebuild(again, record.layers(model))
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    other = torch.optim.AdamW(again.parameters(), lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer), step(again, other)
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_model_that_has_the_layers_is_left_alone() -> None:
    model = net()
    surgery.place(model, "2", structures.fit("svd", model[2].weight, rank=3))
    before = model[2].structure
    surgery.rebuild(model, copy.deepcopy(record.layers(model)))
    assert model[2].structure is before
    plain = net()
    surgery.rebuild(plain, {})
    assert plain.config == {"name": "net"}


def test_an_attention_weight_is_swapped_twice() -> None:
    model = nn.MultiheadAttention(8, 2)
    for rank in (4, 2):
        surgery.place(model, "in_proj_weight", structures.fit("svd", model.in_proj_weight, rank=rank))
        assert modules.structured(model)["in_proj_weight"].rank == rank
    assert sum(p.numel() for p in model.parameters()) == 2 * (24 + 8) + 24 + 8 * 8 + 8
