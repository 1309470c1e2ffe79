# SPDX-License-Identifier: Apache-2.0
"""Point lists: CSV in, CSV out, and the frames their columns may be in.

A file has columns x, y, z: named by a header line, or the first three of a file without one. A warp is a map of fixed points to moving
points, although the *image* it resamples goes the other way; moving points are carried to the fixed side by solving for them.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

import numpy as np

from vxm_convert.artifacts import write_text
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import LPS, Grid, apply_affine

POINT_FRAMES = ("ras", "lps", "voxel")
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class PointList:
    """Coordinates (n, 3) float64, and whatever else the file holds: its header and rows of text (header empty without one)."""

    xyz: np.ndarray
    header: List[str]
    rows: List[List[str]]
    columns: List[int]


def read_points(path: Path) -> PointList:
    """Read a CSV or TSV of points; VolumeError for anything without three finite numbers per line."""
    path = Path(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such file, expected a CSV with columns x, y, z; check the path")
    if path.stat().st_size > _MAX_BYTES:
        raise VolumeError(f"{path}: {path.stat().st_size} bytes, expected a point list of at most {_MAX_BYTES}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.split("\n", 1)[0]
        rows = [row for row in csv.reader(io.StringIO(text), delimiter="\t" if "\t" in first else ",") if any(c.strip() for c in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise VolumeError(f"{path}: not a readable CSV ({exc})") from exc
    header: List[str] = []
    if rows and not all(_is_number(cell) for cell in rows[0][:3]):
        header = [cell.strip() for cell in rows.pop(0)]
    lowered = [cell.lower() for cell in header]
    columns = [lowered.index(axis) for axis in "xyz"] if set("xyz") <= set(lowered) else [0, 1, 2]
    if header and not set("xyz") <= set(lowered):
        raise VolumeError(f"{path}: columns {', '.join(header)}, expected x, y and z among them")
    if not rows:
        raise VolumeError(f"{path}: no points, expected at least one line of x, y, z")
    return PointList(np.array([_numbers(row, columns, path, i + 1) for i, row in enumerate(rows)]), header, rows, columns)


def write_points(path: Path, points: PointList, xyz: np.ndarray) -> None:
    """Write new coordinates in the place of the old ones; other columns and the header stay."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if points.header:
        writer.writerow(points.header)
    for row, position in zip(points.rows, xyz):
        cells = list(row)
        for column, value in zip(points.columns, position):
            cells[column] = f"{value:.6f}"
        writer.writerow(cells)
    write_text(Path(path), text.getvalue())


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
        raise VolumeError(f"points: frame {frame!r}, expected ras, lps, or voxel together with the image whose voxels are meant")
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
