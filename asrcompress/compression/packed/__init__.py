"""The packed file: what a compressed model is stored in, and whose size the tables print; see docs/packed.md.

`container.py` is the file, `coding.py` one tensor of it, `adapters.py` how its model is built again.
"""

from asrcompress.compression.packed.adapters import Build
from asrcompress.compression.packed.container import PackedError, is_packed, write
from asrcompress.compression.packed.reader import info, load
from asrcompress.compression.packed.writer import save

__all__ = ["Build", "PackedError", "info", "is_packed", "load", "save", "write"]
