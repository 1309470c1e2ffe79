# SPDX-License-Identifier: Apache-2.0
"""Point lists of 3D Slicer: ``.fcsv`` (markups fiducials) and ``.mrk.json`` (markups). Their headers name the frame of
the coordinates.

Only positions are read and replaced: ids, labels and display entries stay as they are.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, List, Tuple

import numpy as np

from vxm_convert.errors import FormatError

#: names of frames, and the numbers that Slicer 4.10 and older write in .fcsv
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
        said = [
            line.split("=", 1)[1].strip()
            for line in self._comments
            if line.lower().replace(" ", "").startswith("#coordinatesystem=")
        ]
        self.frame = _frame(said[0] if said else None)
        self.xyz = _numbers([row[1:4] for row in self._rows])

    def with_points(self, xyz: np.ndarray) -> str:
        """The file's text with other positions."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row, position in zip(self._rows, xyz):
            writer.writerow([row[0]] + [f"{value:.6f}" for value in position] + row[4:])
        return "".join(line + "\n" for line in self._comments) + text.getvalue()


class MarkupsJson:
    """A .mrk.json with one list of control points; raises FormatError as `Fcsv`, and for other JSON."""

    def __init__(self, text: str) -> None:
        try:
            self._document = json.loads(text)
            (markup,) = self._document["markups"]
            self._points = markup["controlPoints"]
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
        """The file's text with other positions; orientations and measurements of the old ones are left out."""
        points = [
            {
                **{key: value for key, value in point.items() if key != "orientation"},
                "position": [round(float(v), 6) for v in position],
            }
            for point, position in zip(self._points, xyz)
        ]
        markup = {key: value for key, value in self._document["markups"][0].items() if key != "measurements"}
        return json.dumps({**self._document, "markups": [{**markup, "controlPoints": points}]}, indent=2) + "\n"


def _frame(said: object) -> str:
    if str(said) not in _FRAMES:
        raise FormatError(f"coordinate system {said!r}, expected RAS or LPS; save it again with a current Slicer")
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
