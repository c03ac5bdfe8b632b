"""Running the graph: order, failures, what is lost, and what is said of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from asrcompress.errors import UserError
from asrcompress.recipe import estimate, launch, launchers
from asrcompress.recipe.graph import Task
from asrcompress.recipe.launchers import slurm
from asrcompress.recipe.launchers.base import LOST
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.sweep import Job


class Scripted:
    """A launcher whose jobs end, one poll after they were started, as a script says: a list of statuses a model."""

    cores = 1

    def __init__(self, statuses: Mapping[str, Sequence[int]]) -> None:
        self.statuses = {name: list(ends) for name, ends in statuses.items()}
        self.started: list[str] = []
        self.at_once, self.running, self.closed = 0, 0, False

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> dict[str, Any]:
        name = command[command.index("--only") + 1]
        self.started.append(name)
        self.running += 1
        self.at_once = max(self.at_once, self.running)
        log.write_text(f"some lines\nasrcompress recipe: {name} is broken\n\n")
        return {"polls": 0, "status": self.statuses[name].pop(0) if self.statuses.get(name) else 0}

    def outcome(self, handle: dict[str, Any]) -> int | None:
        handle["polls"] += 1
        if handle["polls"] < 2:
            return None
        self.running -= 1
        return handle["status"]

    def close(self) -> None:
        self.closed = True


GRAPH = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()}


def sweep(monkeypatch: pytest.MonkeyPatch, folder: Path, statuses: Mapping[str, Sequence[int]],
          jobs: int = 2, done: Sequence[str] = ()) -> Scripted:
    """Run GRAPH with scripted ends; `done` are those whose files say so."""
    launcher, settings = Scripted(statuses), Settings(jobs=jobs)
    tasks = [Task("compress", name, tuple(f"compress {need}" for need in needs), Job(name, "after", settings))
             for name, needs in GRAPH.items()]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(launch, "POLL", 0.0)
    monkeypatch.setattr(launchers, "build", lambda *_: launcher)
    monkeypatch.setattr(estimate, "seconds", lambda tasks, settings: dict.fromkeys((task.key for task in tasks), 1.0))
    monkeypatch.setattr(Task, "done", lambda self, settings: self.name in done)
    try:
        launch.run(tasks, settings)
    finally:
        assert launcher.closed or len(done) == len(GRAPH)
    return launcher


def test_a_job_starts_when_what_it_needs_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = sweep(monkeypatch, tmp_path, {})
    assert sorted(launcher.started) == list("abcde") and launcher.started[0] == "a" and launcher.started[-1] == "d"
    assert launcher.at_once == 2
    assert sweep(monkeypatch, tmp_path, {}, jobs=1).at_once == 1


def test_what_is_done_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep(monkeypatch, tmp_path, {}, done="ab").started == ["c", "e", "d"]
    assert sweep(monkeypatch, tmp_path, {}, done="abcde").started == []
    # b and d would be made from another a than the one that they were made from
    assert sorted(sweep(monkeypatch, tmp_path, {}, done="bde").started) == list("abcd")


def test_what_was_lost_is_started_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    launcher = sweep(monkeypatch, tmp_path, {"b": [LOST, 0], "e": [-9, 0]})
    assert sorted(launcher.started) == list("abbcdee")
    assert "compress b: its process or its machine was lost; it is started once more" in capsys.readouterr().out


def test_a_failure_is_one_sentence_after_the_others_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as error:
        sweep(monkeypatch, tmp_path, {"b": [1], "e": [LOST, LOST]})
    assert str(error.value).splitlines() == [
        "2 of 5 jobs failed, and 1 that wait for them did not start; the same command tries them again",
        "  compress b: asrcompress recipe: b is broken (log/b.compress.log)",
        "  compress e: its process or its machine was lost twice (log/e.compress.log)"]


def test_a_job_that_fails_is_not_tried_again_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launchers_seen: list[Scripted] = []
    with pytest.raises(UserError):
        launchers_seen.append(sweep(monkeypatch, tmp_path, {"a": [1, 0]}))
    assert not launchers_seen  # it raised, and the script still has its second end
    assert (tmp_path / "log" / "a.compress.log").exists() and not (tmp_path / "log" / "b.compress.log").exists()


def test_a_launcher_is_named_with_its_options(tmp_path: Path) -> None:
    for name, words, said in (("moon", (), "there is no launcher 'moon'; there are local, ray, slurm"),
                              ("local", ("cpus=2",), "launcher local has no option 'cpus'"),
                              ("ray", ("cpus",), "write cpus=VALUE"), ("ray", ("cpus=0",), "cpus is 1 or more"),
                              ("slurm", ("partitoin=x",), "did you mean 'partition'"),
                              ("slurm", ("time=long",), "time is 'long'; it is a whole number")):
        with pytest.raises(UserError, match=said):
            launchers.build(name, words, 1, tmp_path)


def test_texts_of_digits_stay_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "launcher", lambda options, jobs, folder: options)
    found = launchers.build("slurm", ("account=12345", "partition=1", "mem=16000", "time=60", "gpus_per_node=2"), 1,
                            tmp_path)
    assert found == slurm.Options(account="12345", partition="1", mem="16000", time=60, gpus_per_node=2)
