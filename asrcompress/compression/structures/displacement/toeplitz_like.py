"""toeplitz_like: tiles of low displacement rank r, which contain Toeplitz matrices and their inverses (r <= 2).

A tile of b x b is M = sum_(i<=r) Z_1(g_i) Z_-1(h_i), where Z_f(v) is the f-circulant matrix with first column v, and
stores 2 b r parameters. With Z_f the down-shift with f in its upper right corner, and J the reversal,
    Z_1 M - M Z_-1 = 2 G (J H)^T         (Sylvester's displacement; hence M = 1/2 sum Z_1(g_i) Z_-1(J h_i) of G H^T)
so `dense` is one product of thin matrices and one running sum along diagonals. The fast product is two FFTs of b / 2
complex points per term; it pays for low ranks and few frames, and otherwise the rebuilt weight is multiplied.

Truncating the displacement of a trained weight makes it worse than zero, because undoing the displacement amplifies
the error. But the Fourier transform on the left and the odd-frequency one on the right turn M into K * (G' H'^T),
elementwise with a fixed Cauchy matrix K: each row of G' is a least squares problem of its own if H' is fixed, and the
other way around. `fit` alternates between the two from the truncated displacement.

Sindhwani, Sainath and Kumar, "Structured transforms for small-footprint deep learning", NeurIPS 2015; Pan, "Structured
matrices and polynomials", 2001.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import CannotShrink, dense_std, exact
from asrcompress.compression.structures.displacement._tiles import Tiled, float32_inside, rfft_macs, tile, untile
from asrcompress.compression.structures.fitting import in_range
from asrcompress.errors import UserError
from asrcompress.options import require

# Time on one CPU thread in multiply-adds of a large matrix product: of one in an FFT, of one of its products, of one
# call, and how many frames it takes to read a dense weight, and to rebuild one in training.
FFT, MIXTURE, CALL, READ, REBUILD = 8.0, 4.0, 1.2e7, 14, 150


@dataclass(frozen=True)
class ToeplitzLikeOptions:
    """Where no budget shares out a size, `rank` says how much is kept."""

    rank: int | None = None  # the displacement rank of every tile
    block: int | None = None  # side of the tiles, an even number; None: that of the shorter side where it can be
    sweeps: int = 4  # of alternating least squares after the displacement's truncated SVD

    def __post_init__(self) -> None:
        require(self.rank is None or self.rank >= 1, f"toeplitz_like: rank is {self.rank}; it is at least 1")
        require(self.block is None or (self.block >= 2 and self.block % 2 == 0),
                f"toeplitz_like: block is {self.block}; it is an even number of at least 2")
        require(self.sweeps >= 0, f"toeplitz_like: sweeps is {self.sweeps}; it is at least 0")


def displacement(matrix: Tensor) -> Tensor:
    """Z_1 M - M Z_-1, (..., b, b)."""
    return matrix.roll(1, -2) - torch.cat((matrix[..., 1:], -matrix[..., :1]), -1)


def undo_displacement(moved: Tensor) -> Tensor:
    """The matrix M with this displacement: along a wrapped diagonal it falls by the displacement's entries."""
    falls = _diagonals(moved.transpose(-1, -2))
    run = falls.cumsum(-2)
    return _diagonals((run[..., -1:, :] / 2 - run + falls).flip(-2)).flip(-2).transpose(-1, -2)


def _diagonals(matrix: Tensor) -> Tensor:
    """(..., b, b) -> D with D[j, a] = matrix[j, (a + j + 1) mod b], by padding rows so that they slip by one."""
    b = matrix.shape[-1]
    twice = functional.pad(torch.cat((matrix, matrix), -1).flatten(-2), (0, b))
    return twice.unflatten(-1, (b, 2 * b + 1))[..., 1 : b + 1]


def odd_fft(x: Tensor) -> Tensor:
    """(..., b) real -> (..., b / 2): sum_j x_j exp(-pi i j (2 l + 1) / b) for even l; odd l are their conjugates.

    It turns a product with Z_-1(v) into one of scalars, as the FFT does with Z_1(v).
    """
    half = x.shape[-1] // 2
    return torch.fft.fft(torch.complex(x[..., :half], -x[..., half:]) * _twist(half, x))


def odd_ifft(x: Tensor) -> Tensor:
    """The inverse of `odd_fft`: (..., b / 2) -> (..., b) real."""
    y = torch.fft.ifft(x) * _twist(x.shape[-1], x.real).conj()
    return torch.cat((y.real, -y.imag), -1)


def _twist(half: int, like: Tensor) -> Tensor:
    angle = torch.arange(half, dtype=torch.float64, device=like.device) * (-math.pi / (2 * half))
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex(like.new_empty(0), like.new_empty(0)).dtype)


def cauchy(b: int, like: Tensor) -> Tensor:
    """K (b, b): entry (k, l) is 2 / b / (1 - exp(-2 pi i (k - l - 1/2) / b)), large near the diagonal alone."""
    k = torch.arange(b, dtype=torch.float64, device=like.device)
    angle = (k[:, None] - k - 0.5) * (-2 * math.pi / b)
    return (2 / b / (1 - torch.polar(torch.ones_like(angle), angle))).to(like.dtype)


def displacement_svd(tiles: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """G, H (..., rank, b) of the truncated displacement: exact up to a displacement rank of `rank`, a start above."""
    u, s, vh = torch.linalg.svd(displacement(tiles) / 2)
    root = s[..., :rank].sqrt()
    return u[..., :rank].transpose(-1, -2) * root[..., None], (vh[..., :rank, :] * root[..., None]).flip(-1)


def least_squares(tiles: Tensor, g: Tensor, h: Tensor, sweeps: int) -> tuple[Tensor, Tensor]:
    """Improve G, H (tiles, rank, b) by turns, each the best for the other: tiles (tiles, b, b), float32 or float64."""
    b = tiles.shape[-1]
    turn = _twist(b // 2, tiles)
    turn = torch.cat((turn, -1j * turn))  # exp(-pi i j / b)
    target = torch.fft.ifft(torch.fft.fft(tiles, dim=-2) * turn.conj())
    kernel = cauchy(b, target)
    weights, target = kernel.abs().square(), kernel.conj() * target
    for _ in range(sweeps):
        even = slice(0, b // 2 + 1)
        odd = torch.fft.fft(h * turn).transpose(-1, -2)
        g = torch.fft.irfft(_solve_rows(weights[even], target[:, even], odd).transpose(-1, -2), b)
        whole = torch.fft.fft(g).transpose(-1, -2)
        h = odd_ifft(_solve_rows(weights.T[::2], target.transpose(1, 2)[:, ::2], whole).transpose(-1, -2))
    balance = (h.norm() / g.norm().clamp_min(1e-30)).sqrt()
    return g * balance, h / balance.clamp_min(1e-30)


def _solve_rows(weights: Tensor, target: Tensor, factor: Tensor) -> Tensor:
    """Row by row, x with the least |K_k * (x factor^T) - A_k|: weights |K|^2 (rows, b), target conj(K) * A
    (tiles, rows, b), factor (tiles, b, rank) -> (tiles, rows, rank). Rows come in chunks of a bounded memory."""
    rank = factor.shape[2]
    right = target @ factor.conj()
    rows = max(1, 2**22 // (len(target) * rank * rank))
    return torch.cat([torch.linalg.solve(_normal(part, factor), side)
                      for part, side in zip(weights.split(rows), right.split(rows, 1), strict=True)], 1)


def _normal(weights: Tensor, factor: Tensor) -> Tensor:
    """The normal equations of some rows, (tiles, rows, rank, rank), with a ridge of rounding size."""
    columns = [torch.view_as_real(factor[:, :, i, None].conj() * factor).flatten(2) for i in range(factor.shape[2])]
    matrix = torch.stack([torch.view_as_complex((weights @ c).unflatten(2, (-1, 2))) for c in columns], 2)
    power = matrix.diagonal(dim1=-2, dim2=-1).real.mean((-1, -2), keepdim=True)[..., None]
    ridge = (10 * torch.finfo(weights.dtype).eps * power).clamp_min(1e-30)
    return matrix + ridge * torch.eye(factor.shape[2], dtype=matrix.dtype, device=matrix.device)


def default_block(shape: Sequence[int], size: float | None) -> int:
    """The shorter side, or where that cannot reach the size the longer one; the transforms want an even number."""
    blocks = [side + side % 2 for side in sorted(shape[:2])]
    return next((b for b in blocks if _cost(shape, b) <= (size or math.inf) * math.prod(shape) + 1e-9), blocks[1])


def _cost(shape: Sequence[int], block: int) -> int:
    """The parameters of one rank."""
    out, inputs, taps = (*shape, 1)[:3]
    return -(-out // block) * -(-inputs // block) * taps * 2 * block


def rank_and_block(shape: Sequence[int], size: float | None, rank: int | None, block: int | None) -> tuple[int, int]:
    """The rank that is given, or the largest within `size`, and the block.

    Errors: CannotShrink; UserError unless exactly one of size and rank is given, and where they do not suit the shape.
    """
    if (size is None) == (rank is None):
        raise UserError("structure toeplitz_like needs exactly one of size and rank "
                        "(with a budget that shares out a size, leave rank away)")
    block = default_block(shape, size) if block is None else block
    if block < 2 or block % 2 or block > max(shape[:2]) + 1:
        raise UserError(f"toeplitz_like: block is an even number from 2 to the longer side, not {block}")
    r = min(int((size or 0) * math.prod(shape) / _cost(shape, block) + 1e-9), block) if rank is None else rank
    if r < 1 and rank is None:
        raise CannotShrink(f"structure toeplitz_like of a weight {tuple(shape)} cannot reach size {size:g}; the "
                           f"smallest is {_cost(shape, block) / math.prod(shape):.2g}, at rank 1 in blocks of {block}")
    if not 1 <= r <= block:
        raise UserError(f"toeplitz_like: blocks of {block} have ranks from 1 to {block}, not {r}")
    return r, block


class ToeplitzLike(Tiled):
    """W = tiles of sum_i Z_1(g_i) Z_-1(h_i); `g` and `h` are (rows, taps x columns of tiles, rank, block)."""

    name = "toeplitz_like"
    Options = ToeplitzLikeOptions

    def __init__(self, shape: Sequence[int], rank: int, block: int) -> None:
        rank_and_block(shape, None, rank, block)
        super().__init__(shape, block, block)
        self.rank, self.block = rank, block
        self.g, self.h = (nn.Parameter(torch.zeros(self.rows, self.taps * self.columns, rank, block)) for _ in "gh")

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: ToeplitzLikeOptions, size: float | None = None,
            seed: int = 0) -> "ToeplitzLike":
        """Alternating least squares from the truncated displacement, or that alone (`sweeps` 0, or where it is exact).

        Errors: those of `rank_and_block`.
        """
        layer = cls(weight.shape, *rank_and_block(weight.shape, size, options.rank, options.block)).to(weight)
        target, power = in_range(weight)
        tiles = tile(target, layer.block, layer.block).flatten(0, 1)
        start = displacement_svd(tiles, layer.rank)
        found = [start, least_squares(tiles, *start, options.sweeps)] if options.sweeps else [start]
        g, h = min(found, key=lambda pair: float((generated(*pair) - tiles).norm()))
        for parameter, vectors in ((layer.g, g), (layer.h, h)):
            parameter.copy_(vectors.view(parameter.shape) * math.sqrt(power))
        return layer

    @classmethod
    @torch.no_grad()
    def init(cls, shape: Sequence[int], options: ToeplitzLikeOptions, size: float | None = None,
             seed: int = 0) -> "ToeplitzLike":
        """Normal generators; an entry of the weight is a sum of block x rank of their products. Errors: as `fit`."""
        layer = cls(shape, *rank_and_block(shape, size, options.rank, options.block))
        generator = torch.Generator().manual_seed(seed)
        for vectors in (layer.g, layer.h):
            vectors.normal_(0, (dense_std(shape) ** 2 / (layer.block * layer.rank)) ** 0.25, generator=generator)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: ToeplitzLikeOptions) -> int:
        blocks = [options.block] if options.block else [side + side % 2 for side in shape[:2]]
        return min(_cost(shape, block) for block in blocks) * (options.rank or 1)

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "rank": self.rank, "block": self.block}

    def dense(self) -> Tensor:
        return untile(generated(self.g, self.h), self.shape)

    def fast(self, frames: int) -> bool:
        dense = math.prod(self.shape) * (frames + READ)
        if torch.is_grad_enabled() and self.g.requires_grad:
            dense += math.prod(self.shape) * (self.rank + REBUILD)
        transform, mixture = self._transform_and_mixture()
        return frames * (FFT * transform + MIXTURE * mixture) + CALL < dense

    def _transform_and_mixture(self, stride: int = 1) -> tuple[int, int]:
        """Multiply-adds per frame of output: of the transforms, and of the products between them."""
        terms = self.g.numel() // self.block
        transforms = stride * self.columns + 2 * terms + self.rows
        return transforms * rfft_macs(self.block), 4 * (self.block + 1) * terms

    def macs(self, frames: int, stride: int = 1) -> int:
        """At inference, by the way that is faster for so many frames in one call; FFTs count as for circulant."""
        with torch.no_grad():
            fast = self.fast(frames)
        return frames * (sum(self._transform_and_mixture(stride)) if fast else math.prod(self.shape))

    def product(self, x: Tensor, stride: int, dilation: int) -> Tensor:
        with float32_inside(x):
            spectrum = odd_fft(self.columns_of(exact(x)))
            spectrum = self.under_taps(spectrum, 1, stride, dilation)
            g, h = self.kept(self._spectra_of_generators, (self.g, self.h))
            inner = torch.fft.rfft(odd_ifft(spectrum[:, :, None, :, None] * h))  # (N, T, rows, columns, rank, ...)
            y = torch.fft.irfft((inner * g).sum((3, 4)), self.block)
        return y.flatten(2)[..., : self.shape[0]].to(x.dtype)

    def _spectra_of_generators(self) -> tuple[Tensor, Tensor]:
        return torch.fft.rfft(exact(self.g)), odd_fft(exact(self.h))


def generated(g: Tensor, h: Tensor) -> Tensor:
    """sum_i Z_1(g_i) Z_-1(h_i): (..., rank, b) twice -> (..., b, b)."""
    with float32_inside(g):
        moved = 2 * exact(h).flip(-1).transpose(-1, -2) @ exact(g)  # transposed, as it is taken apart next
        return undo_displacement(moved.transpose(-1, -2)).to(g.dtype)
