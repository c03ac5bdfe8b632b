"""Label sequences drawn exactly from the dense lattice of LF-MMI: a forward pass, then the path drawn backwards.

The states and the layout are those of `lfmmi`: (phone b, on or blank; previous phone a). With alpha of frame t - 1,
the state at frame t came from

    (b, blank; a)  <-  (b, on; a)                   on[b, a]
                   <-  (b, blank; a)                blank[b, a]
    (b, on; a)     <-  (b, on; a)                   on[b, a]
                   <-  (a, on; a2), a other than b  on[a, a2] P(b|a2, a)
                   <-  (a, blank; a2)               blank[a, a2] P(b|a2, a)

in proportion to the weights on the right.
"""

import torch
from torch import Tensor

from asrcompress.threads import one_thread
from asrcompress.training.criteria import lfmmi


@torch.no_grad()
def draw(scores: Tensor, lengths: Tensor, lm: Tensor, count: int, generator: torch.Generator | None = None
         ) -> tuple[Tensor, Tensor]:
    """Labels (N, K, U), padded with 0, and their lengths (N, K): `count` = K independent draws of each utterance.

    A sequence is drawn with the probability P_LM x its summed exp(scores) / Z of `lfmmi.denominator`, for scores
    (N, T, V), lengths (N,) and lm (V, V, V). generator: one of the CPU; the default one where it is None.
    """
    uniform = torch.rand(scores.shape[1], len(scores), count, dtype=torch.float64, generator=generator)
    x, _, live, order = lfmmi.frames_first(scores, lengths)
    with torch.autocast(scores.device.type, enabled=False), one_thread():
        graph = lfmmi.transitions(lm.to(scores))
        _, alphas = lfmmi.forward(x, live, graph)
        paths = backward(live, graph, alphas, uniform.to(scores.device)[:, order])
    return collapse(paths.permute(1, 2, 0)[order.argsort()])


def backward(live: list[int], graph: lfmmi.Transitions, alphas: list[tuple[Tensor, Tensor]], uniform: Tensor) -> Tensor:
    """Paths (T, N, K) of tokens, 0 past the end, for one uniform number (T, N, K) a frame; consumes `alphas`."""
    tokens = len(graph.final)
    before = arrivals(graph)
    paths = torch.zeros(uniform.shape, dtype=torch.long, device=uniform.device)
    rows = torch.arange(paths.shape[1], device=paths.device)[:, None]
    a = b = token = paths.new_zeros(0, paths.shape[2])  # the token is b, or the blank
    for t in reversed(range(len(live))):
        on, blank = alphas.pop()
        running = len(b)
        voiced = token > 0
        if running:
            own = rows[:running]
            stay, wait = on[b, own, a], blank[b, own, a].masked_fill(voiced, 0.0)
            jump = torch.cat([on[a, own], blank[a, own]], -1) * before[a, token]
            weights = torch.cat([stay[..., None], wait[..., None], jump], -1)
            source = pick(weights, uniform[t, :running, :, None])[..., 0] - 2
            jumped = source >= 0
            voiced = torch.where(jumped, source < tokens, source == -2)
            a, b = torch.where(jumped, source % tokens, a), torch.where(jumped, a, b)
        if running < live[t]:  # utterances whose last frame is t
            ends = torch.stack([blank, on])[:, :, running:] * graph.final[:, None]  # (blank or on, b, n, a)
            picked = pick(ends.permute(2, 0, 1, 3).flatten(1), uniform[t, running : live[t]])
            a, b = torch.cat([a, picked % tokens]), torch.cat([b, picked // tokens % tokens])
            voiced = torch.cat([voiced, picked >= tokens * tokens])
        paths[t, : live[t]] = token = b * voiced
    return paths


def arrivals(graph: lfmmi.Transitions) -> Tensor:
    """(a, b, 2 a2): the weight of a step to phone b from (a, on; a2), then from (a, blank; a2); none to the blank."""
    on = graph.step.transpose(1, 2)
    blank = on.clone()
    blank.diagonal(dim1=0, dim2=1).add_(graph.repeat.T)
    return torch.cat([on, blank], -1)


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """Indices (..., K) drawn in proportion to weights (..., C), for uniform numbers (..., K) float64 below 1."""
    total = weights.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(total, uniform * total[..., -1:], right=True).clamp(max=weights.shape[-1] - 1)


def collapse(paths: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (N, K, U), padded with 0, and lengths (N, K) of paths (N, K, T): repeats and blanks are taken out."""
    before = torch.nn.functional.pad(paths[..., :-1], (1, 0))
    kept = (paths != 0) & (paths != before)
    lengths = kept.sum(-1)
    first = kept.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)[..., : int(lengths.max())]
    return (paths * kept).gather(-1, first), lengths
