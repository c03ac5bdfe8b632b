"""What every acoustic model has."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


class AcousticModel(nn.Module):
    """x (N, T, features), x_lens (N,) -> log_probs (N, T', vocab), lengths (N,).

    `config` is the plain dict that it was built from; T' is about T / `subsampling`.
    """

    config: dict[str, Any]
    subsampling: int

    def __call__(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        return super().__call__(x, x_lens)

    def batchnorm_pairs(self) -> Iterator[tuple[str, str]]:
        """Paths of every affine map that a BatchNorm directly follows, and of that BatchNorm."""
        yield from ()

    def semi_orthogonal(self) -> Iterator[nn.Conv1d]:
        """The linear maps that training keeps semi-orthogonal."""
        yield from ()
