"""semi_orthogonal: svd whose second factor stays semi-orthogonal while it is trained, the factor of TDNN-F.

W = left x right with right right^T = s^2 I: only `left` has to learn scales, and the bottleneck passes on undistorted
what it keeps. Training restores the constraint every few steps by `constrain`, with the floating scale of Kaldi's
recipes (`orthonormal-constraint=-1`).

Povey et al., "Semi-orthogonal low-rank matrix factorization for deep neural networks", Interspeech 2018.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asrcompress.compression.structures.base import dense_std, exact
from asrcompress.compression.structures.low_rank.svd import Svd, SvdOptions


@torch.no_grad()
def constrain(weight: Tensor) -> None:
    """One step of M <- M - 4 nu (P / s^2 - I) M, in place, P = M M^T, for weight (out, in) or (out, in, taps).

    s^2 = tr(P P^T) / tr(P) follows the scale that M has; nu = 1/8 is lowered while M is far from semi-orthogonal. The
    rows are made orthogonal; where there are more rows than columns, the columns.
    """
    matrix = weight.flatten(1)
    m = exact(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)
    p = m @ m.T
    trace, square = p.trace(), p.square().sum()
    if trace < 1e-15:
        return
    scale = square / trace
    spread = square * len(p) / trace.square()
    nu = 0.125 * (0.25 if spread > 1.1 else 0.5 if spread > 1.02 else 1.0)
    new = m - 4 * nu * (p / scale - torch.eye(len(p), device=p.device, dtype=p.dtype)) @ m
    weight.copy_((new if matrix.shape[0] <= matrix.shape[1] else new.T).reshape(weight.shape))


def orthonormal_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """matrix (r, n), r <= n, as mix (r, r) x rows (r, n) with rows rows^T = I: a QR decomposition, transposed."""
    q, r = torch.linalg.qr(exact(matrix).T)
    return r.T, q.T


@dataclass(frozen=True)
class SemiOrthogonalOptions(SvdOptions):
    """Those of `svd`."""


class SemiOrthogonal(Svd):
    """`svd` with orthonormal rows in `right` at first; its training calls `constrain(layer.right)`."""

    name = "semi_orthogonal"
    Options = SemiOrthogonalOptions

    @classmethod
    def _from_factors(cls, weight: Tensor, unfolding: str, left: Tensor, right: Tensor) -> Svd:
        mix, rows = orthonormal_rows(right)
        return super()._from_factors(weight, unfolding, exact(left) @ mix, rows)

    @classmethod
    def init(cls, shape: Sequence[int], options: SvdOptions, size: float | None = None, seed: int = 0) -> Svd:
        """Random orthonormal rows; `left` such that the product has the variance of a dense start. Errors: as `svd`."""
        layer = super().init(shape, options, size, seed)
        with torch.no_grad():
            _, rows = orthonormal_rows(layer.right.flatten(1))
            layer.right.copy_(rows.reshape(layer.right.shape))
            spread = dense_std(shape) * math.sqrt(rows.shape[1] / layer.rank)  # an entry of right has variance 1 / n
            layer.left.mul_(spread / layer.left.square().mean().sqrt())
        return layer
