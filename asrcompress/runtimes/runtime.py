"""A device file in onnxruntime, callable as the torch model is: its posteriors go to the same archives and searches."""

from pathlib import Path

import torch
from torch import Tensor

from asrcompress.files import require_file
from asrcompress.runtimes.session import acoustic_model


class OnnxModel:
    """x (N, T, 80), x_lens (N,) -> log_probs (N, T', vocab), lengths (N,), without the file's acoustic scale."""

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        self._session = acoustic_model(require_file(path, "the ONNX file"), threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.subsampling = int(metadata["subsampling_factor"])
        self.config = {"vocab": int(self._session.get_outputs()[0].shape[2])}
        self.batch1 = self._session.get_inputs()[0].shape[0] == 1
        self._scale = float(metadata.get("acoustic_scale", 1))

    def __call__(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, lens = self._session.run(None, {"x": x.numpy(), "x_lens": x_lens.numpy()})
        return torch.from_numpy(log_probs) / self._scale, torch.from_numpy(lens)
