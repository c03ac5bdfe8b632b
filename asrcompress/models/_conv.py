"""The convolution and batch normalization of our models, laid out for speed (see `asrcompress.convolution`)."""

from torch import Tensor, nn

from asrcompress.convolution import Conv1d, conv1d

__all__ = ["BatchNorm1d", "Conv1d", "conv1d"]


class BatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over (N, C, T), in channels-last memory."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.unsqueeze(2)).squeeze(2)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 4:
            raise ValueError(f"expected (N, C, T), got {input.dim() - 1} dimensions")
