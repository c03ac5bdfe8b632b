"""Spike agreement: whether two CTC models say their tokens at the same time."""

from dataclasses import dataclass

import numpy as np

from asrcompress.decoding.archive import Archive
from asrcompress.errors import UserError


@dataclass(frozen=True)
class Agreement:
    """Of how many frames, the spikes of the teacher, the student agrees with how many."""

    agreed: int
    spikes: int

    def line(self) -> str:
        """The share in words."""
        return f"spike agreement {100 * self.agreed / max(1, self.spikes):.1f} % of {self.spikes} frames"


def spike_agreement(teacher: Archive, student: Archive, within: int = 1) -> Agreement:
    """Share of the teacher's frames whose best token is no blank where the student's best is the same token `within`
    so many frames.

    Errors: UserError where the archives are not of the same tokens, utterances and frames.
    """
    if teacher.dim != student.dim:
        raise UserError(f"{teacher.path} has {teacher.dim} tokens and {student.path} {student.dim}; compare models of "
                        "one lang folder")
    agreed = spikes = 0
    for utt in teacher.utts:
        one, two = _best(teacher, utt), _best(student, utt)
        if len(one) != len(two):
            raise UserError(f"utterance {utt} has {len(one)} frames in {teacher.path} and {len(two)} in {student.path};"
                            " compare models of the same subsampling on the same set")
        padded = np.pad(two, within, constant_values=-1)
        near = [padded[shift:shift + len(one)] == one for shift in range(2 * within + 1)]
        agreed += int((np.any(near, axis=0) & (one != 0)).sum())
        spikes += int((one != 0).sum())
    return Agreement(agreed, spikes)


def _best(archive: Archive, utt: str) -> np.ndarray:
    """The best token of each frame (T,)."""
    if utt not in archive.utts:
        raise UserError(f"{archive.path} lacks utterance {utt}; compute the posteriors of both models on the same set")
    return archive[utt].argmax(axis=1)
