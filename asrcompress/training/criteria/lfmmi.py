"""Lattice-free MMI with the CTC topology and a trigram phone LM: exact, dense, and without a graph library.

The denominator sums over every phone sequence and each of its CTC alignments. Its state is (previous phone a, phone
b) x (on, blank): on b, or on the blank after b. With x(k) = exp(score of token k) a frame does

    on'[b, c]    = x(c) (on[b, c] + sum_a (blank[a, b] + [b != c] on[a, b]) P(c|a, b))
    blank'[a, b] = x(0) (on[a, b] + blank[a, b])

where the sum over a is, for each b, a matrix product (N, a) x (a, c). Index 0 stands for the sentence start (as a, b)
and its end (as c), as in `_phone_lm`. States are laid out (b, N, a).

Probabilities are not logarithms here: a frame is rescaled instead. That is safe because every state can emit every
label sequence: what follows it differs from the best continuation by three LM probabilities at most, so no state that
matters is ever lost to underflow.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrcompress.errors import UserError
from asrcompress.options import require
from asrcompress.threads import one_thread
from asrcompress.training.criteria import _phone_lm
from asrcompress.training.criteria.base import Criterion
from asrcompress.training.criteria.ctc import alignable, ctc_score, mean_per_frame, valid_frames


class Transitions(NamedTuple):
    """A trigram LM (V, V, V) in the layout of the recursions."""

    step: Tensor  # (b, a, c): P(c|a, b) for c other than b, and no end
    repeat: Tensor  # (b, a): P(b|a, b), only possible after a blank
    final: Tensor  # (b, a): P(end|a, b)


def transitions(lm: Tensor) -> Transitions:
    """The transitions of the denominator graph of a phone LM, (V, V, V) probabilities of the next of three tokens."""
    step = lm.transpose(0, 1).clone()
    final = step[:, :, 0].clone()
    repeat = step.diagonal(dim1=0, dim2=2).T.clone()
    repeat[0] = 0.0
    step[:, :, 0] = 0.0
    step.diagonal(dim1=0, dim2=2).zero_()
    return Transitions(step, repeat, final)


@torch.no_grad()
def denominator(scores: Tensor, lengths: Tensor, lm: Tensor) -> tuple[Tensor, Tensor]:
    """log Z (N,) float64 and token occupancies (N, T, V), for scores (N, T, V), lengths (N,) and lm (V, V, V).

    The occupancies are the gradient of log Z with respect to the scores, and zero past the end.
    """
    x, shift, live, order = frames_first(scores, lengths)
    # The products of a frame take some 30 microseconds: sharing them gains little, and stalls where a core is busy.
    with torch.autocast(scores.device.type, enabled=False), one_thread():
        graph = transitions(lm.to(scores))
        log_z, alphas = forward(x, live, graph)
        occupancy = backward(x, live, graph, alphas)
    back = order.argsort()
    shifts = shift.double().masked_fill(~valid_frames(scores, lengths), 0.0).sum(1)
    return log_z[back] + shifts, occupancy.permute(2, 0, 1)[back]


def frames_first(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, list[int], Tensor]:
    """x (T, V, N) = exp(scores - shift) in `order` (N,), shift (N, T) the largest score, live: those at each frame.

    Longest first: the utterances that are still running at a frame are then always the first few.
    """
    order = lengths.to(scores.device).argsort(descending=True)
    ordered = lengths.tolist()
    live = [sum(length > t for length in ordered) for t in range(max(ordered, default=0))]
    shift = scores.amax(-1)
    return (scores - shift[..., None]).exp()[order].permute(1, 2, 0).contiguous(), shift, live, order


def forward(x: Tensor, live: list[int], graph: Transitions) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """log Z (N,) and (on, blank) after each frame, for x (T, V, N); live[t] utterances reach frame t."""
    _, tokens, batch = x.shape
    on, blank = x.new_zeros(2, tokens, batch, tokens)
    blank[0, :, 0] = 1.0
    size = x.new_ones(batch)
    log_z = x.new_zeros(batch, dtype=torch.float64)
    alphas = []
    for t, running in enumerate([*live, 0]):
        if running < len(size):  # the rest have ended
            ended = ((on + blank)[:, running:] * graph.final[:, None]).sum((0, 2))
            log_z[running : len(size)] += ended.double().log()
            on, blank, size = on[:, :running], blank[:, :running], size[:running]
        if not running:
            break
        emit = (x[t, :, :running] / size)[..., None]  # dividing here rescales the last frame without a pass over it
        log_z[:running] += size.double().log()
        both = on + blank
        jump = torch.bmm(both, graph.step)  # (b, N, c)
        jump.diagonal(dim1=0, dim2=2).add_((blank * graph.repeat[:, None]).sum(2).T)
        on = (on + jump.permute(2, 1, 0)).mul_(emit)
        blank = both.mul_(emit[0])
        size = on.sum((0, 2)) + blank.sum((0, 2))
        alphas.append((on, blank))
    return log_z, alphas


def backward(x: Tensor, live: list[int], graph: Transitions, alphas: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Occupancies (T, V, N) of the tokens; consumes `alphas`."""
    occupancy = torch.zeros_like(x)
    final = graph.final[:, None]
    on = blank = final[:, :0].expand(-1, 0, -1)
    for t in reversed(range(len(live))):
        starting = final.expand(-1, live[t] - on.shape[1], -1)
        if starting.shape[1]:  # utterances whose last frame is t
            on, blank = torch.cat([on, starting], 1), torch.cat([blank, starting], 1)
        alpha_on, alpha_blank = alphas.pop()
        gamma = (alpha_on * on).sum(2)
        gamma[0] = (alpha_blank * blank).sum((0, 2))
        size = gamma.sum(0)
        occupancy[t, :, : live[t]] = gamma / size
        emit = (x[t, :, : live[t]] / size)[..., None]
        on, blank = on * emit, blank * emit[0]
        ahead = on.permute(2, 1, 0).contiguous()  # (b, N, c)
        step = torch.bmm(ahead, graph.step.transpose(1, 2)).add_(blank)
        repeat = ahead.diagonal(dim1=0, dim2=2).T[..., None] * graph.repeat[:, None]
        on, blank = on.add_(step), step + repeat
    return occupancy


class LogZ(torch.autograd.Function):
    """log Z (N,) of `denominator`, differentiable in the scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, lengths: Tensor, lm: Tensor) -> Tensor:
        log_z, occupancy = denominator(scores, lengths, lm)
        ctx.save_for_backward(occupancy)
        return log_z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (occupancy,) = ctx.saved_tensors
        return occupancy * grad.to(occupancy.dtype)[:, None, None], None, None


@dataclass(frozen=True)
class LFMMIOptions:
    """How the acoustic scores count, and CTC beside them."""

    acoustic_scale: float = 1.0  # factor of the log posteriors
    ctc_weight: float = 0.0  # CTC that is added, against overfitting

    def __post_init__(self) -> None:
        require(self.acoustic_scale > 0 and self.ctc_weight >= 0, f"criterion lfmmi: acoustic_scale "
                f"{self.acoustic_scale:g} is above 0, ctc_weight {self.ctc_weight:g} at least 0")


class LFMMI(Criterion):
    """LF-MMI loss, the mean per frame of log Z - log(P(reference) x its CTC score): never negative.

    lm: a trigram phone LM (V, V, V), P[a, b, c] of c after a, b. Errors: UserError for more than 128 tokens. Povey et
    al., "Purely sequence-trained neural networks for ASR based on lattice-free MMI", Interspeech 2016.
    """

    name = "lfmmi"
    Options = LFMMIOptions
    lm: Tensor
    known_log_z: Tensor | None = None  # log Z of the next batch, where another criterion has computed it

    def __init__(self, lm: Tensor, options: LFMMIOptions = LFMMIOptions()) -> None:
        super().__init__()
        _phone_lm.check_size(len(lm))
        self.register_buffer("lm", lm, persistent=False)
        self.acoustic_scale, self.ctc_weight = options.acoustic_scale, options.ctc_weight

    @classmethod
    def build(cls, options: LFMMIOptions, vocab: int, targets: Iterable[Sequence[int]]) -> "LFMMI":
        """LF-MMI whose phone LM is estimated from `targets`, token sequences with ids from 1 to vocab - 1."""
        return cls(_phone_lm.estimate(targets, vocab), options)

    def forward(self, log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> dict[str, Tensor]:
        """loss, its parts mmi and ctc, frames, unaligned; arguments as in CTC."""
        tokens = log_probs.shape[2]
        if tokens != len(self.lm):
            raise UserError(f"the phone LM has {len(self.lm)} tokens and the model {tokens}; make both from one lang")
        batch = (lengths, targets, target_lengths)
        scores = log_probs.masked_fill(~valid_frames(log_probs, lengths)[..., None], 0.0)
        counted = alignable(*batch).to(scores.device)
        ctc = -ctc_score(scores, *batch)
        scaled = self.acoustic_scale * scores
        numerator = -ctc if self.acoustic_scale == 1.0 else ctc_score(scaled, *batch)
        numerator = numerator.double() + _phone_lm.score(self.lm, targets, target_lengths).double()
        log_z, self.known_log_z = self.known_log_z, None
        if log_z is None:
            log_z = LogZ.apply(scaled, lengths, self.lm)
        mmi = (log_z - numerator).to(scores.dtype)
        parts = {name: mean_per_frame(losses.detach(), lengths, counted)["loss"]
                 for name, losses in (("mmi", mmi), ("ctc", ctc))}
        return mean_per_frame(mmi + self.ctc_weight * ctc, lengths, counted) | parts
