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


class Search(NamedTuple):
    """A search for words: its name, its language model (ARPA, plain or gzipped), and, where that model only rescores
    lattices, the name of the search that makes them."""

    name: str
    arpa: Path
    rescores: str | None = None


class Corpus(Protocol):
    """The functions of a corpus module. Each raises UserError where the folder is not what it should be."""

    def download(self, folder: Path, edition: str) -> None:
        """Fetch an edition of the corpus, such as "mini", with its language models and lexicon."""

    def subsets(self, folder: Path) -> Subsets:
        """The official sets that are there; a list is empty where there is none."""

    def prepare(self, folder: Path, subset: str, warn: Callable[[str], None] = print) -> "CutSet":
        """The cuts of a subset, one an utterance, with text and speaker; what is left out is named through `warn`."""

    def searches(self, folder: Path) -> list[Search]:
        """The searches whose language models are there, each after the one that it rescores; the first chooses scales.
        """

    def lexicon(self, folder: Path) -> Path:
        """The pronunciation lexicon."""
