"""The convolution and batch normalization of our models, laid out for speed (see `asrcompress.convolution`)."""

from torch import Tensor, nn

from asrcompress.convolution import conv1d


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` (zero padding, one group), computed by `conv1d`."""

    def forward(self, input: Tensor) -> Tensor:
        return conv1d(input, self.weight, self.bias, self.stride[0], int(self.padding[0]), self.dilation[0])


class BatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over (N, C, T), in channels-last memory."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.unsqueeze(2)).squeeze(2)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 4:
            raise ValueError(f"expected (N, C, T), got {input.dim() - 1} dimensions")
