import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrcompress import registry
from asrcompress.errors import UserError


class Base:
    name = ""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with the members `one`, `two` and, in a sub-package, `three`, and modules that are none."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_hidden.py").write_text("raise RuntimeError('this is no member')\n")
    (folder / "base.py").write_text("raise RuntimeError('this is no member')\n")
    (folder / "two.py").write_text("")
    (folder / "inner").mkdir()
    for name in ("__init__", "three"):
        (folder / "inner" / f"{name}.py").write_text("")
    (folder / "one.py").write_text(f"from {__name__} import Base\n"
                                   "class Other(Base):\n    name = 'other'\n"
                                   "class One(Base):\n    name = 'one'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "shelf"
    for name in [name for name in sys.modules if name.split(".")[0] == "shelf"]:
        del sys.modules[name]


def test_members_are_the_modules_that_are_no_helpers(package: str) -> None:
    assert registry.names(package) == ("one", "three", "two")
    assert registry.module(package, "three", "is no box").__name__ == "shelf.inner.three"
    assert registry.module(package, "two", "is no box").__name__ == "shelf.two"


def test_the_class_of_a_member_is_the_one_with_its_name(package: str) -> None:
    assert registry.member(package, "one", Base, "is no box").__name__ == "One"


@pytest.mark.parametrize("name", ["four", "_hidden", "base", "../one", ""])
def test_an_unknown_member_is_a_sentence_that_names_the_others(package: str, name: str) -> None:
    with pytest.raises(UserError) as error:
        registry.member(package, name, Base, "is no box", beside=("zero",))
    assert str(error.value) == f"there is no box '{name}'; there are zero, one, three, two"
