# SPDX-License-Identifier: Apache-2.0
"""A voxel grid in space and the frames it is described in. Arithmetic only; opens no file.

Frames (all in mm but the first):

=========  =======================================================================================================
voxel      array index (i, j, k), the centre of the first voxel is (0, 0, 0)
RAS        scanner space of NIfTI, nibabel and FreeSurfer's `scanner RAS`: right, anterior, superior positive
LPS        the same space in ITK and DICOM: x and y negated
FSL        index times voxel size, origin at the first voxel; i counts from the other end if det(affine) > 0
tkr        FreeSurfer's `tkregister RAS`: LIA axes about the centre index (shape / 2), independent of the header
=========  =======================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Sequence, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.orientations import axis_codes

#: RAS ↔ LPS, its own inverse
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: |cosine| between two voxel axes above which a grid counts as sheared; ITK's own limit is 1e-6 on its direction matrix
SHEAR_TOLERANCE = 1e-4
_MIN_VOXEL_MM = 1e-6
_MAX_MM = 1e9


@dataclass(frozen=True)
class Grid:
    """Shape and position of a voxel grid.

    Parameters
    ----------
    shape : three ints — voxels along each array axis.
    affine : ndarray, shape (4, 4), float64 — voxel index → RAS mm.

    Raises
    ------
    VolumeError
        If the shape is not three positive numbers, or the affine is not finite, singular, or not an affine matrix.
    """

    shape: Tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise VolumeError(f"grid: shape {shape}, expected three positive sides")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.abs(affine).max() > _MAX_MM:
            raise VolumeError(
                f"grid: affine {affine.tolist()}, expected a finite 4x4 matrix in mm; the header is damaged"
            )
        if not np.array_equal(affine[3], (0, 0, 0, 1)) or np.linalg.norm(affine[:3, :3], axis=0).min() < _MIN_VOXEL_MM:
            raise VolumeError(
                f"grid: affine {affine.tolist()}, expected a last row 0 0 0 1 and no voxel size of 0; the header is "
                "damaged"
            )
        if abs(np.linalg.det(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))) < _MIN_VOXEL_MM:
            raise VolumeError(
                f"grid: affine {affine.tolist()} is singular: two voxel axes are parallel; the header is damaged"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)
        # Once: after `inv`, the BLAS of old NumPy keeps a second processor busy for 20 ms, and searches ask for it often.
        inverse = np.linalg.inv(affine)
        inverse.setflags(write=False)
        object.__setattr__(self, "_inverse", inverse)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    @property
    def inverse(self) -> np.ndarray:
        """RAS mm → voxel index, shape (4, 4)."""
        found: np.ndarray = self.__dict__["_inverse"]
        return found

    @property
    def spacing_mm(self) -> Tuple[float, float, float]:
        """Voxel sizes along the array axes."""
        x, y, z = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def directions(self) -> np.ndarray:
        """Unit vectors of the array axes in RAS, one per column; shape (3, 3)."""
        return self.affine[:3, :3] / np.asarray(self.spacing_mm)

    @property
    def orientation(self) -> str:
        """FreeSurfer letters of the directions of the array axes, the nearest ones for an oblique grid, e.g. ``LIA``."""
        return axis_codes(self.affine)

    @property
    def centre_ras(self) -> np.ndarray:
        """RAS mm of index shape / 2, FreeSurfer's c_ras; shape (3,)."""
        return self.affine[:3, :3] @ (np.asarray(self.shape) / 2.0) + self.affine[:3, 3]

    @property
    def flipped_for_fsl(self) -> bool:
        """Whether FSL counts i from the other end: if the affine's determinant is positive ("neurological" storage)."""
        return bool(np.linalg.det(self.affine[:3, :3]) > 0)

    @property
    def shear(self) -> float:
        """Largest |cosine| between two voxel axes: 0 for a rectangular grid; above `SHEAR_TOLERANCE` the grid is
        sheared.
        """
        gram = self.directions.T @ self.directions
        return float(np.abs(gram - np.diag(np.diag(gram))).max())

    @property
    def sheared(self) -> bool:
        return self.shear > SHEAR_TOLERANCE

    def to_lps(self) -> np.ndarray:
        """Voxel index → LPS mm, shape (4, 4)."""
        return LPS @ self.affine

    def to_fsl(self) -> np.ndarray:
        """Voxel index → FSL's scaled voxels (mm), shape (4, 4).

        Source: FSL's documentation of flirt and newimage; the i axis is flipped if det(affine) > 0.
        """
        scaled = np.diag(list(self.spacing_mm) + [1.0])
        if self.flipped_for_fsl:
            scaled[0, 0] = -scaled[0, 0]
            scaled[0, 3] = (self.shape[0] - 1) * self.spacing_mm[0]
        return scaled

    def to_tkr(self) -> np.ndarray:
        """Voxel index → FreeSurfer's tkregister RAS mm, shape (4, 4); see FreeSurfer's CoordinateSystems page."""
        x, y, z = self.spacing_mm
        turn = np.array([[-x, 0, 0], [0, 0, z], [0, -y, 0]])
        matrix = np.eye(4)
        matrix[:3, :3] = turn
        matrix[:3, 3] = -turn @ (np.asarray(self.shape) / 2.0)
        return matrix

    def frame_matrix(self, frame: str) -> np.ndarray:
        """Voxel index → the named frame (``voxel``, ``ras``, ``lps``, ``fsl``, ``tkr``), shape (4, 4); VolumeError for
        another name.
        """
        makers = {
            "voxel": lambda: np.eye(4),
            "ras": lambda: self.affine,
            "lps": self.to_lps,
            "fsl": self.to_fsl,
            "tkr": self.to_tkr,
        }
        if frame not in makers:
            raise VolumeError(f"frame: got {frame!r}, expected one of {', '.join(makers)}")
        return makers[frame]()

    def contains(self, index: np.ndarray) -> np.ndarray:
        """Whether voxel positions (…, 3) are inside the box of the voxels: from -0.5 to side - 0.5, as in ITK."""
        index = np.asarray(index)
        return np.all((index >= -0.5) & (index < np.asarray(self.shape) - 0.5), axis=-1)

    def as_stored(self) -> Grid:
        """The grid after rounding to float32, as in the header of a NIfTI-1 or MGH file."""
        return Grid(self.shape, self.affine.astype(np.float32).astype(np.float64))

    def to_dict(self) -> Dict[str, Any]:
        """For side-cars: shape, affine, orientation, voxel sizes."""
        return {
            "shape": list(self.shape),
            "affine": [[float(v) for v in row] for row in self.affine],
            "orientation": self.orientation,
            "spacing_mm": [round(s, 6) for s in self.spacing_mm],
        }

    def describe(self) -> str:
        """One line for messages."""
        sides, sizes = "x".join(str(n) for n in self.shape), "x".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"{sides} {self.orientation} {sizes} mm"


def same_place(a: Grid, b: Grid, tolerance_mm: float = 1e-3) -> bool:
    """Whether two grids have the same shape and all their corners within `tolerance_mm` of each other."""
    return a.shape == b.shape and corner_distance_mm(a, b) <= tolerance_mm


def corner_distance_mm(a: Grid, b: Grid) -> float:
    """Largest distance in mm between corresponding corners of two grids with the same shape."""
    corners = np.array(
        [[i, j, k, 1.0] for i in (0, a.shape[0] - 1) for j in (0, a.shape[1] - 1) for k in (0, a.shape[2] - 1)]
    )
    return float(np.linalg.norm((corners @ (a.affine - b.affine).T)[:, :3], axis=1).max())


def grid_of_geometry(
    shape: Sequence[int], spacing: Sequence[float], directions: np.ndarray, centre: Sequence[float]
) -> Grid:
    """The grid of a FreeSurfer description: voxel sizes, axis directions in RAS (columns), RAS of index shape / 2."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions, dtype=np.float64) * np.asarray(spacing, dtype=np.float64)
    affine[:3, 3] = np.asarray(centre, dtype=np.float64) - affine[:3, :3] @ (np.asarray(shape, dtype=np.float64) / 2.0)
    x, y, z = shape
    return Grid((x, y, z), affine)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (…, 3) through a 4×4 matrix; float64."""
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
