"""What criteria with a teacher share: whom to follow, what the teacher hears, and a hard criterion beside it."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asrcompress import compression, precision
from asrcompress.errors import UserError
from asrcompress.models.base import AcousticModel
from asrcompress.options import require
from asrcompress.training import criteria
from asrcompress.training.criteria._hidden import HiddenLayers, outputs
from asrcompress.training.criteria.base import Criterion
from asrcompress.training.criteria.ctc import mean_per_frame, valid_frames


@dataclass(frozen=True)
class TeachingOptions:
    """Whom to follow, and how much."""

    teacher: str | tuple[str, ...] | None = None  # the file of a model, or packed file; several are an ensemble
    teacher_input: Literal["same", "clean"] = "same"  # clean: the features before augmentation
    hard: Literal["none", "ctc", "lfmmi"] = "none"  # the criterion on the transcripts
    weight: float = 1.0  # share of the teacher's part; 1 - weight goes to the hard criterion
    hidden: tuple[tuple[str, ...], ...] = ()  # pairs [path in the teacher, path in the student] of modules
    hidden_weight: float = 1.0  # of their distance, at the start; it falls to 0 over half the training

    def __post_init__(self) -> None:
        require(all(self.files), "criterion: the name of a teacher is empty")
        require(0 < self.weight <= 1 and (self.hard != "none") == (self.weight < 1),
                f"criterion: weight is {self.weight:g} with hard={self.hard}; it is 1 with hard=none, and between "
                "0 and 1 (0.7 is usual) beside a hard criterion")
        require(all(len(pair) == 2 for pair in self.hidden) and self.hidden_weight >= 0, "criterion: hidden is a list "
                "of pairs [path in the teacher, path in the student], and hidden_weight is at least 0")
        require(not self.hidden or (len(self.files) < 2 and self.teacher_input == "same"),
                "criterion: hidden layers follow one teacher, with teacher_input=same")

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the teachers."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher or ()


class Teaching(Criterion):
    """weight x soft + (1 - weight) x hard, each a mean per frame; a subclass says what `soft` is.

    teachers: models by name. They stay in eval mode, get no gradient and are no part of the state, so checkpoints stay
    as small as the student; they compute in the precision `auto`. With teacher_input "same" they hear exactly what the
    student hears, augmentation included. With "clean" they hear the features before augmentation: the posteriors of an
    utterance then never change, and are kept in memory as float16 by its id (2 V bytes a frame), so that each teacher
    hears it once.

    `hidden` adds the distance of hidden layers (see `_hidden.HiddenLayers`), times a weight that falls from
    hidden_weight to 0 over the first half of the training.

    The soft part is a mean over all utterances, the hard one over those that it can align. Errors: UserError for a
    teacher of other tokens or, at the first batch, of another frame grid.
    """

    Options: type = TeachingOptions

    def __init__(self, teachers: Mapping[str, nn.Module], vocab: int, options: Any = None,
                 targets: Iterable[Sequence[int]] = ()) -> None:
        super().__init__()
        self.options = options or self.Options()
        self.teachers = {name: _checked(name, model, vocab) for name, model in teachers.items()}  # a dict is no module
        self.hard = None if self.options.hard == "none" else criteria.build(self.options.hard, vocab, targets)
        self.cache: dict[str, list[Tensor]] = {}  # utterance -> float16 (T', V) of each teacher
        heard = "clean" if self.options.teacher_input == "clean" else "x"
        self.inputs = (heard, "x_lens", "targets", "target_lens", "ids")
        self.hidden: HiddenLayers | None = None

    @classmethod
    def build(cls, options: Any, vocab: int, targets: Iterable[Sequence[int]]) -> "Teaching":
        """The criterion with teachers from files. Errors: UserError where none is given, or one is no model."""
        if not options.files:
            raise UserError(f"{cls.name} needs a teacher; give criterion.teacher=FILE, a model or packed file, or "
                            "criterion.teacher=[FILE,FILE] for an ensemble")
        return cls({file: compression.load(file) for file in options.files}, vocab, options, targets)

    def begin(self, model: AcousticModel) -> None:
        if self.options.hidden:
            teacher: Any = next(iter(self.teachers.values()))
            self.hidden = HiddenLayers(teacher, model, self.options.hidden)
            self.listens, self.inputs = tuple(path for _, path in self.options.hidden), (*self.inputs, "heard")

    @abstractmethod
    def soft(self, wanted: list[Tensor], log_probs: Tensor, lengths: Tensor, targets: Tensor,
             target_lengths: Tensor) -> Tensor:
        """Losses (N,), in nats, each the sum over the frames of an utterance; finite for every utterance.

        wanted: log-posteriors (N, T, V) of each teacher; log_probs (N, T, V) of the student; all float32, with autocast
        off. Frames past `lengths` (N,) hold anything finite and must not count.
        """

    def forward(self, log_probs: Tensor, lengths: Tensor, x: Tensor, x_lens: Tensor, targets: Tensor,
                target_lengths: Tensor, ids: Sequence[str], heard: Mapping[str, Tensor] = {}) -> dict[str, Tensor]:
        """loss, its parts soft, hard and hidden, frames, unaligned; for log_probs (N, T', V), lengths (N,) and a batch.

        x (N, T, F) are the features that the teachers hear, x_lens (N,), targets (N, U), target_lengths (N,); `heard`
        has the outputs of the student's hidden layers by path, in a training step.
        """
        lengths = lengths.to(x.device)
        known = self.options.teacher_input == "clean"
        with outputs(next(iter(self.teachers.values())), [path for path, _ in self.options.hidden]) as taught:
            wanted = self.kept(x, x_lens, lengths, ids) if known else self.posteriors(x, x_lens, lengths)
        frames, batch = int(lengths.max()), (lengths, targets, target_lengths)
        wanted, log_probs = [one[:, :frames] for one in wanted], log_probs[:, :frames].float()
        with torch.autocast(x.device.type, enabled=False):
            result = mean_per_frame(self.soft(wanted, log_probs, *batch), lengths, torch.ones_like(lengths).bool())
            result["soft"] = result["loss"].detach()
            if self.hard is not None:
                hard, weight = self.hard(log_probs, *batch), self.options.weight
                result |= {"loss": weight * result["loss"] + (1 - weight) * hard["loss"],
                           "hard": hard["loss"].detach(), "unaligned": hard["unaligned"]}
            if self.hidden is not None and self.training:
                apart = self.hidden(taught, heard, valid_frames(log_probs, lengths))
                weight = self.options.hidden_weight * max(0.0, 1 - 2 * self.progress)
                result |= {"loss": result["loss"] + weight * apart, "hidden": apart.detach()}
        return result

    @torch.no_grad()
    def posteriors(self, x: Tensor, x_lens: Tensor, lengths: Tensor) -> list[Tensor]:
        """The log-posteriors (N, T', V) of each teacher. Errors: UserError where its lengths are not the student's."""
        found = []
        for name, teacher in self.teachers.items():
            with precision.autocast(x.device.type):
                log_probs, lens = teacher.to(x.device)(x, x_lens)
            if lens.tolist() != lengths.tolist():
                raise UserError(f"for utterances of {x_lens.tolist()} frames of features the teacher {name} gives "
                                f"{lens.tolist()} frames and the student {lengths.tolist()}; take a teacher and a "
                                "student of the same subsampling")
            found.append(log_probs.float())
        return found

    def kept(self, x: Tensor, x_lens: Tensor, lengths: Tensor, ids: Sequence[str]) -> list[Tensor]:
        """`posteriors`, from memory for each utterance that was heard before; rounded to float16."""
        new = [i for i, name in enumerate(ids) if name not in self.cache]
        if new:
            found = self.posteriors(x[new], x_lens[new], lengths[new])
            for row, i in enumerate(new):
                self.cache[ids[i]] = [one[row, : lengths[i]].half().cpu() for one in found]
        rows = zip(*(self.cache[name] for name in ids), strict=True)  # teacher by teacher
        return [pad_sequence(list(one), batch_first=True).to(x.device, torch.float32) for one in rows]


def _checked(name: str, model: nn.Module, vocab: int) -> nn.Module:
    """A teacher in eval mode, without gradients. Errors: UserError unless it is one for `vocab` tokens."""
    if not isinstance(model, AcousticModel):
        raise UserError(f"the teacher {name} is no acoustic model of asrcompress; give one that `asrcompress train` or "
                        "`compress` wrote")
    tokens = model.config["vocab"]
    if tokens != vocab:
        raise UserError(f"the teacher {name} has {tokens} tokens and the lang folder {vocab}; "
                        "distil from a model of the same lang")
    return model.eval().requires_grad_(False)
