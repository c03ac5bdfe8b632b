"""How the hand-made graph of an acoustic model is written: the options of every family."""

from dataclasses import dataclass

from asrcompress.options import require
from asrcompress.runtimes.onnx_graph.quantized import Ranges

FLOAT = ("float32", "float16")
PRECISIONS = (*FLOAT, "int8-dynamic", "int8-static", "int4", "codebook")


@dataclass(frozen=True)
class Options:
    """How a model is written. Errors: UserError for a value out of its range, and for options that exclude each other.

    batch1: one utterance a call, so nothing masks padding. keep_small: hashed and tied weights are made at load.

    precision: one of `PRECISIONS`; products of float16 and codebook weights are float32. acoustic_scale: a factor on
    log_probs, since the search of sherpa-onnx has no acoustic scale of its own. keep_float: products (globs, or layers)
    that are not quantized but float16. ranges: of the inputs of products, for int8-static. entries: of a codebook.
    reduce_range: int8 weights use 7 of their 8 bits, for processors that would add neighbours in 16 bits and saturate.
    max_seconds: the longest utterance that the file is made for; the family's own limit for None.
    """

    batch1: bool = False
    keep_small: bool = False
    precision: str = "float32"
    acoustic_scale: float = 1.0
    keep_float: tuple[str, ...] = ()
    ranges: Ranges | None = None
    entries: int = 256
    reduce_range: bool = False
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        require(self.precision in PRECISIONS, f"export: precision is one of {', '.join(PRECISIONS)}, not "
                f"'{self.precision}'")
        require(self.acoustic_scale > 0, "export: the acoustic scale and the beam are above 0")
        require(2 <= self.entries <= 256, f"a codebook of the device has 2 to 256 entries, not {self.entries}")
        require(self.entries == Options.entries or self.precision == "codebook",
                f"export: entries are those of the precision codebook, not of {self.precision}")
        require(not (self.keep_small and self.precision in ("int4", "codebook")), "weights that are made again at "
                f"load cannot be {self.precision}; leave --keep-small away, or take another precision")
        require(not (self.keep_float and self.precision in FLOAT), f"nothing is quantized at precision "
                f"{self.precision}, so no layer can be kept in float")
        require(not self.reduce_range or self.precision.startswith("int8"),
                f"export: --reduce-range is for int8-dynamic and int8-static, not for {self.precision}")
        require(not (self.reduce_range and self.keep_small), "export: --reduce-range and --keep-small exclude each "
                "other, as weights that are made again at load have all 8 bits")
        require(self.max_seconds is None or self.max_seconds > 0, "export: --max-seconds is above 0")
