"""The README and the docs site: links lead somewhere, commands are valid, every method has its place."""

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from asrcompress import config

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What docs/hooks.py makes.
MADE = [ROOT / "docs" / file
        for file in ("results.md", "conformer/index.md", "changelog.md", "conformer/wer_vs_bytes.png", "api/index.md")]
COMPOSED = {"compress", "train", "experiment"}  # commands that take overrides of conf/COMMAND.yaml


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced code blocks of a page in these languages."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def commands(text: str) -> list[list[str]]:
    """The asrcompress commands of a page's shell blocks, as words."""
    lines = [line for block in blocks(text, "sh", "") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("asrcompress ")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        file = target.partition("#")[0]
        if file and "://" not in target:
            where = (page.parent / file).resolve()
            assert where in MADE or where.exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_valid(page: Path) -> None:
    for command, *words in commands(page.read_text()):
        parser = argparse.ArgumentParser()
        importlib.import_module(f"asrcompress.cli.{command}").add_arguments(parser)
        rest = parser.parse_known_args(words)[1]
        assert not [word for word in rest if word.startswith("-")], f"{name(page)}: asrcompress {command} {rest}"
        if command in COMPOSED:
            config.compose(command, [word for word in words if re.match(r"\w[\w.]*=", word)])


def test_every_method_has_a_section() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for group in ("structure", "quantization", "coder", "budget", "criterion", "schedule"):
        for file in sorted((ROOT / "conf" / group).glob("*.yaml")):
            if file.stem not in ("dense", "float32", "none"):
                assert f'"conf/{group}/{file.name}"' in text or f"`{file.stem}`" in text, f"{group} {file.stem}"


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        assert not re.search(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//', text), page
        assert not re.search(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(?:https?:)?//', text), page
    assert "svd-0.25" in (tmp_path / "methods" / "low_rank" / "index.html").read_text()
