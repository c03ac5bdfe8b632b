"""target: a model as a file of so many bytes, its layers differently small, so that its outputs move least.

    table = Table(model, batches, Ways())         # bytes and damage of every way to store every weight
    small, report = table.fit(1_200_000)          # the file: at most so many bytes

Bytes are those of the coder, not of a formula. The damage of a way is predicted (`damage.SecondOrder`); two ways of
every weight are measured, which fixes the scale of its prediction, and others to see how well predictions rank.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from asrcompress.compression import activations, checks, quantization, record
from asrcompress.compression import choices as ways_of
from asrcompress.compression._assembly import VECTORS, Assembly
from asrcompress.compression._table_cache import Cache, digest
from asrcompress.compression.budget.bytes import Choice, hull, share_out, total
from asrcompress.compression.choices import Maker, Part, Way, Ways, parameter_of
from asrcompress.compression.compress import LayerRecord
from asrcompress.compression.damage import Outputs, SecondOrder, rank_correlation
from asrcompress.compression.packed import coding, writer
from asrcompress.compression.parametrization import copy_model
from asrcompress.compression.structures import CannotShrink, error_context
from asrcompress.errors import UserError
from asrcompress.options import require

T = TypeVar("T")
Track = Callable[[Sequence[T], str], Iterable[T]]  # a progress bar: items and what is done to them
LEAST = 0.98  # of the target that the file takes at least, where there is so much to store
PROBED = 4  # one in so many batches is what the damage of a single way is measured on
CHECKED = 24  # ways whose predicted damage is compared with measurement
TRIES = 10
WAYS = Ways()
FINE = ("trellis", "epr")  # quantizations with any number of bits


@dataclass(frozen=True)
class Measured:
    """A way to store a part: what a coder makes of it, and its damage at a scale of 1."""

    way: Way
    bytes: int
    damage: float


class Table:
    """Every way to store every weight of a model. Making it takes the time; `fit` is for any number of targets.

    `cache` is a folder, where a file gets a line for whatever was measured: run again, it goes on there. Errors:
    UserError where the model has nothing to choose, and those of `damage.Outputs`.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Any], options: Ways = WAYS, seed: int = 0,
                 cache: Path | None = None, track: Track[Any] = lambda items, text: items) -> None:
        checks.can_be_compressed(model)
        self.options = options
        self.model = activations.remove(quantization.materialize(copy_model(model))).eval()
        self.parts = ways_of.parts(self.model)
        require(bool(self.parts), "the model has no weight that could be stored in fewer bytes")
        self.outputs = Outputs(self.model, batches)
        self.form = SecondOrder(self.model, self.outputs)
        self.maker, self.seed = Maker(self.form, seed), seed
        self.cache = Cache(cache, digest(self.model, self.outputs.rows, (options, seed)))
        self.measured = self._measure_all(track)
        self.dense_bytes, self.vectors = self._vectors()
        self.checked = self._fit_scales(track)

    def _measure_all(self, track: Track[Any]) -> dict[str, list[Measured]]:
        """Of every part. As many are measured at a time as torch has threads: the searches of quantizers and coders
        use one each."""
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            started = {path: pool.submit(self._measured, part) for path, part in self.parts.items()
                       if f"ways {path}" not in self.cache.found}
            return {path: [Measured(Way(*way), size, damage) for way, size, damage
                           in self.cache.value(f"ways {path}", lambda path=path: started[path].result())]
                    for path in track(list(self.parts), "ways to store each weight")}
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)

    def _measured(self, part: Part) -> list[tuple[Any, int, float]]:
        """(fields of the way, bytes, damage at a scale of 1) of every way to store a part."""
        found, maker = [], Maker(self.form, self.seed)
        with error_context(part.path):
            for way in sorted(ways_of.ways(part, self.options), key=lambda way: (way.structure, way.size or 1.0)):
                if (made := maker.measure(part, way)) is not None:
                    fields = way.structure, way.size, way.quantization, dict(way.options)
                    found.append((fields, made[0], self.form.of(part.path, made[1])))
        require(bool(found), f"{part.path}: no way to store it is left; allow more structures or quantizations")
        return found

    def _vectors(self) -> tuple[int, list[Choice]]:
        """The bytes of the dense file, and all tensors of one dimension as float32, float16 or int8: what they add to
        the bytes, and what they do."""
        lengths, damages = {}, {}
        for kind in ("float32", "float16", "int8"):
            record.set_coder(self.model, coding.SMALLEST, vectors=kind)
            lengths[kind] = writer.length(self.model)
            damages[kind] = self.cache.value(f"vectors {kind}", self.outputs.divergence,
                                              writer.prepared(self.model, kind)[0])
        least = min(lengths.values())
        return lengths["float32"], [Choice(length - least, damages[kind], kind) for kind, length in lengths.items()]

    def _fit_scales(self, track: Track[Any]) -> list[tuple[str, Way, float, float]]:
        """Measure two ways of each part; then further ones: (path, way, predicted, measured)."""
        picked = []
        for path in track(list(self.parts), "scale of each prediction"):
            curve = hull(self._choices(path))
            probes = [curve[len(curve) * third // 3] for third in (1, 2)] if len(curve) > 2 else curve[:1]
            self.form.scales[path] = self.cache.value(f"scale {path}", self._scale, path, probes)
            picked += [(path, one) for one in curve if one not in probes]
        order = torch.randperm(len(picked), generator=torch.Generator().manual_seed(self.seed)).tolist()
        rows = []
        for path, one in track([picked[index] for index in order[:CHECKED]], "predictions checked"):
            measured = self.cache.value(f"damage {path} {one.how}", self._damage, path, one.how)
            rows.append((path, one.how, self.form.scales[path] * one.damage, measured))
        return rows

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of predicted and measured damages that took no part in the prediction; nan of fewer than 3."""
        if len(self.checked) < 3:
            return float("nan")
        return rank_correlation([row[2] for row in self.checked], [row[3] for row in self.checked])

    def _scale(self, path: str, probes: list[Choice]) -> float:
        return self.form.fit_scale(path, [self._changed(path, probe.how) for probe in probes])

    def _damage(self, path: str, way: Way) -> float:
        return self._changed(path, way)[1]

    @torch.no_grad()
    def _changed(self, path: str, way: Way) -> tuple[Tensor, float]:
        """The change of a weight by a way, and what it is measured to do to the model's outputs."""
        part = self.parts[path]
        made = self.maker.make(part, way)
        assert made is not None
        layer, quantizers = made
        if part.structure is None:
            values = {self.model.get_parameter(parameter_of(self.model, path)): layer.dense().detach()}
        else:
            values = {part.structure.get_parameter(name): one().detach() for name, one in quantizers.items()}
        kept = {parameter: parameter.detach().clone() for parameter in values}
        change = layer.dense().detach() - part.weight  # the weight shares the parameter's memory
        try:
            for parameter, value in values.items():
                parameter.copy_(value.reshape(parameter.shape))
            return change, self.outputs.divergence(self.model, -(-len(self.outputs.batches) // PROBED))
        finally:
            for parameter, value in kept.items():
                parameter.copy_(value)

    def _choices(self, path: str) -> list[Choice]:
        scale = self.form.scales.get(path, 1.0)
        return [Choice(one.bytes, scale * one.damage, one.way) for one in self.measured[path]]

    def _finer(self, chosen: dict[str, Choice]) -> dict[str, list[Choice]]:
        """Ways of a few more bytes than those chosen: at bits between those that were tried."""
        found = {}
        for path, part in self.parts.items():
            way, name = chosen[path].how, next((one for one in FINE if one in self.options.quantizations), None)
            layer = self.maker.structure(part, way)
            if name is None or layer is None:
                continue
            bits = [8 * more * chosen[path].bytes / layer.num_parameters() for more in (1.04, 1.1, 1.25)]
            finer = [replace(way, quantization=name, options={"bits": round(one, 3)}) for one in bits if one < 12]
            made = [(one, self.maker.measure(part, one)) for one in finer]
            found[path] = [Choice(one[0], self.form.of(path, one[1]), way) for way, one in made if one is not None]
        return found

    def fit(self, target: int) -> tuple[nn.Module, list[LayerRecord]]:
        """The model whose file has at most `target` bytes, and a record of each weight.

        Errors: CannotShrink, which says the smallest file; UserError for a target above the dense file, and those of
        `checks.layers`.
        """
        require(target <= self.dense_bytes, f"the target of {target:,} bytes is more than the {self.dense_bytes:,} of "
                "the model as it is; give fewer")
        offered = {path: self._choices(path) for path in self.parts} | {VECTORS: self.vectors}
        fewest = {path: min(found, key=lambda one: one.bytes) for path, found in offered.items()}
        built = Assembly(self.model, self.parts, self.maker)
        fixed = built.length(fewest) - total(fewest)  # header, norms, and what the coder saves beyond the table
        if fixed + total(fewest) > target:
            raise CannotShrink(f"{target:,} bytes cannot be reached; the smallest file with these structures and "
                               f"quantizations takes {fixed + total(fewest):,}; ask for that, or allow further ones")
        best: tuple[int, dict[str, Choice]] = (fixed + total(fewest), fewest)
        for _ in range(TRIES):
            chosen = share_out(offered, target - fixed) if total(fewest) <= target - fixed else fewest
            size = built.length(chosen)
            if best[0] < size <= target:
                best = size, chosen
            if LEAST * target <= size <= target:
                break
            if fixed == size - total(chosen):  # no choice is between this file and the target
                finer = self._finer(chosen)
                if all(one in offered[path] for path, found in finer.items() for one in found):
                    break
                offered = {path: [*found, *finer.get(path, [])] for path, found in offered.items()}
            fixed = size - total(chosen)
        small = built.model(best[1])
        checks.layers(small)
        return small, built.report(best[1])

    def within(self, tolerance: float, loss: Callable[[Any], float],
               steps: int = 7) -> tuple[nn.Module, list[LayerRecord]]:
        """The smallest model whose loss is at most 1 + `tolerance` times that of the whole one, by bisection of bytes.

        Errors: UserError where there is none that is smaller than the model.
        """
        require(tolerance > 0, f"the loss may rise by {tolerance:g}; give more than nothing")
        most = (1 + tolerance) * loss(self.model)
        fewest = sum(min(one.bytes for one in found) for found in self.measured.values())
        low, high, found = float(fewest), float(self.dense_bytes), None
        for _ in range(steps):
            middle = (low * high) ** 0.5
            try:
                small, report = self.fit(int(middle))
            except CannotShrink:
                low = middle
                continue
            if loss(small) <= most:
                high, found = middle, (small, report)
            else:
                low = middle
        if found is None:
            raise UserError(f"no smaller file keeps the loss within {100 * tolerance:g} %; allow more")
        return found
