"""Copies of an utterance at other speeds: each knows by a field, `custom["origin"]`, which utterance it was made of."""

from collections.abc import Sequence
from typing import Any

from lhotse import CutSet, MonoCut
from lhotse.utils import fastcopy


def speed_copies(cuts: CutSet, speeds: Sequence[float]) -> list[MonoCut]:
    """Every cut at every speed (1 is the original), speed after speed; each supervision says what its origin is."""
    named = CutSet.from_cuts(_with_origin(cut) for cut in cuts)
    return [cut for speed in speeds for cut in (named if speed == 1 else named.perturb_speed(speed))]


def _with_origin(cut: MonoCut) -> MonoCut:
    said = cut.supervisions[0]
    return fastcopy(cut, supervisions=[fastcopy(said, custom={**(said.custom or {}), "origin": said.id})])


def origin(cut: MonoCut) -> str:
    """The id of the utterance that a cut says, the same for all its speed copies.

    Manifests that lhotse's own `perturb_speed` made have no such field; there the recording's transforms tell.
    """
    said = cut.supervisions[0]
    if said.custom and "origin" in said.custom:
        return said.custom["origin"]
    name = said.id
    for transform in reversed((cut.recording and cut.recording.transforms) or []):
        kind, options = _parts(transform)
        if kind == "Speed":
            name = name.removesuffix(f"_sp{options['factor']}")
    return name


def _parts(transform: Any) -> tuple[str, dict[str, Any]]:
    """Name and options of a transform, which is a dictionary or an object of lhotse."""
    found = transform if isinstance(transform, dict) else transform.to_dict()
    return found["name"], found["kwargs"]
