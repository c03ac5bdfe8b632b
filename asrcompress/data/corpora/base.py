"""What a corpus is to the rest of the code: a module of this package with these functions.

Nothing outside the module knows the names of its folders and files. `folder` is what the user gives as --corpus.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from lhotse import CutSet


class Subsets(NamedTuple):
    """Names of the sets to train on, the first of which gives the held-out speakers, and of those to test on."""

    train: list[str]
    test: list[str]


class LanguageModels(NamedTuple):
    """ARPA files, plain or gzipped: `small` for the search, `large` for rescoring; None where the corpus has none."""

    small: Path | None
    large: Path | None


class Corpus(Protocol):
    """The functions of a corpus module. Each raises UserError where the folder is not what it should be."""

    def download(self, folder: Path, edition: str) -> None:
        """Fetch an edition of the corpus, such as "mini", with its language models and lexicon."""

    def subsets(self, folder: Path) -> Subsets:
        """The official sets that are there; a list is empty where there is none."""

    def prepare(self, folder: Path, subset: str, warn: Callable[[str], None] = print) -> "CutSet":
        """The cuts of a subset, one an utterance, with text and speaker; what is left out is named through `warn`."""

    def language_models(self, folder: Path) -> LanguageModels:
        """The language models that are there."""

    def lexicon(self, folder: Path) -> Path:
        """The pronunciation lexicon."""
