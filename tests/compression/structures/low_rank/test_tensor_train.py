"""Against numpy, explicit sums over the cores, torch's own convolution, finite differences, tensorly and its layers."""

import importlib
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.low_rank import _tensor_train as train
from asrcompress.compression.structures.low_rank.tensor_train import TensorTrain
from asrcompress.errors import UserError

NOVIKOV = [[4, 8, 8, 4], [5, 5, 5, 5]]


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(layer: structures.Structure, w: Tensor) -> float:
    return float((layer.dense().detach() - w).norm() / w.norm())


def contracted(layer: TensorTrain, way: str, x: Tensor, *where: int) -> Tensor:
    """The convolution (the product, without `where`) by a way that it may not have chosen itself."""
    layer.order = lambda *_, **__: way  # type: ignore[method-assign]
    return layer.conv1d(x, *where) if where else layer(x)


def test_novikovs_example_has_400_numbers_instead_of_640000() -> None:
    layer = structures.init("tensor_train", (1024, 625), rank=2, factors=NOVIKOV)
    assert math.prod(layer.shape) == 640_000
    assert layer.num_parameters() == 400 and layer.ranks == [2, 2, 2]


def test_reference_layer_of_the_size_table() -> None:
    modes = [[10, 10, 1], [10, 20, 1], [10, 10, 1]]
    layer = TensorTrain((1000, 2000), modes, [8, 8])
    assert layer.num_parameters() == 14_400
    assert train.cost(layer.modes, layer.ranks, "first", 1)[0] == 1_520_000


def test_the_weight_is_the_sum_over_products_of_core_slices() -> None:
    layer = structures.init("tensor_train", (12, 6, 2), rank=[2, 3], factors=[[2, 3, 2], [3, 1, 2]])
    cores, w = [core.detach().numpy() for core in layer.cores], layer.dense().detach().numpy()
    for i, j, t in itertools.product(range(12), range(6), range(2)):
        (i1, i2, i3), (j1, j2, j3) = np.unravel_index(i, (2, 3, 2)), np.unravel_index(j, (3, 1, 2))
        product = cores[0][:, i1, j1, t] @ cores[1][:, i2, j2, 0] @ cores[2][:, i3, j3, 0]
        assert w[i, j, t] == pytest.approx(product.item(), rel=1e-5, abs=1e-7)


def test_the_error_of_tt_svd_is_what_its_cuts_drop_and_within_the_bounds_of_oseledets() -> None:
    tensor, ranks = weight(6, 7, 8, 5), [4, 9, 3]
    cores = train.tt_svd(tensor, ranks)
    product = np.einsum("aib,bjc,ckd,dle->ijkl", *(core.numpy() for core in cores))
    error = np.linalg.norm(tensor.numpy() - product)
    rest, dropped = tensor.numpy().reshape(6, -1), 0.0
    for k, rank in enumerate(ranks):  # numpy's own sweep
        u, s, vh = np.linalg.svd(rest, full_matrices=False)
        dropped += (s[rank:] ** 2).sum()
        rest = (s[:rank, None] * vh[:rank]).reshape(-1, math.prod(tensor.shape[k + 2:]))
    assert error == pytest.approx(math.sqrt(dropped), rel=1e-12)
    tails = [float(s[rank:].sum()) for s, rank in zip(train.spectra(tensor), ranks, strict=True)]
    assert max(tails) <= error**2 * (1 + 1e-12) and error**2 <= sum(tails) * (1 + 1e-12)
    assert error**2 == pytest.approx(float(tensor.norm() ** 2 - cores[-1].norm() ** 2), rel=1e-12)


@pytest.mark.parametrize("error", [0.4, 0.6, 0.8])
def test_an_error_target_is_honoured_and_used(error: float) -> None:
    """t3nsor's to_tt_tensor ignores its epsilon."""
    w = weight(60, 24)
    for options in ({"modes": "separate"}, {"dims": 2, "modes": "paired"}, {"dims": 3, "modes": "paired"}, {}):
        layer = structures.fit("tensor_train", w, error=error, **options)
        assert 0.4 * error < relative(layer, w) <= error
    numbers = [structures.fit("tensor_train", w, error=e).num_parameters() for e in (0.1, 0.5, 0.9)]
    assert numbers[0] > numbers[1] > numbers[2]


@pytest.mark.parametrize("shape", [(12, 18), (7, 13), (8, 9, 3), (5, 7, 2), (1, 6), (6, 1), (1, 1)])
def test_full_ranks_are_the_weight_also_of_awkward_shapes(shape: tuple[int, ...]) -> None:
    w = weight(*shape)
    for options in ({"modes": "separate"}, *({"modes": "paired", "dims": d} for d in (2, 3, 4))):
        layer = structures.fit("tensor_train", w, rank=10**6, **options)
        torch.testing.assert_close(layer.dense().detach(), w)
        torch.testing.assert_close(structures.fit("tensor_train", w, error=0, **options).dense().detach(), w)


def test_of_a_transposed_weight_and_of_a_slice_nothing_has_to_be_contiguous() -> None:
    """t3nsor uses .view where memory is not contiguous."""
    w = weight(24, 60).T[::2]
    layer = structures.fit("tensor_train", w, rank=10**6, modes="paired", dims=3)
    torch.testing.assert_close(layer.dense().detach(), w)
    x = weight(30, 5, seed=1).T[:, :24]
    torch.testing.assert_close(contracted(layer, "last", x), x @ w.T)


def test_it_is_tensorlys_train() -> None:
    tensorly = pytest.importorskip("tensorly")
    tensor_train_matrix = importlib.import_module("tensorly.decomposition").tensor_train_matrix
    w = weight(60, 24)
    layer = structures.fit("tensor_train", w, rank=[6, 5], factors=[[5, 4, 3], [2, 3, 4]])
    peer = tensor_train_matrix(tensorly.tensor(w.numpy().reshape(5, 4, 3, 2, 3, 4)), rank=[1, 6, 5, 1])
    np.testing.assert_allclose(layer.dense().detach().numpy(), peer.to_matrix(), atol=1e-12)


def test_it_is_tensorly_torchs_train_and_out_comes_before_in() -> None:
    tltorch = pytest.importorskip("tltorch")
    w, x = weight(60, 24), weight(3, 24, seed=1)
    layer = structures.fit("tensor_train", w, rank=[6, 5], factors=[[5, 4, 3], [2, 3, 4]])
    peer = tltorch.BlockTT.from_tensor(w.reshape(5, 4, 3, 2, 3, 4), ((5, 4, 3), (2, 3, 4)), rank=[1, 6, 5, 1])
    torch.testing.assert_close(layer.dense().detach(), peer.to_matrix().detach(), atol=1e-12, rtol=0)
    linear = torch.nn.Linear(24, 60, bias=False, dtype=torch.float64)
    linear.weight = torch.nn.Parameter(w)
    other = tltorch.FactorizedLinear.from_linear(linear, rank=[1, 6, 5, 1], factorization="BlockTT", bias=False,
                                                 auto_tensorize=False, in_tensorized_features=(2, 3, 4),
                                                 out_tensorized_features=(5, 4, 3))
    torch.testing.assert_close(layer(x), other(x), atol=1e-12, rtol=0)


def test_two_pairs_are_the_svd_of_the_rearranged_matrix_and_separate_is_that_of_the_matrix() -> None:
    w = weight(12, 20)
    rearranged = w.numpy().reshape(3, 4, 5, 4).transpose(0, 2, 1, 3).reshape(15, 16)
    for options, matrix in (({"factors": [[3, 4], [5, 4]]}, rearranged), ({"modes": "separate"}, w.numpy())):
        tail = np.linalg.svd(matrix, compute_uv=False)[4:]
        layer = structures.fit("tensor_train", w, rank=4, **options)
        assert relative(layer, w) == pytest.approx(np.linalg.norm(tail) / np.linalg.norm(w.numpy()), rel=1e-12)


@pytest.mark.parametrize("way", ["first", "last", "rebuild"])
@pytest.mark.parametrize("options", [{"modes": "separate"}, {"dims": 2}, {"dims": 3}, {"dims": 4}], ids=str)
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (3, 2, 2)])
def test_every_way_is_torchs_convolution(way: str, options: dict, stride: int, padding: int, dilation: int) -> None:
    w, x, bias = weight(7, 11, 3), weight(2, 11, 25, seed=1), weight(7, seed=2)
    layer = structures.fit("tensor_train", w, rank=3, **{"modes": "paired", **options})
    expected = functional.conv1d(x, layer.dense(), bias, stride, padding, dilation)
    torch.testing.assert_close(contracted(layer, way, x, stride, padding, dilation) + bias[:, None], expected)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation, bias), expected)


@pytest.mark.parametrize("way", ["first", "last", "rebuild"])
@pytest.mark.parametrize("dims", [2, 3, 4])
def test_every_way_is_the_product(way: str, dims: int) -> None:
    layer = structures.fit("tensor_train", weight(13, 21), rank=3, modes="paired", dims=dims)
    x, bias = weight(2, 3, 21, seed=1), weight(13, seed=2)
    torch.testing.assert_close(contracted(layer, way, x), x @ layer.dense().T)
    torch.testing.assert_close(layer(x[0, 0], bias), layer.dense() @ x[0, 0] + bias)


@pytest.mark.parametrize("way", ["first", "last"])
def test_macs_are_those_of_the_products_that_are_made(way: str) -> None:
    layer = structures.init("tensor_train", (12, 20, 3), rank=[2, 3], factors=[[2, 3, 2], [5, 2, 2]])
    made = 0

    def step(k: int, z: Tensor, kernel: Tensor) -> Tensor:
        nonlocal made
        made += z.shape[0] * z.shape[2] * kernel.numel()
        return z.new_zeros(z.shape[0], kernel.shape[0], z.shape[2])

    train.contract(list(layer.cores), torch.zeros(1, 20), way, step)
    assert train.cost(layer.modes, layer.ranks, way, 10)[0] == 10 * made


def test_the_cheaper_way_is_taken_and_counted() -> None:
    separate = structures.init("tensor_train", (64, 64, 3), rank=8, modes="separate")
    assert separate.order() == "first" and separate.macs(10) == 10 * separate.num_parameters()
    assert separate.macs(10, stride=3) == 30 * 8 * 64 + 10 * (64 * 3 + 8 * 64)
    assert separate.macs(10) < train.cost(separate.modes, separate.ranks, "last", 10)[0]
    for frames in (1, 100):
        large = structures.init("tensor_train", (64, 64), size=0.5, modes="paired")
        assert large.order(frames) == "rebuild" and large.macs(frames) == frames * 64 * 64
        tiny = structures.init("tensor_train", (2048, 2048), rank=1, modes="paired", dims=2)
        assert tiny.order(frames) in ("first", "last") and tiny.macs(frames) < frames * 2048 * 2048 / 8


@pytest.mark.parametrize("stride", [1, 2])
def test_forward_goes_the_way_that_is_counted(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    layer = structures.init("tensor_train", (6, 5, 3), rank=2, modes="paired")
    monkeypatch.setattr(layer, "order", lambda *frames_and_stride: asked.append(frames_and_stride) or "rebuild")
    y = layer.conv1d(torch.zeros(2, 5, 20), stride, 1, 2)
    with torch.inference_mode():
        layer.conv1d(torch.zeros(2, 5, 20), stride, 1, 2)
    assert asked == [(y.shape[0] * y.shape[2], stride, True), (y.shape[0] * y.shape[2], stride, False)]


def test_training_rebuilds_anew_in_every_step_and_counts_it() -> None:
    layer = structures.init("tensor_train", (512, 1536), 0.0625, modes="paired", dims=2)
    assert layer.order(1) == layer.order(256) == layer.order(256, training=True) == "rebuild"
    assert layer.order(1, training=True) != "rebuild"
    (m1, n1, _), (m2, n2, _) = layer.modes
    assert train.rebuild_macs(layer.modes, layer.ranks) == m1 * n1 * layer.ranks[0] * m2 * n2
    assert train.rebuild_macs([(2, 3, 1), (4, 5, 1), (6, 7, 1)], [8, 9]) == 6 * 8 * 20 * 9 + 6 * 20 * 9 * 42


def test_a_stride_before_or_after_the_taps_counts() -> None:
    modes = ((2, 5, 3), (3, 2, 1))
    assert train.cost(modes, [2], "first", 10, stride=2)[0] == 10 * (2 * 60 + 2 * 12)
    assert train.cost(modes, [2], "last", 10, stride=2)[0] == 20 * 5 * 12 + 10 * 3 * 60


@pytest.mark.parametrize("way", ["first", "last", "rebuild"])
def test_gradients(way: str) -> None:
    layer = structures.fit("tensor_train", weight(5, 4, 2), rank=2, modes="paired", dims=3)
    x = weight(1, 4, 5, seed=1).requires_grad_()
    inputs = (x, *layer.cores)  # gradcheck moves them in place, so the layer sees it
    assert torch.autograd.gradcheck(lambda *_: (contracted(layer, way, x, 1, 1), layer.dense()), inputs)


@pytest.mark.parametrize("options", [{"modes": "separate"}, {"modes": "paired"}, {"modes": "paired", "dims": 4}, {}])
@pytest.mark.parametrize("size", [0.5, 0.25, 0.0625])
def test_size_is_kept_and_nearly_used(size: float, options: dict) -> None:
    for shape in ((101, 60), (64, 48, 3)):
        for layer in (structures.fit("tensor_train", weight(*shape), size, **options),
                      structures.init("tensor_train", shape, size, **options)):
            assert 0.7 * size <= layer.num_parameters() / math.prod(shape) <= size


def test_best_is_the_least_error_at_the_size() -> None:
    low_rank, kronecker = weight(24, 2) @ weight(2, 30, seed=1), torch.kron(weight(4, 6), weight(6, 5, seed=1))
    kinds = [{"modes": "separate"}, *({"modes": "paired", "dims": d} for d in (2, 3, 4))]
    for w, kind in ((low_rank + 0.01 * weight(24, 30, seed=2), "separate"), (kronecker, "paired")):
        errors = [relative(structures.fit("tensor_train", w, 0.2, **options), w) for options in kinds]
        best = structures.fit("tensor_train", w, 0.2)
        assert relative(best, w) == pytest.approx(min(errors))
        assert (best.modes == train.separate(w.shape)) == (kind == "separate")


def test_ranks_fitted_to_a_size_are_near_the_best_there_are() -> None:
    w = weight(8, 8, seed=3) @ torch.diag(2.0 ** -torch.arange(8)).double() @ weight(8, 8, seed=4)
    tensor = train.arranged(w, modes := train.paired((8, 8), 3))
    spectra = train.spectra(tensor)

    def lost(ranks: tuple[int, ...]) -> float:
        return sum(float(s[r:].sum()) for s, r in zip(spectra, ranks, strict=True))

    allowed = [r for r in itertools.product(range(1, 5), range(1, 5)) if train.stored(modes, r) <= 28]
    chosen = train.fitted_ranks(modes, spectra, 28)
    assert train.stored(modes, chosen) <= 28 and lost(tuple(chosen)) <= 1.1 * min(map(lost, allowed))


def test_factors_are_balanced_and_pad_little() -> None:
    assert [train.factors(n, 3) for n in (512, 1536, 2048)] == [(8, 8, 8), (8, 12, 16), (8, 16, 16)]
    assert train.factors(41, 2) == (6, 7)
    for n, count in ((5976, 3), (1009, 2), (9973, 4), (2048, 3), (40, 2)):
        found = train.factors(n, count)
        assert n <= math.prod(found) <= 1.1 * n and max(found) <= 2.5 * min(found)
    assert train.sides(train.paired((41, 43, 3), 2)) == (42, 45, 3)


def test_cores_are_balanced_and_the_weight_is_not_changed_by_that() -> None:
    layer = structures.fit("tensor_train", 100 * weight(24, 30, 3), 0.3, modes="paired", dims=3)
    norms = [float(core.detach().norm()) for core in layer.cores]
    assert max(norms) == pytest.approx(min(norms))
    assert not structures.fit("tensor_train", torch.zeros(6, 5), 0.9).dense().any()


@pytest.mark.parametrize("options", [{"modes": "separate"}, {"dims": 2}, {"dims": 3}, {"dims": 4}, {}], ids=str)
def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded(options: dict) -> None:
    for shape in ((128, 200), (64, 37, 3)):
        layer = structures.init("tensor_train", shape, 0.1, seed=3, **options)
        w = layer.dense().detach()
        assert float(w.square().mean().sqrt()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=1e-4)
        norms = [float(core.detach().norm()) for core in layer.cores]
        assert max(norms) == pytest.approx(min(norms), rel=1e-5)
        assert torch.equal(w, structures.init("tensor_train", shape, 0.1, seed=3, **options).dense())
        assert not torch.equal(w, structures.init("tensor_train", shape, 0.1, seed=4, **options).dense())


def test_what_cannot_be_reached_says_the_smallest() -> None:
    least = TensorTrain.min_parameters((60, 40), TensorTrain.Options())
    assert least == structures.fit("tensor_train", weight(60, 40), least / 2400).num_parameters()
    assert least < TensorTrain.min_parameters((60, 40), TensorTrain.Options(modes="separate")) == 100
    with pytest.raises(CannotShrink, match=r"cannot reach size 0.01; the smallest is 0.042, at rank 1"):
        structures.fit("tensor_train", weight(60, 40), 0.01, modes="separate")


def test_rows_scale_in_place_where_one_core_has_them() -> None:
    scale = weight(6, seed=9)
    for modes in ("separate", "paired"):
        layer = structures.fit("tensor_train", weight(6, 5, 3), rank=2, modes=modes)
        before = layer.dense().detach()
        assert layer.scale_rows(scale) == (modes == "separate")
        torch.testing.assert_close(layer.dense().detach(), before * (scale[:, None, None] if modes != "paired" else 1))


def test_wrong_options_are_user_errors() -> None:
    w = weight(6, 5)
    for options in ({}, {"rank": 2, "error": 0.5}, {"rank": 0}, {"error": 1.5}, {"rank": 2, "modes": "sideways"},
                    {"rank": 2, "dims": 7}, {"rank": [2, 2], "dims": 2, "modes": "paired"},
                    {"rank": 2, "factors": [[2, 2], [5, 1]]}, {"rank": 2, "factors": [[2, 3]]}):
        with pytest.raises(UserError, match="tensor_train"):
            structures.fit("tensor_train", w, **options)
    for spec in ({"modes": [[6, 5, 1]], "ranks": [2]}, {"modes": [[6, 4, 1]], "ranks": []},
                 {"modes": [], "ranks": []}, {"modes": [[2, 5, 1], [3, 1, 1]], "ranks": [0]}):
        with pytest.raises(UserError):
            structures.build("tensor_train", {"shape": [6, 5], **spec})


def test_half_precision_weights_keep_their_dtype_and_autocast_works() -> None:
    w = torch.randn(16, 12, 3, generator=torch.Generator().manual_seed(0))
    for options in ({"modes": "separate"}, {"modes": "paired", "dims": 3}):
        layer = structures.fit("tensor_train", w.bfloat16(), rank=99, **options)
        assert layer.cores[0].dtype == layer.dense().dtype == torch.bfloat16
        torch.testing.assert_close(layer.dense().detach().float(), w, atol=0.1, rtol=0.05)
        with torch.autocast("cpu", torch.bfloat16):
            exact = structures.fit("tensor_train", w, rank=99, **options)
            assert exact.conv1d(torch.randn(2, 12, 9), padding=1).shape == (2, 16, 9)
        torch.testing.assert_close(exact.dense().detach(), w, atol=1e-4, rtol=1e-4)
