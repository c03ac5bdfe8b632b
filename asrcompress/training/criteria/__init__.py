"""Training criteria: every module of this folder without a leading underscore is one (see `base.Criterion`).

    criterion = build("lfmmi", vocab, targets, ctc_weight=0.1)
    criterion(log_probs, lengths, targets, target_lens)["loss"].backward()
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from asrcompress import registry
from asrcompress.options import make
from asrcompress.training.criteria.base import Criterion

__all__ = ["Criterion", "build", "family", "methods", "names", "taught"]


def names() -> tuple[str, ...]:
    """Every criterion there is, sorted."""
    return registry.names(__name__)


def family(name: str) -> type[Criterion]:
    """The class of a criterion. Errors: UserError for an unknown name."""
    return registry.member(__name__, name, Criterion, "is no criterion")


def methods() -> dict[str, type]:
    """Every criterion by name, with its options dataclass."""
    return {name: family(name).Options for name in names()}


def taught(name: str) -> bool:
    """Whether a criterion follows a teacher. Errors: UserError for an unknown name."""
    return "teacher" in {field.name for field in fields(family(name).Options)}


def build(name: str, vocab: int, targets: Iterable[Sequence[int]] = (), **options: Any) -> Criterion:
    """The criterion `name` for `vocab` tokens.

    targets: the token sequences of the training transcripts, from which LF-MMI estimates its phone LM; some
    criteria go through them twice. Errors: UserError for an unknown name or option, and for what the criterion itself
    refuses.
    """
    cls = family(name)
    return cls.build(make(cls.Options, options, f"criterion {name}"), vocab, targets)
