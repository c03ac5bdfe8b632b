"""Corpora by name: every module here is one, and offers what `base.Corpus` says."""

from typing import cast

from asrcompress import registry
from asrcompress.data.corpora.base import Corpus, Search, Subsets

__all__ = ["Corpus", "Search", "Subsets", "get", "names"]


def names() -> tuple[str, ...]:
    """The names of all corpora, sorted."""
    return registry.names(__name__)


def get(name: str) -> Corpus:
    """The corpus of that name. Errors: UserError, with the names that there are."""
    return cast(Corpus, registry.module(__name__, name, "is no corpus"))
