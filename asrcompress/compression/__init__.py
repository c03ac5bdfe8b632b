"""Compression of any torch model along three axes: structure x quantization x coder.

    from asrcompress.compression import Plan, compress, load, save
    small, report = compress(model, "svd", size=0.25)
    save("model.packed", small); model = load("model.packed")
"""

from asrcompress.compression import packed, structures
from asrcompress.compression.api import compress, load, save
from asrcompress.compression.compress import LayerRecord
from asrcompress.compression.folding import fold
from asrcompress.compression.loading import save_model
from asrcompress.compression.modules import StructuredConv1d, StructuredLinear
from asrcompress.compression.plan import Plan
from asrcompress.compression.record import apply_config, record_config

__all__ = ["LayerRecord", "Plan", "StructuredConv1d", "StructuredLinear", "apply_config", "compress", "fold", "load",
           "packed", "record_config", "save", "save_model", "structures"]
