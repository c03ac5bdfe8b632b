"""Checkpoints that something spoiled: every one is a sentence, none is unpickled, and none is left half written."""

import os
from pathlib import Path

import pytest
import torch

from asrcompress.errors import UserError
from asrcompress.training.callbacks import resume_checkpoint
from asrcompress.training.callbacks.resume_checkpoint import AtomicCheckpointIO, EpochCheckpoints


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch evil",)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "latest.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.ones(400)}, "epoch": 2, "seconds": 1.0}, path)
    return path


def test_what_is_written_is_read_and_nothing_else_is_left(good: Path) -> None:
    assert torch.equal(resume_checkpoint.read(good)["state_dict"]["a"], torch.ones(400))
    assert [path.name for path in good.parent.iterdir()] == ["latest.ckpt"]
    resume_checkpoint.check(good, 3)


def test_a_folder_that_was_moved_keeps_its_epochs(tmp_path: Path) -> None:
    before, after = (EpochCheckpoints(tmp_path / name, 2, best=True) for name in ("before", "after"))
    before.best_k_models = {f"{before.dirpath}/00{epoch}.ckpt": torch.tensor(float(epoch)) for epoch in (1, 2)}
    before.best_model_path = f"{before.dirpath}/001.ckpt"
    after.load_state_dict(before.state_dict())
    assert list(after.best_k_models) == [str(tmp_path / "after" / name) for name in ("001.ckpt", "002.ckpt")]
    assert after.best_model_path == str(tmp_path / "after" / "001.ckpt") and not after.kth_best_model_path


@pytest.mark.parametrize("kept", [0, 100, 1000, -1])
def test_a_file_cut_short_is_a_sentence(good: Path, kept: int) -> None:
    good.write_bytes(good.read_bytes()[:kept])
    with pytest.raises(UserError, match=f"the checkpoint {good} is damaged .*; remove it to start again"):
        resume_checkpoint.check(good, 3)


def test_nothing_is_unpickled(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil(), "epoch": 0, "seconds": 0.0}, good)
    with pytest.raises(UserError, match="is damaged"):
        resume_checkpoint.read(good)
    assert not (tmp_path / "evil").exists()


def test_another_file_and_fewer_epochs_are_sentences(good: Path) -> None:
    with pytest.raises(UserError, match="has 3 epochs begun and training.epochs is 2"):
        resume_checkpoint.check(good, 2)
    torch.save({"a": 1}, good)
    with pytest.raises(UserError, match="is not a checkpoint of this program"):
        resume_checkpoint.check(good, 2)


def test_a_full_disk_leaves_the_checkpoint_before(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = good.read_bytes()

    def full(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="cannot be written .*; make room"):
        AtomicCheckpointIO().save_checkpoint({}, good)
    assert good.read_bytes() == before and [path.name for path in good.parent.iterdir()] == ["latest.ckpt"]
