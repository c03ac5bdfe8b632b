"""A process that aborts, one that is killed, one that raises, one that works."""

import os
import signal
from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.fsa import child


def test_what_ends_the_process_is_a_sentence_with_the_file() -> None:
    with pytest.raises(UserError, match=r"^lm.arpa: the program ended with SIGABRT .*; check the file$"):
        child.call("lm.arpa", os.abort)
    with pytest.raises(UserError, match="^lm.arpa: the process was killed, as happens without enough memory"):
        child.call("lm.arpa", signal.raise_signal, signal.SIGKILL)


def test_errors_pass_and_work_is_done(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^the file .*none does not exist$"):
        child.call("lm.arpa", require_file, tmp_path / "none", "the file")
    with pytest.raises(RuntimeError, match="FileNotFoundError"):
        child.call("lm.arpa", os.rmdir, tmp_path / "none")
    child.call("lm.arpa", os.mkdir, tmp_path / "made")
    assert (tmp_path / "made").is_dir()
