"""However a process ends, those that it started end too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

SAY = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
PROGRAM = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from asrcompress.fsa import child, interpreter
from asrcompress.processes import die_with_parent
script, say = sys.argv[1:]
"""


@pytest.mark.parametrize("start", [
    "ProcessPoolExecutor(2, get_context('fork'), die_with_parent).submit(exec, say)",
    "ProcessPoolExecutor(2, get_context('forkserver'), die_with_parent).submit(exec, say)",
    "child.call('lm.arpa', exec, say)",
    "interpreter.run(script, [])"])
def test_none_outlives_a_parent_that_is_killed(start: str, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    script.chmod(0o755)
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM + start, script, SAY], stdout=subprocess.PIPE, text=True,
                              cwd=REPO)
    assert parent.stdout and int(parent.stdout.readline()) != parent.pid
    parent.kill()
    parent.communicate(timeout=10)  # the pipe ends with the last process that holds it


def test_every_pool_ends_with_its_parent() -> None:
    for path in (REPO / "asrcompress").rglob("*.py"):
        source = path.read_text()
        for call in ast.walk(ast.parse(source)) if "ProcessPoolExecutor" in source else ():
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("ProcessPoolExecutor"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("initializer") == "die_with_parent", path
