"""Training criteria by name.

Each is a module called as criterion(log_probs, lengths, targets, target_lengths), with log_probs (N, T, V) a log-
softmax with the blank at 0, lengths (N,) in frames, targets (N, U) padded, target_lengths (N,). It returns a dict:
`loss` (the mean per frame over the utterances that count), `frames` (how many those are), `unaligned` (utterances
with fewer frames than their target needs, which do not count). Its `inputs` name what a batch has to give it after the
lengths: the targets, or for distillation the features.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from asrcompress.errors import UserError
from asrcompress.training import phone_lm
from asrcompress.training.criteria.ctc import CTC
from asrcompress.training.criteria.distillation import Distillation
from asrcompress.training.criteria.lfmmi import LFMMI

CRITERIA: dict[str, type[nn.Module]] = {"ctc": CTC, "lfmmi": LFMMI, "distillation": Distillation}


def names() -> tuple[str, ...]:
    return tuple(CRITERIA)


def build(name: str, vocab: int, targets: Iterable[Sequence[int]] = (), **options: Any) -> nn.Module:
    """The criterion `name` for `vocab` tokens; UserError for an unknown name or option.

    targets: the token sequences of the training transcripts; LF-MMI estimates its phone LM from them, unless the option
    `lm` gives one (a tensor, or a file of phone_lm.save).
    """
    if name not in CRITERIA:
        raise UserError(f"there is no criterion '{name}'; choose one of {', '.join(names())}")
    known = set(inspect.signature(CRITERIA[name]).parameters) - {"vocab"}
    if unknown := sorted(set(options) - known):
        raise UserError(f"the criterion '{name}' has no option '{unknown[0]}'; it has {', '.join(sorted(known))}")
    if name == "distillation":
        if options.get("teacher") is None:
            raise UserError("distillation needs a teacher; give criterion.teacher=FILE, a model or packed file")
        return Distillation(vocab=vocab, **options)
    if name == "lfmmi" and options.get("lm") is None:
        options["lm"] = phone_lm.estimate(targets, vocab)
    return CTC(vocab, **options) if name == "ctc" else LFMMI(**options)
