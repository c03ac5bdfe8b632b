"""Against numpy's SVD of the unfoldings, tensorly's own Tucker, torch's convolution and finite differences."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import partial_tucker
from torch import nn
from torch.nn import functional

from asrcompress.compression import compress, structures
from asrcompress.compression.plan import Plan
from asrcompress.compression.structures import CannotShrink, Structure
from asrcompress.compression.structures.low_rank._tucker2 import bases, concave_steps, frontier
from asrcompress.compression.structures.low_rank.tucker import Tucker
from asrcompress.errors import UserError

pytestmark = pytest.mark.usefixtures("numpy_backend")


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def error(layer: Structure, w: torch.Tensor) -> float:
    return float((layer.dense() - w).detach().norm())


def tails(w: torch.Tensor, ranks: tuple[int, int]) -> list[float]:
    """Norms of the singular values that the two unfoldings drop, by numpy."""
    unfoldings = (np.moveaxis(w.numpy(), axis, 0).reshape(w.shape[axis], -1) for axis in (0, 1))
    singular = (np.linalg.svd(matrix, compute_uv=False) for matrix in unfoldings)
    return [float(np.linalg.norm(s[r:])) for s, r in zip(singular, ranks, strict=True)]


@pytest.mark.parametrize("ranks", [(3, 4), (7, 2), (5, 5)])
@pytest.mark.parametrize("shape", [(11, 13, 3), (16, 8, 2)])
def test_the_error_is_between_the_bounds_and_hooi_never_above_its_start(shape: tuple[int, int, int],
                                                                        ranks: tuple[int, int]) -> None:
    w = weight(*shape)
    ranks = tuple(Tucker.fit(w, Tucker.Options(ranks=ranks)).ranks)
    low, high = max(tails(w, ranks)), float(np.linalg.norm(tails(w, ranks)))
    errors = [error(structures.fit("tucker", w, ranks=ranks, sweeps=n), w) for n in (0, 1, 3, 20)]
    assert all(low - 1e-9 <= e <= high + 1e-9 for e in errors)
    assert all(after <= before + 1e-9 for before, after in zip(errors, errors[1:], strict=False))


def test_it_is_what_tensorly_finds_from_its_own_start() -> None:
    w, ranks = weight(9, 10, 3), (4, 5)
    (core, factors), _ = partial_tucker(w.numpy(), ranks, modes=[0, 1], n_iter_max=4, tol=0)
    theirs = tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
    ours = structures.fit("tucker", w, ranks=ranks, sweeps=4).dense().detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_users_tensorly_backend_stays() -> None:
    """That of this thread, and that of others."""
    def of_another_thread() -> str:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(tensorly.get_backend()))
        thread.start()
        thread.join()
        return found[0]

    others = of_another_thread()
    for name in ("numpy", "pytorch"):
        tensorly.set_backend(name, local_threadsafe=True)
        structures.fit("tucker", weight(6, 5, 3), 0.5)
        assert tensorly.get_backend() == name and of_another_thread() == others


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 3, 3), (3, 2, 2)])
def test_convolution_is_torchs_with_the_dense_kernel(stride: int, padding: int, dilation: int) -> None:
    layer = structures.fit("tucker", weight(6, 4, 3), ranks=[3, 2])
    x, bias = weight(2, 4, 25, seed=1), weight(6, seed=2)
    expected = functional.conv1d(x, layer.dense(), bias, stride, padding, dilation)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation, bias), expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation), expected - bias[:, None])


def test_a_matrix_is_its_truncated_svd() -> None:
    w, x, bias = weight(12, 9), weight(2, 3, 9, seed=1), weight(12, seed=2)
    layer = structures.fit("tucker", w, ranks=4)
    assert error(layer, w) == pytest.approx(np.linalg.norm(np.linalg.svd(w.numpy(), compute_uv=False)[4:]))
    torch.testing.assert_close(layer(x, bias), x @ layer.dense().T + bias)
    assert layer.num_parameters() == 4 * (12 + 9 + 4)
    assert layer.macs(10) == 10 * 4 * (12 + 9)


def test_a_matrix_in_pieces_is_the_kernel_over_its_pieces() -> None:
    w, x, bias = weight(12, 24), weight(2, 5, 24, seed=1), weight(12, seed=2)
    layer = structures.fit("tucker", w, ranks=(5, 4), context_frames=3)
    kernel = np.stack(np.split(w.numpy(), 3, axis=1), axis=2)
    other = structures.fit("tucker", torch.from_numpy(kernel), ranks=(5, 4))
    torch.testing.assert_close(layer.dense(), torch.cat(other.dense().unbind(2), 1))
    torch.testing.assert_close(layer(x, bias), x @ layer.dense().T + bias)
    assert layer.num_parameters() == 12 * 5 + 5 * 4 * 3 + 4 * 8
    assert layer.macs(10) == 10 * (3 * 4 * 8 + 5 * 4 * 3 + 12 * 5)
    again = structures.build("tucker", layer.spec()).double()
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(x), layer(x))
    inputs = (x.requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), inputs)


def test_pieces_with_a_common_basis_are_found_where_the_matrix_has_full_rank() -> None:
    basis, mixing = weight(12, 128), weight(48, 12, 4, seed=1)
    w = torch.cat([mixing[..., piece] @ basis for piece in range(4)], 1)
    assert torch.linalg.matrix_rank(w) == 48
    assert error(structures.fit("tucker", w, 0.25, context_frames=4), w) < 1e-9 * float(w.norm())
    assert error(structures.fit("svd", w, 0.25), w) > 0.1 * float(w.norm())
    assert structures.init("tucker", w.shape, 0.1, context_frames=4).num_parameters() <= 0.1 * w.numel()
    kernel = structures.fit("tucker", weight(8, 6, 3), 0.5, context_frames=4)
    assert kernel.spec().get("context_frames") is None, "kernels have taps"
    with pytest.raises(UserError, match="5 context_frames do not divide 512 inputs"):
        structures.fit("tucker", w, 0.5, context_frames=5)


def test_left_and_core_of_a_matrix_are_one_at_inference_and_follow_their_numbers() -> None:
    layer, x = structures.fit("tucker", weight(12, 9), ranks=4).eval(), weight(3, 9, seed=1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.5)
            torch.testing.assert_close(layer(x), x @ layer.dense().T)
        assert layer._outer() is layer._outer()
        layer.float()
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x.float()).dtype == torch.bfloat16
        assert layer(x.float()).dtype == torch.float32
    assert layer(x.float()).requires_grad and not layer._kept
    layer.requires_grad_(False)
    with torch.inference_mode():
        layer(x.float())
    layer(x.float().requires_grad_()).sum().backward()


def test_size_of_the_reference_layer() -> None:
    with torch.device("meta"):
        layer = Tucker((1000, 1000, 2), (256, 256))
    assert layer.num_parameters() == layer.macs(1) == 643_072
    assert layer.macs(10, stride=3) == 10 * (3 * 256_000 + 256 * 256 * 2 + 256_000)
    assert Tucker.min_parameters((1000, 1000, 2), Tucker.Options()) == 2002
    assert Tucker((1000, 1000, 2), (1, 1)).num_parameters() == 2002


def test_the_chosen_ranks_are_the_best_of_all_pairs() -> None:
    w, most = weight(9, 7, 2) * torch.linspace(3, 0.1, 9, dtype=torch.float64)[:, None, None], 63
    chosen = structures.fit("tucker", w, most / 126, sweeps=0)
    assert chosen.num_parameters() <= most
    pairs = {structures.fit("tucker", w, ranks=[a, b], sweeps=0) for a in range(1, 10) for b in range(1, 8)}
    assert error(chosen, w) == pytest.approx(min(error(p, w) for p in pairs if p.num_parameters() <= most))
    kept = structures.fit("tucker", w, energy=0.8, sweeps=0)
    enough = [p.num_parameters() for p in pairs if error(p, w) ** 2 <= 0.2 * float(w.norm()) ** 2]
    assert error(kept, w) ** 2 <= 0.2 * float(w.norm()) ** 2 and kept.num_parameters() == min(enough)


@pytest.mark.parametrize("size", [0.5, 0.25, 0.125])
@pytest.mark.parametrize("shape", [(101, 61), (61, 67, 3), (64, 64, 3), (7, 64, 5)])
def test_size_is_kept_and_nearly_used(shape: tuple[int, ...], size: float) -> None:
    for layer in (structures.fit("tucker", weight(*shape), size), structures.init("tucker", shape, size)):
        assert 0.85 * size <= layer.num_parameters() / math.prod(shape) <= size
    if shape[0] > 60:
        layer = structures.fit("tucker", weight(*shape), size, rank_multiple=4)
        assert all(rank % 4 == 0 or rank < 4 or rank in shape for rank in layer.ranks)


def test_what_cannot_be_reached_says_the_smallest() -> None:
    with pytest.raises(CannotShrink, match=r"cannot reach size 0.01; the smallest is 0.042, at ranks 1 and 1"):
        structures.fit("tucker", weight(60, 40), 0.01)
    assert structures.fit("tucker", weight(60, 40), 101 / 2400).num_parameters() == 101


def test_full_ranks_are_the_weight() -> None:
    for shape in ((7, 5), (5, 7), (4, 3, 3), (20, 3, 2), (3, 20, 2), (5, 4, 1)):
        w = weight(*shape)
        for options in ({"ranks": 99}, {"energy": 1.0}):
            torch.testing.assert_close(structures.fit("tucker", w, **options).dense().detach(), w)


def test_vbmf_finds_planted_ranks_and_weakening_keeps_more() -> None:
    w = torch.einsum("oa,abt,bi->oit", weight(40, 4), weight(4, 3, 3, seed=1), weight(3, 50, seed=2))
    w += 0.3 * weight(40, 50, 3, seed=3)
    assert structures.fit("tucker", w, vbmf=1.0).ranks == (4, 3)
    assert structures.fit("tucker", w, vbmf=0.5).ranks == (22, 26)


def test_the_curve_is_concave_and_its_choices_cost_what_it_says() -> None:
    assert concave_steps([0, 1, 4, 5, 5]).tolist() == [2, 2, 1, 0]
    w = weight(24, 20, 3) * torch.logspace(0, -2, 24, dtype=torch.float64)[:, None, None]
    curve = Tucker.rate_distortion(w, Tucker.Options(rank_multiple=2), 0.25)
    assert curve.cost == 2 * 47 and len(curve.gains) == 1439 // 94
    assert (curve.gains.diff() <= 1e-9).all()
    for n in (1, 4, 10):
        layer = Tucker.fit(w, replace(curve.choose(n), sweeps=0))
        assert layer.num_parameters() <= n * curve.cost
        assert error(layer, w) ** 2 >= curve.energy - float(curve.gains[:n].sum()) - 1e-9


def test_global_greedy_shares_out() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(24, 24, 3), nn.ReLU(), nn.Conv1d(24, 16, 3))
    small, _ = compress(model, Plan("tucker", size=0.4, budget="global_greedy"))
    numbers = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert 0.3 * numbers[0] <= numbers[1] <= 0.4 * numbers[0]


def test_ranks_that_the_core_cannot_reach_are_not_offered() -> None:
    w = weight(20, 20, 2)
    u, v = bases(w)
    energy = torch.einsum("oit,oa,ib->abt", w, u, v).square().sum(2)
    ranks = frontier(energy, w.shape).ranks
    assert (ranks[:, 0] <= 2 * ranks[:, 1]).all() and (ranks[:, 1] <= 2 * ranks[:, 0]).all()


def test_wrong_options_are_user_errors() -> None:
    for options in ({}, {"ranks": 2, "energy": 0.5}, {"ranks": 0}, {"ranks": [1, 2, 3]}, {"energy": 1.5}, {"vbmf": 0}):
        with pytest.raises(UserError, match="tucker"):
            structures.fit("tucker", weight(6, 5), **options)
    for ranks in ([6, 5], [4, 1], [0, 1]):
        with pytest.raises(UserError, match="ranks"):
            structures.build("tucker", {"shape": [6, 5, 3], "ranks": ranks} if ranks[0] == 4 else
                             {"shape": [6, 5], "ranks": ranks})


def test_gradients() -> None:
    layer = structures.fit("tucker", weight(4, 3, 2), ranks=[2, 2])
    inputs = (weight(2, 3, 6, seed=1).requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: (layer.conv1d(x, padding=1), layer.dense()), inputs)


def test_from_scratch_has_the_variance_of_a_dense_start_and_even_norms() -> None:
    for shape in ((256, 512), (128, 64, 3)):
        layer = structures.init("tucker", shape, 0.5, seed=3)
        w = layer.dense().detach()
        assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.05)
        assert torch.equal(w, structures.init("tucker", shape, 0.5, seed=3).dense())
        for one in (layer, structures.fit("tucker", w, 0.25)):
            norms = [float(p.detach().norm()) for p in one.parameters()]
            assert max(norms) == pytest.approx(min(norms), rel=0.05)


def test_half_precision_and_degenerate_weights() -> None:
    w = weight(16, 12, 3).bfloat16()
    layer = structures.fit("tucker", w, ranks=99)
    assert {p.dtype for p in layer.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(layer.dense().detach().float(), w.float(), atol=0.15, rtol=0.1)
    assert not structures.fit("tucker", torch.zeros(6, 5, 3), 0.5).dense().any()
    assert structures.fit("tucker", torch.ones(1, 1), ranks=1).dense().item() == pytest.approx(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float().conv1d(torch.randn(1, 12, 9)).dtype == torch.bfloat16
