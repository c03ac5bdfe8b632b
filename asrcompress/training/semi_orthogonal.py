"""The semi-orthogonal constraint of TDNN-F.

Povey et al., "Semi-orthogonal low-rank matrix factorization for deep neural networks", Interspeech 2018, with the
floating scale of Kaldi's recipes (`orthonormal-constraint=-1`).
"""

import torch
from torch import Tensor


@torch.no_grad()
def constrain(weight: Tensor) -> None:
    """One step of M <- M - 4 nu (P / s^2 - I) M, in place, P = M M^T, for weight (out, in) or (out, in, taps).

    s^2 = tr(P P^T) / tr(P) follows the scale that M has; nu = 1/8 is lowered while M is far from semi-orthogonal. The
    rows are made orthogonal; where there are more rows than columns, the columns.
    """
    matrix = weight.reshape(weight.shape[0], -1)
    m = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    p = m @ m.T
    trace, square = p.trace(), p.square().sum()
    if trace < 1e-15:
        return
    scale = square / trace
    spread = square * len(p) / trace.square()
    nu = 0.125 * (0.25 if spread > 1.1 else 0.5 if spread > 1.02 else 1.0)
    update = 4 * nu * (p / scale - torch.eye(len(p), device=p.device, dtype=p.dtype)) @ m
    m -= update  # a view of the weight, so this writes the weight itself
