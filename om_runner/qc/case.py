# SPDX-License-Identifier: Apache-2.0
"""The data for the pictures of one subject, all on the grid of the results; and the moving scan before the network's
warp.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry import loops
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import Warp, identity_warp
from vxm_convert.geometry.grids import Grid, same_place
from vxm_convert.geometry.resample import resample
from vxm_convert.lazy import LazyModule

ndimage = LazyModule("scipy.ndimage")


@dataclass(frozen=True)
class Case:
    """One registered subject.

    Parameters
    ----------
    subject : str
    grid : Grid — of all arrays here.
    fixed : ndarray, shape (X, Y, Z) — any intensities.
    before, moved : ndarray or None, shape (X, Y, Z) — the scan placed by header and affine alone, and after the warp,
        in its own intensities.
    warp : Warp or None — `grid` → voxels of the scan.
    fixed_seg, moved_seg : ndarray or None, shape (X, Y, Z), integers.
    letters : bool — the header defines left and right.
    figures : dict — figures of the table of results: name → number or None.
    label_set : str — over which the Dice in `figures` is averaged.
    simulated : bool or None — whether an Ascend device took part; None if no file says so.
    made_from : dict — role → sha256.
    notes : tuple of str — missing data and the reasons.
    warnings : tuple of str — what the registration said about the scan, one line each.
    """

    subject: str
    grid: Grid
    fixed: np.ndarray
    moved: Optional[np.ndarray] = None
    before: Optional[np.ndarray] = None
    warp: Optional[Warp] = None
    fixed_seg: Optional[np.ndarray] = None
    moved_seg: Optional[np.ndarray] = None
    letters: bool = True
    figures: Dict[str, Optional[float]] = field(default_factory=dict)
    label_set: str = ""
    simulated: Optional[bool] = None
    made_from: Dict[str, Any] = field(default_factory=dict)
    notes: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()


def by_affine_alone(image: np.ndarray, moving: Grid, pull: np.ndarray, grid: Grid) -> np.ndarray:
    """A scan on `grid` without the network's warp, zeros beyond it; float32.

    Parameters
    ----------
    image : ndarray, shape of `moving`.
    pull : ndarray, shape (4, 4) — RAS mm of the fixed space → RAS mm of the scan.
    """
    if image.shape != moving.shape:
        raise VolumeError(
            f"the scan has shape {image.shape}, the results were made from {moving.describe()}; this is another scan"
        )
    matrix = moving.inverse @ pull @ grid.affine
    image = np.asarray(image, dtype=np.float32)
    if compiled_for(grid.shape):
        return loops.resampled(image, grid.shape, matrix, None, "linear", True)
    rule = {"order": 1, "mode": "constant", "prefilter": False}
    return ndimage.affine_transform(image, matrix[:3, :3], matrix[:3, 3], grid.shape, np.float32, **rule)


def onto(image: Optional[np.ndarray], home: Grid, grid: Grid, interpolation: str = "linear") -> Optional[np.ndarray]:
    """An image of the fixed space on another grid of that space; unchanged if it is on that grid."""
    if image is None or same_place(grid, home):
        return image
    return resample(image, identity_warp(grid, home), interpolation)


#: columns of metrics.tsv that the pages show
FIGURES = ("dice_before", "dice_after", "n_labels", "folding_fraction", "jacobian_min", "flow_max_voxel")
