"""Spike agreement against a loop over frames."""

from pathlib import Path

import numpy as np
import pytest

from asrcompress.cli import main
from asrcompress.decoding.agreement import Agreement, spike_agreement
from asrcompress.decoding.archive import Archive, ArchiveWriter
from asrcompress.errors import UserError

VOCAB = 5


def archive(path: Path, best: dict[str, list[int]], dim: int = VOCAB) -> Archive:
    with ArchiveWriter(path, dim) as writer:
        for utt, tokens in best.items():
            writer.add(utt, np.where(np.eye(dim)[tokens], -0.1, -5.0).reshape(-1, dim))
    return Archive(path)


def test_share_of_the_teachers_spikes_that_the_student_has_within_a_frame(tmp_path: Path) -> None:
    teacher = archive(tmp_path / "t", {"a": [0, 1, 0, 0, 2, 2, 0, 3], "b": [4]})
    student = archive(tmp_path / "s", {"b": [0], "a": [1, 0, 0, 2, 0, 0, 3, 0]})
    assert spike_agreement(teacher, student) == Agreement(3, 5)  # 1, the first 2 and 3 of a
    assert spike_agreement(teacher, student, within=0) == Agreement(0, 5)
    assert spike_agreement(teacher, student, within=2) == Agreement(4, 5)
    assert spike_agreement(teacher, teacher) == Agreement(5, 5)


@pytest.mark.parametrize("within", [0, 1, 3])
def test_against_a_loop(tmp_path: Path, within: int) -> None:
    rng = np.random.default_rng(0)
    paths = [{f"u{i}": rng.integers(0, VOCAB, size=n).tolist() for i, n in enumerate((20, 1, 0, 2))} for _ in range(2)]
    agreed = spikes = 0
    for utt, path in paths[0].items():
        for t, token in enumerate(path):
            if token:
                spikes += 1
                agreed += token in paths[1][utt][max(0, t - within):t + within + 1]
    teacher, student = (archive(tmp_path / str(i), one) for i, one in enumerate(paths))
    assert spike_agreement(teacher, student, within) == Agreement(agreed, spikes)


def test_archives_of_other_utterances_frames_or_tokens(tmp_path: Path) -> None:
    teacher = archive(tmp_path / "t", {"a": [0, 1], "b": [1]})
    for name, best, dim, words in (("s1", {"a": [0, 1]}, VOCAB, "lacks utterance b"),
                                   ("s2", {"a": [0, 1, 0], "b": [1]}, VOCAB, "utterance a has 2 frames in .* and 3 in"),
                                   ("s3", {"a": [0, 1], "b": [1]}, 6, "5 tokens and .* 6")):
        with pytest.raises(UserError, match=words):
            spike_agreement(teacher, archive(tmp_path / name, best, dim))


def test_greedy_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive(tmp_path / "t", {"a": [0, 1, 0, 2]})
    archive(tmp_path / "s", {"a": [1, 0, 0, 0]})
    (tmp_path / "tokens.txt").write_text("<blk> 0\nA 1\nB 2\nC 3\nD 4\n")
    (tmp_path / "lexicon.txt").write_text("W A B\n")
    (tmp_path / "ref.txt").write_text("a W\n")
    arguments = [f"--{key}={tmp_path / value}" for key, value in
                 {"archive": "s", "lang": ".", "ref": "ref.txt", "out": "out", "teacher": "t"}.items()]
    assert main(["greedy", *arguments]) == 0
    assert "spike agreement 50.0 % of 2 frames" in capsys.readouterr().out
