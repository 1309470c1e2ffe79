# SPDX-License-Identifier: Apache-2.0
"""Selects slices and turns them into pixels: three planes, radiological, physical proportions; no colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.orientations import to_ras, turned

CONVENTION = (
    "radiological: the subject's right is on the left of axial and coronal slices, anterior on the left of "
    "sagittal ones"
)
#: pixels of the longest side of the shown box
CELL = 190
PER_PLANE = 5
#: position of the outer slices as a share of the shown box
_OUTER = 0.16
#: intensity above which a voxel belongs to the shown box, as a share of white
_SHOWN = 0.05
_MARGIN_MM = 6.0


@dataclass(frozen=True)
class View:
    """One plane: cut axis, axes of its rows and columns (RAS, each from its far end), letters at top, bottom, left,
    right.
    """

    name: str
    axis: int
    rows: int
    columns: int
    letters: str


VIEWS = (View("axial", 2, 1, 0, "APRL"), View("coronal", 1, 2, 0, "SIRL"), View("sagittal", 0, 2, 1, "SIAP"))


@dataclass(frozen=True)
class Cut:
    """One slice: its plane, its index along the cut axis (RAS order), and the voxel positions of its pixels' rows and
    columns.
    """

    view: View
    index: int
    rows: np.ndarray
    columns: np.ndarray

    @property
    def size(self) -> Tuple[int, int]:
        """Height and width in pixels."""
        return len(self.rows), len(self.columns)


class Slices:
    """The slices of one grid.

    Parameters
    ----------
    grid : Grid
    box : pair of three ints — first and last voxel of the shown box, RAS order (`shown_box`).
    """

    def __init__(
        self, grid: Grid, box: Tuple[Sequence[int], Sequence[int]], cell: int = CELL, per_plane: int = PER_PLANE
    ) -> None:
        self._orientation = to_ras(grid.affine)
        self._shape = grid.shape
        #: array axis of each RAS axis
        self.axes = [int(np.flatnonzero(self._orientation[:, 0] == ras)[0]) for ras in range(3)]
        self.spacing_mm = [grid.spacing_mm[axis] for axis in self.axes]
        low, high = box
        extents = [(high[d] - low[d] + 1) * self.spacing_mm[d] for d in range(3)]
        scale = cell / max(extents)
        pixels = [max(1, int(round(extent * scale))) for extent in extents]
        positions = [_positions(low[d], high[d], pixels[d])[::-1] for d in range(3)]
        self.longest_mm = max(extents)
        self.cuts = []
        for view in VIEWS:
            indices = _spread(low[view.axis], high[view.axis], per_plane)
            self.cuts.append([Cut(view, index, positions[view.rows], positions[view.columns]) for index in indices])

    @property
    def middle(self) -> List[Cut]:
        """The middle slice of each plane."""
        return [row[len(row) // 2] for row in self.cuts]

    def turned(self, volume: np.ndarray) -> np.ndarray:
        """A view of (X, Y, Z[, C]) whose axes run right, anterior, superior; components keep their order."""
        return turned(volume, self._orientation)

    def plane(self, volume: np.ndarray, cut: Cut) -> np.ndarray:
        """The slice of a volume as (rows, columns[, C]) voxels, not yet flipped."""
        # Uses a slice, which copies nothing. The remaining axes are in RAS order; the rows of every view run along the
        # later one.
        where = tuple(cut.index if axis == cut.view.axis else slice(None) for axis in range(3))
        return np.swapaxes(self.turned(volume)[where], 0, 1)

    def indices(self, cut: Cut) -> np.ndarray:
        """Array indices (X, Y, Z order) of the voxels of a slice: (rows, columns, 3)."""
        components = []
        for axis, side in enumerate(self._shape):
            line = np.arange(side).reshape([-1 if d == axis else 1 for d in range(3)])
            components.append(self.plane(np.broadcast_to(line, self._shape), cut))
        return np.stack(components, axis=-1)

    def smooth(self, volume: np.ndarray, cut: Cut) -> np.ndarray:
        """Pixels by linear interpolation in the slice; float64."""
        return interpolate(self.plane(volume, cut), cut)

    def nearest(self, volume: np.ndarray, cut: Cut) -> np.ndarray:
        """Pixels by nearest neighbour, for labels and masks."""
        return nearest(self.plane(volume, cut), cut)


def interpolate(plane: np.ndarray, cut: Cut) -> np.ndarray:
    """(rows, columns[, C]) voxels of a slice → pixels, linear, float64."""
    return _mix(_mix(np.asarray(plane, dtype=np.float64), cut.rows, 0), cut.columns, 1)


def nearest(plane: np.ndarray, cut: Cut) -> np.ndarray:
    """(rows, columns) voxels of a slice → pixels by nearest neighbour."""
    rows, columns = (np.rint(at).astype(np.intp) for at in (cut.rows, cut.columns))
    return plane[rows][:, columns]


def _mix(values: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    low = np.floor(at).astype(np.intp)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    weight = (at - low).reshape([-1 if d == axis else 1 for d in range(values.ndim)])
    return np.take(values, low, axis) * (1 - weight) + np.take(values, high, axis) * weight


def _positions(low: int, high: int, pixels: int) -> np.ndarray:
    """Voxel positions of pixel centres along an axis, within the outer voxels' centres."""
    extent = high - low + 1
    return np.clip(low - 0.5 + (np.arange(pixels) + 0.5) * extent / pixels, low, high)


def _spread(low: int, high: int, count: int) -> List[int]:
    share = np.linspace(_OUTER, 1 - _OUTER, count) if count > 1 else np.array([0.5])
    return sorted({int(round(low + s * (high - low))) for s in share})


def shown_box(grid: Grid, images: Sequence[Tuple[Optional[np.ndarray], float]]) -> Any:
    """First and last voxel (RAS order) of the values above a share of white in any image, with a margin; the whole grid
    if there are none.

    Parameters
    ----------
    images : sequence of (ndarray or None, float) — an image on the grid and its white.
    """
    orientation = to_ras(grid.affine)
    shape = turned(np.broadcast_to(np.int8(0), grid.shape), orientation).shape
    sizes = np.empty(3)
    sizes[orientation[:, 0].astype(int)] = grid.spacing_mm
    low, high = np.array(shape), np.array([-1, -1, -1])
    for image, white in images:
        if image is None:
            continue
        with np.errstate(invalid="ignore"):
            bright = turned(np.asarray(image) > _SHOWN * white, orientation)
        for axis in range(3):
            at = np.flatnonzero(bright.any(axis=tuple(d for d in range(3) if d != axis)))
            if at.size:
                low[axis], high[axis] = min(low[axis], at[0]), max(high[axis], at[-1])
    if (high < 0).any():
        return (0, 0, 0), tuple(n - 1 for n in shape)
    margin = np.ceil(_MARGIN_MM / sizes).astype(int)
    first, last = np.maximum(low - margin, 0), np.minimum(high + margin, np.array(shape) - 1)
    return tuple(int(i) for i in first), tuple(int(i) for i in last)
