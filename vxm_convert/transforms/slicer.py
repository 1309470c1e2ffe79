# SPDX-License-Identifier: Apache-2.0
"""Point lists of 3D Slicer: ``.fcsv`` (markups fiducials) and ``.mrk.json`` (markups). Their headers name the frame of
the coordinates.

Only positions are replaced: ids, labels and display entries stay as they are. Points that were not placed have old
coordinates in the file (Slicer leaves them there); they are left out, also of what is written.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, List, Optional, Tuple

import numpy as np

from vxm_convert.errors import FormatError

#: positionStatus of a point that was placed; the others are undefined, preview, missing
_PLACED = "defined"
#: names of frames, and their numbers in .fcsv files of Slicer 4.10 and older
_FRAMES = {"RAS": "ras", "0": "ras", "LPS": "lps", "1": "lps"}


class Fcsv:
    """A .fcsv: comment lines, then rows of id, x, y, z, …

    Raises
    ------
    FormatError
        Without a coordinate system, for IJK, and for rows without three finite numbers.
    """

    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        self._comments = [line for line in lines if line.startswith("#")]
        self._rows = [
            row for row in csv.reader(line for line in lines if line.strip() and not line.startswith("#")) if row
        ]
        self.frame = _frame(self._said("coordinatesystem"))
        self._columns, label = _columns(self._said("columns"))
        self.xyz = _numbers([[row[at] if at < len(row) else "" for at in self._columns] for row in self._rows])
        self.labels = [row[label].strip() if label is not None and label < len(row) else "" for row in self._rows]
        self.unplaced: List[str] = []

    def with_points(self, xyz: np.ndarray) -> str:
        """The file's text with other positions."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row, position in zip(self._rows, xyz):
            cells = list(row)
            for at, value in zip(self._columns, position):
                cells[at] = f"{value:.6f}"
            writer.writerow(cells)
        return "".join(line + "\n" for line in self._comments) + text.getvalue()

    def _said(self, key: str) -> Optional[str]:
        """What stands behind ``# key =`` in the comments."""
        for line in self._comments:
            name, equals, value = line.lstrip("#").partition("=")
            if equals and name.strip().replace(" ", "").lower() == key:
                return value.strip()
        return None


class MarkupsJson:
    """A .mrk.json with one list of control points; raises FormatError as `Fcsv`, and for other JSON."""

    def __init__(self, text: str) -> None:
        try:
            self._document = json.loads(text)
            (markup,) = self._document["markups"]
            every = markup["controlPoints"]
            self._points = [point for point in every if point.get("positionStatus", _PLACED) == _PLACED]
            self.labels = [str(point.get("label", "")).strip() for point in self._points]
            left_out = [point for point in every if point.get("positionStatus", _PLACED) != _PLACED]
            self.unplaced = [str(point.get("label", point.get("id", ""))) for point in left_out]
            positions = [point["position"] for point in self._points]
            said, unit = markup.get("coordinateSystem"), markup.get("coordinateUnits", "mm")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise FormatError(
                f"expected Slicer markups with one list of control points ({type(exc).__name__}: {exc})"
            ) from exc
        if unit not in ("mm", ["mm"]):
            raise FormatError(f"coordinates in {unit}, expected mm")
        self.frame = _frame(said)
        self.xyz = _numbers(positions)

    def with_points(self, xyz: np.ndarray) -> str:
        """The file's text with other positions; orientations and measurements of the old ones are dropped."""
        points = [
            {
                **{key: value for key, value in point.items() if key != "orientation"},
                "position": [round(float(v), 6) for v in position],
            }
            for point, position in zip(self._points, xyz)
        ]
        markup = {key: value for key, value in self._document["markups"][0].items() if key != "measurements"}
        return json.dumps({**self._document, "markups": [{**markup, "controlPoints": points}]}, indent=2) + "\n"


def _columns(said: Optional[str]) -> Tuple[List[int], Optional[int]]:
    """Where x, y, z and the label stand; Slicer 3 put the label first, and has no id."""
    if said is None:
        return [1, 2, 3], None
    names = [name.strip().lower() for name in said.split(",")]
    if any(names.count(axis) != 1 for axis in "xyz"):
        raise FormatError(f"columns {said[:80]!r}, expected x, y and z once each among them")
    return [names.index(axis) for axis in "xyz"], names.index("label") if "label" in names else None


def _frame(said: object) -> str:
    if str(said) not in _FRAMES:
        got = "no coordinate system" if said is None else f"coordinate system {said!r}"
        raise FormatError(f"{got}, expected RAS or LPS; save it again with a current Slicer")
    return _FRAMES[str(said)]


def _numbers(positions: List[Any]) -> np.ndarray:
    found: List[Tuple[float, ...]] = []
    for number, position in enumerate(positions, start=1):
        try:
            values = tuple(float(value) for value in position)
        except (TypeError, ValueError):
            values = ()
        if len(values) != 3 or not np.isfinite(values).all():
            raise FormatError(f"point {number}: {position}, expected three finite coordinates")
        found.append(values)
    if not found:
        raise FormatError("no points, expected at least one")
    return np.array(found)
