"""Pages and tables of the site that are made from other files, while mkdocs builds it.

* `results.md`, `conformer/index.md` and `changelog.md` are files of the repository; `api/` is made from the docstrings.
* A link to a module, `../asrcompress/.../name.py`, becomes one to its API.
* A line `<!-- rows: svd-0.25 epr-* -->` becomes a table of these rows of the LibriSpeech recipe, by name, and
  `<!-- rows conformer/tied: tied-* -->` one of the rows in that folder of the recipe.
"""

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from asrcompress.report import rows, table

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "librispeech"
RESULT_FILES = ("wer_vs_bytes.png", "table.csv", "device.csv")
TEST_SET, RATE = "dev-clean-2", ("wer", "tgsmall")
FACTS = ("name", "packed_bytes", "ratio", "rtf", "train_seconds")  # columns of the tables in the pages
CONFORMER = RECIPE / "conformer" / "longer"
LINKS = {"results": RECIPE / "RESULTS.md", "conformer/index": CONFORMER / "RESULTS.md",
         "changelog": ROOT / "CHANGELOG.md"}


def on_config(config: Any) -> Any:
    """List the pages of the first level that mkdocs.yml does not name, before the API reference."""
    named = str(config.nav)
    more = [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in named]
    at = next(i for i, one in enumerate(config.nav) if "API reference" in one)
    config.nav[at:at] = more
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made here."""
    for name, source in LINKS.items():
        files.append(File.generated(config, f"{name}.md", content=source.read_text(encoding="utf-8")))
    for name in RESULT_FILES:
        files.append(File.generated(config, name, abs_src_path=str(RECIPE / name)))
        files.append(File.generated(config, f"conformer/{name}", abs_src_path=str(CONFORMER / name)))
    packages = {name: modules(name) for name in package_names()}
    for name, text in api_pages({name: found for name, found in packages.items() if found}).items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the `rows` comments of a page by tables, and links to modules by links to their API."""
    markdown = re.sub(r"\(\.\./(asrcompress/[\w/]+)\.py\)", lambda found: f"({api_link(found[1])})", markdown)
    return re.sub(r"<!-- rows ?(\S*): (.*?) -->", lambda found: rows_table(found[1], found[2].split()), markdown)


def api_link(path: str) -> str:
    """Where the API of the module `asrcompress/.../name` is, from a page of the first level."""
    package, _, _ = (dotted := path.replace("/", ".")).rpartition(".")
    return f"api/{package}/index.md#{dotted}"


def rows_table(folder: str, globs: list[str]) -> str:
    """A Markdown table of the rows whose names match one of the globs, by falling size of their files."""
    lines = [line for line in table.pivot(rows.read(RECIPE / folder / "results.jsonl"), TEST_SET)
             if RATE in line.cells and any(fnmatchcase(line.facts["name"], glob) for glob in globs)]
    missing = [glob for glob in globs if not any(fnmatchcase(line.facts["name"], glob) for line in lines)]
    if missing:
        raise ValueError(f"no row of {folder or RECIPE.name} is called {', '.join(missing)}")
    return table.to_markdown(table.table(lines, FACTS, [RATE]))


def package_names() -> list[str]:
    """Every package of asrcompress, dotted."""
    folders = sorted(path.parent for path in (ROOT / "asrcompress").rglob("__init__.py"))
    return [".".join(folder.relative_to(ROOT).parts) for folder in folders]


def modules(package: str) -> list[str]:
    """The public modules of a package that have a docstring, dotted, itself first."""
    folder = ROOT / Path(*package.split("."))
    found = [folder / "__init__.py", *sorted(path for path in folder.glob("[!_]*.py"))]
    return [".".join([package, path.stem]).removesuffix(".__init__") for path in found if says_something(path)]


def says_something(path: Path) -> bool:
    """Whether a module has a docstring."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is not None


def api_pages(packages: dict[str, list[str]]) -> dict[str, str]:
    """Page name -> Markdown: an index, and a page per package."""
    index = "# API reference\n\n`import asrcompress` offers what most programs need; the packages are the rest.\n\n"
    index += "".join(f"* [{name}]({name}/index.md)\n" for name in packages)
    pages = {f"{name}/index": f"# {name}\n\n" + "".join(f"::: {module}\n\n" for module in found)
             for name, found in packages.items()}
    return {"index": index, **pages}
