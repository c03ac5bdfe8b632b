"""Tiles whose entries depend on (row - column) mod n alone: circulant ones with n = height = width, and Toeplitz ones
with n = height + width - 1, which are corners of circulant ones. Their product is a cyclic convolution.

Up to `POINTS` long it is evaluated by three matrix products: the input at `points` real points, which are the discrete
Fourier transform with each complex product in three real ones; per point one product over the grid of tiles; and back.
Longer ones go through the FFT. A weight for which neither pays is rebuilt and multiplied.
Winograd, "Arithmetic complexity of computations", 1980; Ding et al., "CirCNN", MICRO 2017.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import CannotShrink, dense_std, exact
from asrcompress.compression.structures.displacement._tiles import Tiled, float32_inside, rfft_macs, tile, untile
from asrcompress.errors import UserError
from asrcompress.options import require

POINTS = 32  # the longest convolution by matrix products; measured on one thread of a CPU, as are the costs below
TRANSFORM, MIXTURE, FFT = 3.0, 1.5, 8.0  # time of a multiply-add in each, relative to one in a large matrix product
COLUMNS, PER_FREQUENCY, IN_CACHE = 8, 3072, 2**19  # how the FFT's products are made, see `mix`


def cyclic_tiles(diagonals: Tensor, height: int, width: int) -> Tensor:
    """(..., n) -> (..., height, width), entry (i, j) being value (i - j) mod n of the diagonals."""
    n = diagonals.shape[-1]
    windows = torch.cat((diagonals, diagonals), -1).flip(-1).unfold(-1, width, 1)
    return windows[..., n - height : n, :].flip(-2)


def diagonal_sums(tiles: Tensor, n: int) -> Tensor:
    """(..., height, width) -> (..., n), the sum of each wrapped diagonal: the adjoint of `cyclic_tiles`."""
    height, width = tiles.shape[-2:]
    index = (torch.arange(height)[:, None] - torch.arange(width)).remainder(n).flatten().to(tiles.device)
    return tiles.new_zeros(*tiles.shape[:-2], n).index_add(-1, index, tiles.flatten(-2))


@lru_cache(maxsize=64)
def transforms(n: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Matrices to the real points and back: analysis (points, width), kernel (points, n), synthesis (points, height).

    With * per point, synthesis^T ((kernel c) * (analysis x)) are the first `height` values of the cyclic convolution
    of c (n,) and x (width,). A pair of conjugate frequencies takes three points, a real frequency one.
    """
    with torch.inference_mode(False), torch.no_grad():
        step = torch.arange(n, dtype=torch.float64, device=device) * (2 * math.pi / n)
        pairs = torch.arange(1, (n + 1) // 2, dtype=torch.float64, device=device)[:, None]
        real, imaginary = torch.cos(pairs * step), -torch.sin(pairs * step)
        alone = torch.ones(1 + (n % 2 == 0), n, dtype=torch.float64, device=device)  # at frequency 0, and at n / 2
        alone[1:, 1::2] = -1
        analysis = torch.cat((alone, real + imaginary, real, imaginary))[:, :width]
        kernel = torch.cat((alone, real, imaginary - real, real + imaginary))
        synthesis = torch.cat((alone, 2 * (real + imaginary), 2 * imaginary, -2 * real))[:, :height] / n
        return tuple(matrix.to(dtype).contiguous() for matrix in (analysis, kernel, synthesis))


def block_for(name: str, shape: Sequence[int], size: float | None, block: int | None,
              count: Callable[[Sequence[int], int], int]) -> int:
    """The block size that is given, or the one that stores most parameters, count(shape, block), within `size`.

    Longer blocks than `POINTS` have lengths that suit the FFT. Errors: CannotShrink; UserError unless exactly one of
    size and block is given, and for a block longer than the weight.
    """
    if (size is None) == (block is None):
        raise UserError(f"structure {name} needs exactly one of size and block "
                        "(with a budget that shares out a size, leave block away)")
    longest, total = max(shape[:2]), math.prod(shape)
    if block is not None:
        require(1 <= block <= longest, f"{name}: a weight {tuple(shape)} has blocks of 1 to {longest}, not {block}")
        return block
    counts = {b: count(shape, b) for b in range(1, longest + 1) if b in (next_fast_len(b, real=True), longest)}
    fitting = [b for b, stored in counts.items() if stored <= (size or 0) * total + 1e-9]
    if not fitting:
        fewest = min(counts, key=lambda b: counts[b])
        raise CannotShrink(f"structure {name} of a weight {tuple(shape)} cannot reach size {size:g}; the smallest is "
                           f"{counts[fewest] / total:.2g}, with blocks of {fewest}")
    return max(fitting, key=lambda b: (counts[b], -b))


def points(n: int) -> int:
    """Real products of a cyclic convolution of length n: 3 n / 2 - 1 for an even n."""
    return 1 + (n % 2 == 0) + 3 * ((n - 1) // 2)


class Cyclic(Tiled):
    """A grid of cyclic tiles, `diagonals` (rows, taps x columns, n), and the signs by which the input is flipped."""

    signs: Tensor | None

    def __init__(self, shape: Sequence[int], height: int, width: int, n: int) -> None:
        super().__init__(shape, height, width)
        self.n, self.length = n, n  # `length` is that of the transforms
        if n > POINTS and n > max(height, width):
            self.length = next_fast_len(n, real=True)  # zeros between the last row's and the last column's
        self.diagonals = nn.Parameter(torch.zeros(self.rows, self.taps * self.columns, n))
        self.register_buffer("signs", None, persistent=False)

    @torch.no_grad()
    def start(self, seed: int) -> "Cyclic":
        """Become random, with the variance of a dense layer's start."""
        self.diagonals.normal_(0, dense_std(self.shape), generator=torch.Generator().manual_seed(seed))
        return self

    @torch.no_grad()
    def project(self, weight: Tensor) -> "Cyclic":
        """Become the nearest member in the Frobenius norm: the means of the wrapped diagonals of each tile."""
        self.to(weight)
        flipped = exact(weight)
        inside = torch.ones_like(flipped)
        if self.signs is not None:
            flipped = flipped * self._signs_like(flipped)
        sums, counts = (diagonal_sums(tile(w, self.height, self.width), self.n) for w in (flipped, inside))
        self.diagonals.copy_(sums / counts.clamp_min(1))
        return self

    def _signs_like(self, weight: Tensor) -> Tensor:
        assert self.signs is not None
        return self.signs.to(weight.dtype).view(1, -1, *[1] * (weight.dim() - 2))

    def dense(self) -> Tensor:
        weight = untile(cyclic_tiles(self.diagonals, self.height, self.width), self.shape)
        return weight if self.signs is None else weight * self._signs_like(weight)

    def fast(self, frames: int) -> bool:
        transform, mixture = self._transform_and_mixture()
        if self.length <= POINTS:
            return TRANSFORM * transform + MIXTURE * mixture < math.prod(self.shape)
        return FFT * transform + MIXTURE * mixture < math.prod(self.shape)

    def _transform_and_mixture(self, stride: int = 1) -> tuple[int, int]:
        """Multiply-adds per frame of output: of the transforms, and of the products between them."""
        tiles = self.rows * self.columns * self.taps
        if self.length <= POINTS:
            m = points(self.length)
            return m * (stride * self.columns * self.width + self.rows * self.height), m * tiles
        return rfft_macs(self.length) * (stride * self.columns + self.rows), 4 * (self.length // 2 + 1) * tiles

    def macs(self, frames: int, stride: int = 1) -> int:
        """A real FFT of n points counts as 1.25 n log2 n multiply-adds, a complex product as 4."""
        return frames * (sum(self._transform_and_mixture(stride)) if self.fast(frames) else math.prod(self.shape))

    def product(self, x: Tensor, stride: int, dilation: int) -> Tensor:
        x = self.columns_of(x if self.signs is None else x * self.signs.to(x.dtype))
        by = self._by_points if self.length <= POINTS else self._by_fft
        y = by(x, stride, dilation)
        return y if y.shape[2] == self.shape[0] else y[..., : self.shape[0]]

    def _by_points(self, x: Tensor, stride: int, dilation: int) -> Tensor:
        analysis, _, synthesis = transforms(self.length, self.height, self.width, x.dtype, x.device)
        at = (analysis @ x.flatten(0, 2).T).view(-1, *x.shape[:3])  # (points, N, T, columns)
        at = self.under_taps(at, 2, stride, dilation)
        mixed = torch.bmm(at.flatten(1, 2), self.kept(self._kernel, (self.diagonals,)).to(x.dtype).transpose(1, 2))
        return (mixed.flatten(1).T @ synthesis).view(*at.shape[1:3], -1)

    def _kernel(self) -> Tensor:
        """(points, rows, taps x columns), in float32 at least."""
        diagonals = exact(self.diagonals)
        kernel = transforms(self.n, self.height, self.width, diagonals.dtype, diagonals.device)[1]
        with float32_inside(diagonals):
            return (kernel @ diagonals.flatten(0, 1).T).view(-1, *diagonals.shape[:2])

    def _by_fft(self, x: Tensor, stride: int, dilation: int) -> Tensor:
        with float32_inside(x):
            spectrum = torch.fft.rfft(exact(x), self.length)  # (N, T, columns, frequencies)
            spectrum = self.under_taps(spectrum, 1, stride, dilation)
            y = torch.fft.irfft(mix(spectrum.flatten(0, 1), self.kept(self._spectrum, (self.diagonals,))), self.length)
        y = y if self.length == self.height else y[..., : self.height]
        return y.reshape(*spectrum.shape[:2], -1).to(x.dtype)

    def _spectrum(self) -> Tensor:
        """(rows, taps x columns, frequencies), complex."""
        diagonals = exact(self.diagonals)
        if self.length > self.n:
            below, above = diagonals.split((self.height, self.n - self.height), -1)
            diagonals = torch.cat((functional.pad(below, (0, self.length - self.n)), above), -1)
        spectrum = torch.fft.rfft(diagonals)
        if spectrum.shape[1] <= COLUMNS:
            return spectrum
        return spectrum.permute(2, 1, 0).contiguous().permute(2, 1, 0)  # as `mix` multiplies it


def mix(x: Tensor, kernel: Tensor) -> Tensor:
    """(frames, columns, frequencies) x (rows, columns, frequencies) -> (frames, rows, frequencies), complex.

    A matrix product per frequency has to bring the frequencies to the front, which few products of each do not pay
    back; nor do few columns, whose products are summed at once while they fit into the cache, one by one otherwise.
    """
    rows, columns, frequencies = kernel.shape
    if columns == 1:
        return x * kernel.squeeze(1)
    products = len(x) * rows * columns  # of each frequency
    if columns > COLUMNS and products > PER_FREQUENCY:
        return torch.bmm(x.permute(2, 0, 1), kernel.permute(2, 1, 0)).permute(1, 2, 0)
    if columns > COLUMNS or products * frequencies <= IN_CACHE:
        return (x.unsqueeze(1) * kernel).sum(2)
    y = x[:, 0, None] * kernel[:, 0]
    for column in range(1, columns):
        y = torch.addcmul(y, x[:, column, None], kernel[:, column])
    return y
