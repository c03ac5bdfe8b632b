"""What is public says what it does, shapes where it takes tensors, and the errors that it raises."""

import re
from pathlib import Path

from tests.source import Definition, Package

SHAPE = re.compile(r"""\([^()]*,[^()]*\) |
    \b(shapes?|matri(x|ces)|vectors?|scalars?|tensors?|arrays?|kernels?|weights?|symbols|elements?|rows?|columns?|frames|
    values|factors?|cores?|batch|elementwise)\b""", re.VERBOSE)


def faults(package: Package) -> list[str]:
    """A line for every public definition whose docstring lacks something."""
    return [f"{one.where}: {said}" for one in package.public() if (said := fault(one))]


def fault(one: Definition) -> str:
    """What a docstring lacks; nothing where all is there."""
    if not one.doc:
        return "no docstring"
    if "UserError" in one.raises() and "Error" not in one.doc:
        return "raises UserError and does not say when"
    if one.takes_arrays() and not SHAPE.search(one.doc):
        return "takes or returns tensors and does not say their shapes"
    return ""


def test_everything_public_is_documented() -> None:
    found = faults(Package())
    assert not found, "\n".join(found)


def test_the_check_finds_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "asrcompress").mkdir()
    (tmp_path / "asrcompress" / "__init__.py").write_text('"""A package."""\n')
    (tmp_path / "asrcompress" / "one.py").write_text('''
from torch import Tensor, nn
def bare() -> None: ...
def silent() -> None:
    """Stop."""
    raise UserError("no")
def shapeless(x: Tensor) -> Tensor:
    """Make it better."""
def good(x: Tensor) -> Tensor:
    """Twice x, (out, in). Errors: UserError where x is empty."""
    raise UserError("empty")
def _private() -> None: ...
class Layer(nn.Module):
    """A layer."""
    def extra_repr(self) -> str: ...
    def mine(self) -> int: ...
class Child(Layer):
    """A layer of a layer."""
    def mine(self) -> int: ...
''')
    one = "asrcompress/one.py"
    assert faults(Package(tmp_path)) == [
        f"{one}: no docstring", f"{one}: bare: no docstring", f"{one}: silent: raises UserError and does not say when",
        f"{one}: shapeless: takes or returns tensors and does not say their shapes",
        f"{one}: Layer: mine: no docstring", f"{one}: Child: mine: no docstring"]
