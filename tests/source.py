"""The source code as data: public definitions with their docstrings, and lengths of files and functions.

    python -m tests.source [FOLDER]     statistics of the clone in FOLDER
"""

import ast
import importlib
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef
PROTOCOL = ("add_arguments", "run")  # of a command: asrcompress/cli/__init__.py says what they are


@dataclass
class Definition:
    """A public module, class, function or method: where it is, and what of it the checks look at."""

    where: str
    node: ast.Module | ast.ClassDef | Function

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    def takes_arrays(self) -> bool:
        """Whether an argument or the result of a function is annotated as a tensor or an array."""
        if not isinstance(self.node, Function):
            return False
        hints = [arg.annotation for arg in [*self.node.args.args, *self.node.args.kwonlyargs]] + [self.node.returns]
        names = {getattr(part, "id", getattr(part, "attr", "")) for hint in hints if hint for part in ast.walk(hint)}
        return bool(names & {"Tensor", "NDArray", "ndarray"})

    def raises(self) -> set[str]:
        """The errors that a function raises itself: those of its nested functions count."""
        if not isinstance(self.node, Function):
            return set()
        raised = [part.exc for part in ast.walk(self.node) if isinstance(part, ast.Raise) and part.exc]
        return {getattr(one.func, "id", "") for one in raised if isinstance(one, ast.Call)}


class Package:
    """The modules of a package, parsed."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        files = sorted((root / "asrcompress").rglob("*.py"))
        self.trees = {path.relative_to(root): ast.parse(path.read_text(encoding="utf-8")) for path in files}
        self.classes = {node.name: (path, node) for path, tree in self.trees.items() for node in ast.walk(tree)
                        if isinstance(node, ast.ClassDef)}

    def public(self) -> Iterator[Definition]:
        """Everything without a leading underscore in modules without one, save what overrides documented methods."""
        for path, tree in self.trees.items():
            parts = [part for part in (*path.parent.parts, path.stem) if not part.startswith("__")]
            if not any(part.startswith("_") for part in parts) and tree.body:
                yield Definition(str(path), tree)
                yield from self._members(path, tree, str(path))

    def _members(self, path: Path, owner: ast.Module | ast.ClassDef, where: str) -> Iterator[Definition]:
        for node in owner.body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_") or _is_setter(node):
                continue
            if path.parent.name == "cli" and node.name in PROTOCOL:
                continue
            if isinstance(owner, ast.ClassDef) and self._is_documented_above(path, owner, node.name):
                continue
            yield Definition(f"{where}: {node.name}", node)
            if isinstance(node, ast.ClassDef):
                yield from self._members(path, node, f"{where}: {node.name}")

    def _is_documented_above(self, path: Path, owner: ast.ClassDef, name: str) -> bool:
        """Whether a base class of `owner`, ours or another package's, has a documented attribute of this name."""
        for base in owner.bases:
            last = ast.unparse(base).split("[")[0].split(".")[-1]
            if last in self.classes and self.classes[last][1] is not owner:
                where, node = self.classes[last]
                found = [one for one in node.body if getattr(one, "name", "") == name]
                if any(ast.get_docstring(one) for one in found if isinstance(one, Function | ast.ClassDef)):
                    return True
                if self._is_documented_above(where, node, name):
                    return True
            elif getattr(getattr(self._imported(path, ast.unparse(base)), name, None), "__doc__", None):
                return True
        return False

    def _imported(self, path: Path, name: str) -> object:
        """The object that a dotted name in a module stands for, from another package; None if it is not there."""
        first, *rest = name.split("[")[0].split(".")
        for node in ast.walk(self.trees[path]):
            for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else []:
                if (alias.asname or alias.name) == first:
                    start = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
                    return _resolve([*start.split("."), *rest])
        return None

    def lengths(self) -> tuple[list[int], list[int]]:
        """Lines of every file and of every function."""
        files = [len((self.root / path).read_text(encoding="utf-8").splitlines()) for path in self.trees]
        functions = [node.end_lineno - node.lineno + 1 for tree in self.trees.values() for node in ast.walk(tree)
                     if isinstance(node, Function) and node.end_lineno]
        return files, functions


def _is_setter(node: ast.AST) -> bool:
    return any(isinstance(one, ast.Attribute) and one.attr == "setter" for one in getattr(node, "decorator_list", []))


def _resolve(parts: list[str]) -> object:
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found
    return None


def _spread(values: Iterable[int]) -> str:
    values = sorted(values)
    return f"median {statistics.median(values):.0f}, 90 % {values[int(0.9 * len(values))]}, largest {values[-1]}"


def main(root: Path) -> None:
    """Print the statistics of a clone."""
    package = Package(root)
    public = list(package.public())
    files, functions = package.lengths()
    documented = sum(bool(one.doc) for one in public)
    print(f"public modules, classes, functions: {len(public)}, documented {documented}, {documented / len(public):.1%}")
    print(f"lines of {len(files)} files: {_spread(files)}; in all {sum(files)}")
    print(f"lines of {len(functions)} functions: {_spread(functions)}")
    shell = [path for path in sorted(root.rglob("*.sh")) if ".venv" not in str(path.relative_to(root))]
    print(f"lines of shell: {sum(len(path.read_text().splitlines()) for path in shell)} in {len(shell)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
