"""The packed file: what a compressed model is stored in. `container.py` is the file, `coding.py` one tensor of it."""

from asrcompress.compression.packed.container import Build, PackedError, info, is_packed, load, save, write

__all__ = ["Build", "PackedError", "info", "is_packed", "load", "save", "write"]
