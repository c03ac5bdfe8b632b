"""Compression of any torch model along three axes: structure x values x bits.

    from asrcompress.compression import Plan, compress, packed
    small, report = compress(model, Plan(structure="svd", size=0.25))
    packed.save("model.packed", small); model = packed.load("model.packed")
"""

from asrcompress.compression import packed, structures
from asrcompress.compression.compress import LayerRecord, compress
from asrcompress.compression.folding import fold
from asrcompress.compression.loading import load
from asrcompress.compression.modules import StructuredConv1d, StructuredLinear, restore
from asrcompress.compression.plan import Plan

__all__ = ["LayerRecord", "Plan", "StructuredConv1d", "StructuredLinear", "compress", "fold", "load", "packed",
           "restore", "structures"]
