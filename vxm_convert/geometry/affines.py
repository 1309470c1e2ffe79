# SPDX-License-Identifier: Apache-2.0
"""An affine map between the spaces of two images, and its conversion to the matrices that other tools store. Opens no
file.

In memory: ``pull``, RAS mm of the fixed space → RAS mm of the moving space, the direction for resampling. ITK stores
the same direction in LPS; FSL and FreeSurfer store the opposite one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import LPS, Grid, corner_distance_mm

#: FreeSurfer's own tolerance for the geometry in an LTA
GEOMETRY_TOLERANCE = 1e-3
MAX_ENTRY = 1e6
_MIN_DETERMINANT = 1e-6


@dataclass(frozen=True)
class Affine:
    """Fixed RAS mm → moving RAS mm.

    Parameters
    ----------
    pull : ndarray, shape (4, 4), float64.
    fixed, moving : Grid — of the images in the file, or None if it names none.

    Raises
    ------
    VolumeError
        If the matrix is not finite, not affine, or singular.
    """

    pull: np.ndarray
    fixed: Optional[Grid] = None
    moving: Optional[Grid] = None

    def __post_init__(self) -> None:
        pull = np.array(self.pull, dtype=np.float64)
        if pull.shape != (4, 4) or not np.isfinite(pull).all() or np.abs(pull).max() > MAX_ENTRY:
            raise VolumeError(f"affine: {pull.tolist()}, expected a finite 4x4 matrix in mm")
        if np.abs(pull[3] - (0, 0, 0, 1)).max() > 1e-9 or abs(np.linalg.det(pull[:3, :3])) < _MIN_DETERMINANT:
            raise VolumeError(f"affine: {pull.tolist()}, expected a last row 0 0 0 1 and a determinant that is not 0")
        pull.setflags(write=False)
        object.__setattr__(self, "pull", pull)

    def inverse(self) -> Affine:
        """The opposite direction: fixed and moving change places."""
        return Affine(np.linalg.inv(self.pull), self.moving, self.fixed)

    def to_lps(self) -> np.ndarray:
        """Fixed LPS → moving LPS, ITK's matrix; shape (4, 4)."""
        return LPS @ self.pull @ LPS

    def to_fsl(self, fixed: Grid, moving: Grid) -> np.ndarray:
        """Moving scaled voxels → fixed scaled voxels, flirt's matrix; shape (4, 4)."""
        return (
            fixed.to_fsl() @ fixed.inverse @ np.linalg.inv(self.pull) @ moving.affine @ np.linalg.inv(moving.to_fsl())
        )

    def check_grids(self, fixed: Optional[Grid], moving: Optional[Grid], where: str) -> None:
        """Check that the given images are those in the file.

        Raises
        ------
        VolumeError
            If a grid in the file differs from the given one by more than `GEOMETRY_TOLERANCE`.
        """
        for role, named, given in (("fixed", self.fixed, fixed), ("moving", self.moving, moving)):
            if named is None or given is None or _agree(named, given):
                continue
            other = self.moving if role == "fixed" else self.fixed
            turned = other is not None and _agree(other, given)
            advice = "it has the opposite direction: invert it" if turned else "it was made for another image"
            raise VolumeError(
                f"{where}: its {role} geometry is {named.describe()}, c_ras {_text(named)}; the {role} image has "
                f"{given.describe()}, c_ras {_text(given)}; {advice}"
            )


def from_lps(matrix: np.ndarray) -> Affine:
    """From ITK's matrix, fixed LPS → moving LPS."""
    return Affine(LPS @ np.asarray(matrix, dtype=np.float64) @ LPS)


def from_fsl(matrix: np.ndarray, fixed: Grid, moving: Grid) -> Affine:
    """From flirt's matrix, moving scaled voxels → fixed scaled voxels; its meaning depends on both images' grids."""
    push = (
        fixed.affine
        @ np.linalg.inv(fixed.to_fsl())
        @ np.asarray(matrix, dtype=np.float64)
        @ moving.to_fsl()
        @ moving.inverse
    )
    return Affine(_inverse(push), fixed, moving)


def from_push(matrix: np.ndarray, fixed: Optional[Grid] = None, moving: Optional[Grid] = None) -> Affine:
    """From a matrix moving RAS → fixed RAS, as in an LTA of type 1 (source = moving, destination = fixed)."""
    return Affine(_inverse(matrix), fixed, moving)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.inv(np.asarray(matrix, dtype=np.float64))
    except np.linalg.LinAlgError as exc:
        raise VolumeError(f"affine: {np.asarray(matrix).tolist()} has no inverse") from exc


def _agree(a: Grid, b: Grid) -> bool:
    return a.shape == b.shape and corner_distance_mm(a, b) <= GEOMETRY_TOLERANCE * max(a.shape)


def _text(grid: Grid) -> str:
    return " ".join(f"{v:.3f}" for v in grid.centre_ras)
