"""What every acoustic model has."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn


class AcousticModel(nn.Module):
    """x (N, T, features), x_lens (N,) -> log_probs (N, T', vocab), lengths (N,).

    Features are log-mel energies of 100 frames a second, lengths are counts of frames, log_probs a log-softmax with the
    blank at 0; T' is about T / `subsampling`. An utterance of no frames has no frames of output. A family is one file
    of this folder: a subclass whose `name` is the file's and whose `Options` are the dataclass of its config.
    """

    name: ClassVar[str] = ""
    Options: ClassVar[type]
    config: dict[str, Any]  # that the model was built from
    subsampling: int
    with_intermediate = False  # whether the next call leaves the outputs of its middle, where the family has any
    intermediate: Tensor | None = None  # log_probs (N, T', vocab)

    def __init__(self, config: Mapping[str, Any], options: Any) -> None:
        super().__init__()
        self.config = dict(config)

    def __call__(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        return super().__call__(x, x_lens)

    def batchnorm_pairs(self) -> Iterator[tuple[str, str]]:
        """Paths of every affine map that a BatchNorm directly follows, and of that BatchNorm."""
        yield from ()

    def layernorm_pairs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Paths of every LayerNorm with gain and bias that linear maps alone read, and of those maps."""
        yield from ()

    def channel_pairs(self) -> Iterator[tuple[str, str]]:
        """Paths of two linear maps of which the second alone reads the outputs of the first, channel by channel.

        What lies between keeps a positive factor of a channel: ReLU, weighted means over time.
        """
        yield from ()

    def semi_orthogonal(self) -> Iterator[nn.Conv1d]:
        """The linear maps that training keeps semi-orthogonal."""
        yield from ()
