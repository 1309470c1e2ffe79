# SPDX-License-Identifier: Apache-2.0
"""The network grid: axes, voxel size and position of its centre."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.model.contract import NetworkAxes

NETWORK_AXES = NetworkAxes()
#: RAS position (mm) of the grid's centre index (side / 2): that of the 160x192x224 crop of FreeSurfer's conformed 256³
#: grid
_GRID_CENTRE_RAS = np.array([0.0, -13.0, 1.0])
_AXIS_VECTORS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def network_affine(shape: Tuple[int, int, int], axes: NetworkAxes = NETWORK_AXES) -> np.ndarray:
    """Voxel index → RAS mm of a network grid without header.

    For 160x192x224, LIA, 1 mm this is the crop ((48,48),(31,33),(3,29)) of FreeSurfer's conformed 256³ volume with
    c_ras = 0: ``[[-1,0,0,80],[0,0,1,-125],[0,-1,0,97],[0,0,0,1]]``. Any other shape is centred on the same point, index
    ``shape / 2`` ↔ RAS (0, -13, 1) mm.
    """
    if sorted("RAS".find(c) if c in "RAS" else "LPI".find(c) for c in axes.orientation) != [0, 1, 2]:
        raise VolumeError(
            f"grid orientation: got {axes.orientation!r}, expected three letters such as LIA, one of each of L/R, "
            "A/P, S/I"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.array([_AXIS_VECTORS[c] for c in axes.orientation], dtype=float).T * np.asarray(
        axes.spacing_mm, dtype=float
    )
    affine[:3, 3] = _GRID_CENTRE_RAS - affine[:3, :3] @ (np.asarray(shape, dtype=float) / 2.0)
    return affine
