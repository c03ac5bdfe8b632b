"""Truncation for the inputs that a layer really gets, where their second moments C = E[x x^T] are known.

A changed weight moves the outputs by E|(W - W') x|^2 = |(W - W') C^(1/2)|_F^2, so that the best W' of rank r comes from
the singular value decomposition of W C^(1/2). Its left singular vectors U are the eigenvectors of the outputs' moments
W C W^T, its squared singular values their eigenvalues, and the best W' is U_r U_r^T W: no root, and no inverse.
With C = I this is the plain decomposition.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from asrcompress.errors import UserError


def ridged(moments: Tensor, ridge: float) -> Tensor:
    """C + ridge x mean(diag C) I: inputs that calibration happened not to show still count a little."""
    moments = moments.double()
    return moments + ridge * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.float64).to(moments)


def frame_moments(moments: Tensor, taps: int) -> Tensor:
    """(in x taps)^2 -> (in)^2: those of one frame, the mean over the taps."""
    inputs = len(moments) // taps
    return moments.view(inputs, taps, inputs, taps).diagonal(dim1=1, dim2=3).mean(-1)


def principal_outputs(matrix: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors (m, min(m, n)) and eigenvalues, falling, of the outputs' moments W C W^T; float64."""
    q, r = torch.linalg.qr(matrix.double())  # so that the smaller side decides the cost
    squares, vectors = torch.linalg.eigh(r @ moments.to(r) @ r.T)
    return q @ vectors.flip(1), squares.flip(0).clamp_min(0)


def regress(weight: Tensor, projection: Tensor, moments: Tensor) -> Tensor:
    """The kernel (out, r, taps) whose outputs from the projected frames, (r, in), are nearest to those of `weight`.

    Least squares with z = the projections of all taps: L = W C Z^T (Z C Z^T)^+.
    """
    out, _, taps = weight.shape
    z = torch.kron(projection.double(), torch.eye(taps, dtype=torch.float64, device=projection.device))
    across = moments.to(z) @ z.T
    return (weight.flatten(1).double() @ across @ torch.linalg.pinv(z @ across, hermitian=True)).view(out, -1, taps)


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, every column of `left` with the norm of its row of `right`, so that gradients are alike."""
    ratio = (left.norm(dim=0).clamp_min(1e-20) / right.norm(dim=1).clamp_min(1e-20)).sqrt()
    return left / ratio, right * ratio[:, None]


def checked_moments(data_aware: bool, moments: Tensor | None, ridge: float, shape: Sequence[int]) -> Tensor | None:
    """The ridged moments (in x taps)^2 to truncate for, None where the inputs do not matter.

    Errors: UserError where they are missing, or of another shape.
    """
    if not data_aware:
        return None
    if not isinstance(moments, Tensor):
        raise UserError("data_aware needs calibration data: give asrcompress compress --calibrate DATA, or "
                        "compress(..., calibration=calibration.collect(model, batches))")
    inputs = torch.Size(shape[1:]).numel()
    if moments.shape != (inputs, inputs):
        raise UserError(f"data_aware: the moments of {inputs} inputs are a square of that side, not "
                        f"{tuple(moments.shape)}")
    return ridged(moments, ridge)
