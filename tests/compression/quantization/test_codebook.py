"""Against scipy's k-means, brute force over all partitions, and torch's own scatter."""

import itertools

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from asrcompress.compression import quantization
from asrcompress.compression.packed.container import coding
from asrcompress.compression.quantization._kmeans import kmeans
from asrcompress.errors import UserError


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def error(numbers: np.ndarray, centroids: np.ndarray) -> float:
    return float((np.abs(numbers[:, None] - centroids).min(1) ** 2).sum())


@pytest.mark.parametrize("start", ["linear", "density"])
def test_lloyd_is_scipys_from_the_same_start(start: str) -> None:
    numbers = weight(400).double().numpy()
    first = (np.linspace(numbers.min(), numbers.max(), 8) if start == "linear" else
             np.quantile(numbers, (np.arange(8) + 0.5) / 8))
    theirs, _ = kmeans2(numbers, first, iter=200, minit="matrix")
    np.testing.assert_allclose(kmeans(numbers, 8, start, iterations=200), np.sort(theirs.ravel()), rtol=1e-6)


def test_random_starts_are_seeded() -> None:
    numbers = weight(500).double().numpy()
    one, same, other = (kmeans(numbers, 6, "random", seed=seed, iterations=3) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_exact_optimum_is_that_of_every_partition(count: int) -> None:
    numbers = np.sort(np.random.default_rng(count).normal(size=11) ** 3)
    best = min(sum(float(((part := numbers[a:b]) - part.mean()) @ (part - part.mean()))
                   for a, b in itertools.pairwise((0, *cuts, 11)))
               for cuts in itertools.combinations(range(1, 11), count - 1))
    assert error(numbers, kmeans(numbers, count, exact=True)) == pytest.approx(best, rel=1e-9)


def test_the_optimum_is_never_worse_than_lloyd() -> None:
    numbers = weight(3000).double().numpy() ** 3
    optimum = error(numbers, kmeans(numbers, 16, exact=True))
    for start in ("linear", "density", "random"):
        assert optimum <= error(numbers, kmeans(numbers, 16, start)) * (1 + 1e-9)


def test_the_gradient_of_a_centroid_is_the_sum_of_its_members() -> None:
    one = quantization.fit("codebook", weight(20, 30), entries=8)
    outer = weight(20, 30).flip(0)
    (one.tensor() * outer).sum().backward()
    expected = torch.zeros(8).index_add_(0, one.codes.flatten().long(), outer.flatten())
    torch.testing.assert_close(one.codebook.grad, expected)


def test_four_by_four_with_four_centroids_is_the_papers_rate() -> None:
    """Han et al.: 16 numbers of 32 bits become 16 codes of 2 bits and 4 centroids of 32: 512 / 160 = 3.2."""
    one = quantization.fit("codebook", weight(4, 4), entries=4)
    entry, _ = coding.encode(one, "raw", {})
    codes = next(part for part in entry["parts"] if part["key"] == "codes")
    codebook = next(part for part in entry["parts"] if part["key"] == "codebook")
    header = 9  # of the raw coder
    assert 4 * 16 / (codes["length"] - header + codebook["length"]) == pytest.approx(3.2)


def test_zeros_stay_zero_with_their_own_code() -> None:
    w = weight(20, 30) * (weight(20, 30).flip(1) > 0.5)
    one = quantization.fit("pruned_codebook", w, entries=4)
    assert torch.equal(one.tensor() == 0, w == 0) and len(one.codebook) == 4


def test_pruned_codebook_prunes_by_itself_when_asked() -> None:
    w = weight(40, 25)
    kept = quantization.fit("pruned_codebook", w, entries=8, density=0.1).tensor()
    assert torch.equal(kept != 0, quantization.fit("pruned", w, density=0.1).mask)


def test_deep_compression_keeps_the_pruned_zeros() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(30, 20))
    pruned = quantization.apply(model, "pruned", density=0.2)
    shared = quantization.apply(pruned, "pruned_codebook", entries=4)
    assert torch.equal(shared[0].weight != 0, pruned[0].weight != 0)
    assert len(torch.unique(shared[0].weight)) == 5


def test_few_different_numbers_are_kept_exactly() -> None:
    w = torch.tensor([[1.0, 2.0, 2.0], [1.0, -3.0, 1.0]])
    assert torch.equal(quantization.fit("codebook", w, entries=32).tensor(), w)


def test_impossible_options_are_user_errors() -> None:
    for options in ({"entries": 0}, {"start": "top"}, {"entries": 10**6, "start": "linear"}):
        with pytest.raises(UserError):
            quantization.fit("codebook", weight(300, 200), **options)
