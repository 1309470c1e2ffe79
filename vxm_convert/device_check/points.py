# SPDX-License-Identifier: Apache-2.0
"""The points of a check: what was predicted, what was found, and how the two compare. Data and their JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping

from vxm_convert.errors import FormatError

CHECK_SCHEMA = 1
AS_PREDICTED = "as predicted"
DIFFERS = "differs"
FAILED = "failed"
NOT_DONE = "not done"
MEASURED = "measured"
STATES = (AS_PREDICTED, DIFFERS, FAILED, NOT_DONE, MEASURED)
_TEXTS = ("name", "predicted", "found", "assumption", "advice")


@dataclass(frozen=True)
class Point:
    """One thing that was looked at.

    Parameters
    ----------
    name : str — e.g. ``conv3d, force_fp16: saturation``.
    state : str — one of `STATES`; `MEASURED` figures have nothing to be compared with.
    predicted, found : str — both sides in words and figures.
    assumption : str — key of the assumption that a difference touches, or "".
    advice : str — what to do, where something is to be done.
    """

    name: str
    state: str
    predicted: str = ""
    found: str = ""
    assumption: str = ""
    advice: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Point:
        """The inverse of `asdict`; raises FormatError."""
        if not isinstance(data, dict) or data.get("state") not in STATES:
            raise FormatError(f"point: got {str(data)[:80]!r}, expected a state of {', '.join(STATES)}")
        texts = {name: data.get(name, "") for name in _TEXTS}
        if not all(isinstance(text, str) for text in texts.values()):
            raise FormatError(f"point: {str(data)[:80]!r} has an entry that is no text")
        return cls(state=data["state"], **texts)


@dataclass
class Rung:
    """One rung of the ladder: its points, in order, and the seconds that it took."""

    name: str
    question: str
    points: List[Point] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def state(self) -> str:
        """The worst state of its points."""
        states = {point.state for point in self.points}
        return next((state for state in (FAILED, DIFFERS, AS_PREDICTED, MEASURED) if state in states), NOT_DONE)

    def to_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "state": self.state}

    @classmethod
    def from_dict(cls, data: Any) -> Rung:
        """The inverse of `to_dict`; raises FormatError."""
        if not isinstance(data, dict) or not isinstance(data.get("points"), list):
            raise FormatError(f"rung: got {str(data)[:80]!r}, expected name, question and points")
        seconds = data.get("seconds")
        points = [Point.from_dict(point) for point in data["points"]]
        return cls(
            str(data.get("name", "")),
            str(data.get("question", "")),
            points,
            float(seconds) if isinstance(seconds, (int, float)) else 0.0,
        )


def count(rungs: List[Rung]) -> Dict[str, int]:
    """Number of points per state."""
    return {state: sum(point.state == state for rung in rungs for point in rung.points) for state in STATES}


def sentence_of(point: Point) -> str:
    """One line: as predicted, differs by …, failed because …; do this."""
    if point.state == AS_PREDICTED:
        text = f"as predicted: {point.found or point.predicted}"
    elif point.state == DIFFERS:
        text = f"differs: predicted {point.predicted}, found {point.found}"
    elif point.state == FAILED:
        text = f"failed: {point.found}"
    else:
        text = f"{point.state}: {point.found}"
    advice = f"; do this: {point.advice}" if point.advice else ""
    return f"{point.name}: {text}{advice}"
