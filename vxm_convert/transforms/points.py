# SPDX-License-Identifier: Apache-2.0
"""Point lists: CSV, TSV or Slicer's markups, written as they were read, and the frames of their coordinates.

A table has columns x, y, z: named by a header line, or the only numbers of a file without one; Slicer's files name their
frame. A warp is a map of fixed points to moving points, although the *image* it resamples goes the other way; moving
points are mapped to the fixed side by solving for them.
"""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Type, Union

import numpy as np

from vxm_convert.artifacts.files import write_text
from vxm_convert.errors import FormatError, VolumeError
from vxm_convert.geometry.grids import LPS, Grid, apply_affine
from vxm_convert.scans.raw_header import require_file
from vxm_convert.text import read_reason
from vxm_convert.transforms.slicer import Fcsv, MarkupsJson

LOG = logging.getLogger(__name__)

POINT_FRAMES = ("ras", "lps", "voxel")
_MAX_BYTES = 64 << 20
#: columns that name a point, the first that is there; an id may only be its row's number
_LABEL_COLUMNS = ("label", "name", "landmark", "structure")


@dataclass(frozen=True)
class PointList:
    """Coordinates (n, 3) float64, and the other content of the file.

    Parameters
    ---------- header, rows, columns — of a table: its header (empty without one), rows of text, and the columns of x, y
    and z.
    frame : str — frame in the file (``ras``, ``lps``), or None for a table.
    markups : Fcsv or MarkupsJson — of a file of Slicer's.
    labels : sequence of str — names of the points, one each; empty where the file has none.
    """

    xyz: np.ndarray
    header: Sequence[str] = ()
    rows: Sequence[List[str]] = ()
    columns: Sequence[int] = ()
    frame: Optional[str] = None
    markups: Optional[Union[Fcsv, MarkupsJson]] = None
    labels: Sequence[str] = ()

    def frame_or(self, given: Optional[str], path: Path) -> str:
        """The frame of the coordinates: the file's, else the `given` one, else RAS; VolumeError if the two disagree."""
        if self.frame is not None and given not in (None, self.frame):
            raise VolumeError(f"{path}: its header says {self.frame.upper()}, --frame says {given}; omit --frame")
        return self.frame or given or "ras"


def read_points(path: Path) -> PointList:
    """Read a CSV, TSV, .fcsv or .mrk.json of points; VolumeError for anything without three finite numbers per
    point.
    """
    path = Path(path)
    require_file(path, "a CSV with columns x, y, z")
    if path.stat().st_size > _MAX_BYTES:
        raise VolumeError(f"{path}: {path.stat().st_size} bytes, expected a point list of at most {_MAX_BYTES}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        kind = _markups_kind(path)
        if kind is not None:
            markups = kind(text)
            if markups.unplaced:
                LOG.warning(
                    "%s: %d points were never placed and are left out: %s",
                    path,
                    len(markups.unplaced),
                    ", ".join(markups.unplaced[:5]),
                )
            return PointList(markups.xyz, frame=markups.frame, markups=markups, labels=markups.labels)
        first = text.split("\n", 1)[0]
        rows = [
            row
            for row in csv.reader(io.StringIO(text), delimiter="\t" if "\t" in first else ",")
            if any(c.strip() for c in row)
        ]
    except FormatError as exc:
        raise VolumeError(f"{path}: {exc}") from exc
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise VolumeError(
            f"{path}: not a readable list of points ({read_reason(exc)}), expected a CSV with columns x, y, z"
        ) from exc
    header: List[str] = []
    if rows and not all(_is_number(cell) for cell in rows[0][:3]):
        header = [cell.strip() for cell in rows.pop(0)]
    columns, label = _columns(path, header, rows)
    if not rows:
        raise VolumeError(f"{path}: no points, expected at least one line of x, y, z")
    return PointList(
        np.array([_numbers(row, columns, path, i + 1) for i, row in enumerate(rows)]),
        header,
        rows,
        columns,
        labels=[] if label is None else [row[label].strip() if label < len(row) else "" for row in rows],
    )


def _columns(path: Path, header: List[str], rows: List[List[str]]) -> Tuple[List[int], Optional[int]]:
    """Where x, y and z stand, and the label; a table without header has nothing but x, y, z and words behind them."""
    names = [cell.lower() for cell in header]
    if header:
        if any(names.count(axis) != 1 for axis in "xyz"):
            raise VolumeError(f"{path}: columns {', '.join(header)}, expected x, y and z among them, once each")
        label = next((names.index(name) for name in _LABEL_COLUMNS if name in names), None)
        return [names.index(axis) for axis in "xyz"], label
    if any(_is_number(cell) for row in rows for cell in row[3:]):
        raise VolumeError(
            f"{path}: {len(rows[0])} columns of numbers and no header, expected x, y, z alone: one may be an id; add a "
            "first line with the columns' names, such as id,x,y,z"
        )
    return [0, 1, 2], 3 if rows and all(len(row) > 3 for row in rows) else None


def write_points(path: Path, points: PointList, xyz: np.ndarray) -> None:
    """Write new coordinates instead of the old ones; everything else stays."""
    check_points_target(path, points)
    if points.markups is not None:
        write_text(Path(path), points.markups.with_points(xyz))
        return
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if Path(path).name.lower().endswith(".tsv") else ",", lineterminator="\n")
    if points.header:
        writer.writerow(points.header)
    for row, position in zip(points.rows, xyz):
        cells = list(row)
        for column, value in zip(points.columns, position):
            cells[column] = f"{value:.6f}"
        writer.writerow(cells)
    write_text(Path(path), text.getvalue())


def check_points_target(path: Path, points: PointList) -> None:
    """Raise VolumeError for a name whose suffix does not match the format, which is that of the input."""
    kind = _markups_kind(path)
    if (kind is None) != (points.markups is None) or not (kind is None or isinstance(points.markups, kind)):
        wanted = (
            "a .csv or .tsv" if points.markups is None else ".fcsv" if isinstance(points.markups, Fcsv) else ".mrk.json"
        )
        raise VolumeError(f"{path}: points keep the format of their input, expected {wanted}; change the name")
    if kind is None and not Path(path).name.lower().endswith((".csv", ".tsv", ".txt")):
        raise VolumeError(f"{path}: points are written to .csv or .tsv; change the name")


def _markups_kind(path: Path) -> Optional[Type[Union[Fcsv, MarkupsJson]]]:
    name = Path(path).name.lower()
    return Fcsv if name.endswith(".fcsv") else MarkupsJson if name.endswith(".json") else None


def to_ras(xyz: np.ndarray, frame: str, grid: Optional[Grid]) -> np.ndarray:
    """Coordinates in a frame of `POINT_FRAMES` → RAS mm; ``voxel`` needs the image's grid."""
    return apply_affine(_matrix(frame, grid), xyz)


def from_ras(ras: np.ndarray, frame: str, grid: Optional[Grid]) -> np.ndarray:
    """RAS mm → coordinates in a frame; the inverse of `to_ras`."""
    return apply_affine(np.linalg.inv(_matrix(frame, grid)), ras)


def _matrix(frame: str, grid: Optional[Grid]) -> np.ndarray:
    if frame == "ras":
        return np.eye(4)
    if frame == "lps":
        return LPS
    if frame != "voxel" or grid is None:
        raise VolumeError(f"points: frame {frame!r}, expected ras, lps, or voxel with the image of these voxels")
    return grid.affine


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(row: List[str], columns: List[int], path: Path, line: int) -> List[float]:
    try:
        values = [float(row[column]) for column in columns]
    except (ValueError, IndexError) as exc:
        raise VolumeError(f"{path}, point {line}: {row}, expected numbers for x, y and z") from exc
    if not np.isfinite(values).all():
        raise VolumeError(f"{path}, point {line}: {values}, expected finite coordinates")
    return values
