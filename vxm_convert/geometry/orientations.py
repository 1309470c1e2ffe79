# SPDX-License-Identifier: Apache-2.0
"""How the axes of an array lie in space: directions as letters, voxel sizes, and arrays turned by that; nibabel does
the arithmetic.
"""

from __future__ import annotations

import functools
from typing import Tuple

import numpy as np

from vxm_convert.lazy import LazyModule

nib = LazyModule("nibabel")


def axis_codes(affine: np.ndarray) -> str:
    """FreeSurfer letters of the directions in which the array axes run, nearest ones for an oblique grid, e.g. ``LIA``;
    ``???`` for a degenerate affine.
    """
    return _codes(np.asarray(affine, dtype=np.float64).tobytes())


@functools.lru_cache(maxsize=256)
def _codes(data: bytes) -> str:
    """Of the bytes of an affine: each grid of a scan is asked for its letters several times."""
    affine = np.frombuffer(data, dtype=np.float64).reshape(-1, 4)
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "???"
    return "".join(str(code) for code in nib.aff2axcodes(affine))


def to_ras(affine: np.ndarray) -> np.ndarray:
    """What turns an array to axes that run right, anterior, superior: per array axis the RAS axis and its sign, shape
    (3, 2).
    """
    return nib.orientations.io_orientation(affine)


def turned(array: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """A view of an array (X, Y, Z[, C]) turned by what `to_ras` gave; components keep their order."""
    return nib.orientations.apply_orientation(array, turn)


def reordering(affine: np.ndarray, shape: Tuple[int, int, int], codes: str) -> np.ndarray:
    """Index of the array reordered to axes that run as `codes` say → index of the array itself, shape (4, 4)."""
    change = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    return nib.orientations.inv_ornt_aff(change, shape)


def spacing_mm(affine: np.ndarray) -> Tuple[float, float, float]:
    """Voxel sizes in mm along the array axes."""
    x, y, z = (float(s) for s in np.sqrt((np.asarray(affine, dtype=float)[:3, :3] ** 2).sum(axis=0)))
    return x, y, z
