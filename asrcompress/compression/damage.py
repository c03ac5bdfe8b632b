"""damage: how far the outputs of a model move when its weights change, measured, and predicted for one weight.

    outputs = Outputs(model, batches)
    outputs.divergence(other)                     # nats a frame, measured
    predicted = SecondOrder(model, outputs).of("layers.3.conv", difference)

The outputs of a model are posteriors, whose divergence is KL(model || other), or anything else, for which it is half
the squared difference over the variance. Near the model both are quadratic in a weight's change D: per frame about
    scale x sum_i g_i (D C D^T)_ii,   C = E[x x^T] of the layer's inputs, g_i = E[(d log p / d y_i)^2] of its outputs,
the Fisher information with layers, frames and outputs taken as independent (Martens and Grosse, "Optimizing neural
networks with Kronecker-factored approximate curvature", ICML 2015). What that leaves out, `scale` takes from measured
changes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import calibration
from asrcompress.compression.distil import frame_divergence
from asrcompress.errors import UserError
from asrcompress.options import require

FLOOR = 1e-3  # of the mean: no output of a layer counts less


class Outputs:
    """What a model says on batches of its arguments: (batches of) rows, one for each frame or sample."""

    def __init__(self, model: nn.Module, batches: Iterable[Any]) -> None:
        self.batches = list(batches)
        require(bool(self.batches), "damage is measured on examples, and there is none; calibrate on data or data-free")
        with torch.no_grad(), calibration.in_eval_mode(model):
            self.rows = [self.rows_of(model, batch) for batch in self.batches]
        every = torch.cat(self.rows)
        require(bool(torch.isfinite(every).all()), "the model's outputs on the calibration data are not finite")
        self.posteriors = every.shape[1] > 1 and bool((every.logsumexp(-1).abs() < 1e-3).all())
        self.variance = float(every.var(0, correction=0).sum().clamp_min(1e-30))

    @staticmethod
    def rows_of(model: nn.Module, batch: Any) -> Tensor:
        """(frames, outputs) of one batch: log-posteriors where the model gives such or logits, without padding. What
        has one dimension, or none, is one output of each sample.

        Errors: UserError where the first thing that the model gives is no tensor.
        """
        args, keywords = calibration.arguments(batch)
        said = model(*args, **keywords)
        if isinstance(said, Mapping):
            said = said["logits"].log_softmax(-1) if "logits" in said else next(iter(said.values()))
        lens = None
        if isinstance(said, tuple | list):
            said, *rest = said
            lens = next((one for one in rest if isinstance(one, Tensor) and one.dtype in (torch.int32, torch.int64)
                         and one.shape == said.shape[:1] and said.dim() == 3), None)
        if not isinstance(said, Tensor):
            raise UserError(f"the model gives a {type(said).__name__}; a byte budget needs a tensor, or one first")
        said = said.float() if said.dim() > 1 else said.float().reshape(-1, 1)
        if lens is None:
            return said.flatten(0, -2)
        return said[torch.arange(said.shape[1], device=lens.device) < lens[:, None]]

    @torch.no_grad()
    def divergence(self, other: nn.Module, most: int | None = None) -> float:
        """Per frame, of the outputs of `other` from those of the model, on all batches or the first `most`."""
        total, wanted = 0.0, self.rows[:most]
        with calibration.in_eval_mode(other):
            for batch, rows in zip(self.batches, wanted, strict=False):
                theirs = self.rows_of(other, batch)
                total += float(frame_divergence(rows, theirs).sum() if self.posteriors else
                               (rows - theirs).double().square().sum() / (2 * self.variance))
        found = total / sum(map(len, wanted))
        return found if math.isfinite(found) else float("inf")

    @torch.enable_grad()
    def sampled_gradients(self, model: nn.Module, seed: int = 0) -> Iterator[None]:
        """Backward passes, one a batch, of the log-probability of outputs that the model itself draws; none where it
        runs without gradients or gives whole numbers. What is drawn is the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        for batch in self.batches:
            rows = self.rows_of(model, batch)
            if not rows.requires_grad:
                continue
            if self.posteriors:
                drawn = torch.multinomial(rows.detach().exp().cpu(), 1, generator=generator)
                rows.gather(1, drawn.to(rows.device)).sum().backward()
            else:
                noise = torch.randn(rows.shape, generator=generator) / math.sqrt(self.variance)
                (rows * noise.to(rows.device)).sum().backward()
            yield


class SecondOrder:
    """The quadratic form of each layer whose inputs calibration sees, and the plain squared error of all others."""

    def __init__(self, model: nn.Module, outputs: Outputs) -> None:
        self.moments = calibration.collect(model, outputs.batches)
        self.gains = _gains(model, list(self.moments), outputs)
        self.scales: dict[str, float] = {}

    @torch.no_grad()
    def of(self, path: str, difference: Tensor) -> float:
        """The damage of a change (out, in) or (out, in, taps) of the weight at a path of `modules.weights`."""
        rows = difference.flatten(1).float()
        if path in self.moments:
            squares = (rows @ self.moments[path].float() * rows).sum(1)
            squares = squares * self.gains[path].to(squares.device)
        else:
            squares = rows.square().sum(1)
        return self.scales.get(path, 1.0) * float(squares.sum())

    def fit_scale(self, path: str, changes: Iterable[tuple[Tensor, float]]) -> float:
        """Let the form agree with the damages that changes of one weight were measured to do: their geometric mean."""
        self.scales.pop(path, None)
        ratios = [math.log(max(measured, 1e-12) / max(self.of(path, change), 1e-30)) for change, measured in changes]
        self.scales[path] = math.exp(sum(ratios) / len(ratios))
        return self.scales[path]


def _gains(model: nn.Module, paths: list[str], outputs: Outputs) -> dict[str, Tensor]:
    """g (out,), 1 on average, of the layers at these paths; ones where no gradient comes."""
    sums: dict[str, Tensor | float] = dict.fromkeys(paths, 0.0)

    def watch(path: str) -> Any:
        def hook(layer: nn.Module, args: Any, output: Tensor) -> None:
            if not output.requires_grad:  # a part that the model itself runs without gradients
                return
            own = output.dim() - (2 if isinstance(layer, calibration.CONVOLUTIONS) else 1)
            output.register_hook(lambda g: sums.update(
                {path: sums[path] + g.detach().double().square().movedim(own, -1).reshape(-1, g.shape[own]).sum(0)}))

        return hook

    with _with_gradients(model), calibration.in_eval_mode(model):
        handles = [model.get_submodule(path).register_forward_hook(watch(path)) for path in paths]
        try:
            for _ in outputs.sampled_gradients(model):
                pass
        finally:
            for handle in handles:
                handle.remove()
    found = {}
    for path, seen in sums.items():
        gain = seen if isinstance(seen, Tensor) and float(seen.sum()) > 0 else torch.ones(1, dtype=torch.float64)
        found[path] = (gain / gain.mean()).clamp_min(FLOOR).float()
    return found


@contextmanager
def _with_gradients(model: nn.Module) -> Iterator[None]:
    """Every parameter with a gradient, as hooks on outputs want; frozen as before afterwards, and none is kept."""
    kept = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _, _ in kept:
            parameter.requires_grad_(parameter.is_floating_point())
            parameter.grad = None
        yield
    finally:
        for parameter, required, grad in kept:
            parameter.requires_grad_(required)
            parameter.grad = grad


def rank_correlation(ours: list[float], theirs: list[float]) -> float:
    """Spearman's, between two lists of numbers."""
    from scipy.stats import spearmanr

    return float(spearmanr(ours, theirs).statistic)
