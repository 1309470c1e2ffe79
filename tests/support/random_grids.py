# SPDX-License-Identifier: Apache-2.0
"""Random grids: axes in any order and sign, oblique or not, voxels of 0.4 to 3 mm; and headers that say so in any way."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from tests.support.grids import turn
from vxm_convert.geometry.grids import Grid


def random_grid(rng: np.random.RandomState, spread: float = 40.0) -> Grid:
    """Right angles, 6 to 10 voxels along each axis, the centre within `spread` mm of the origin along each axis."""
    axes = np.eye(3)[:, rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    if rng.rand() < 0.6:
        axes = turn(*rng.uniform(-0.6, 0.6, 3)) @ axes
    shape = rng.randint(6, 11, 3)
    affine = np.eye(4)
    affine[:3, :3] = axes * rng.uniform(0.4, 3.0, 3)
    affine[:3, 3] = rng.uniform(-spread, spread, 3) - affine[:3, :3] @ (shape / 2.0)
    return Grid(tuple(shape), affine)


def image_on(grid: Grid, data: np.ndarray, rng: np.random.RandomState, codes: str = "") -> Any:
    """A NIfTI image whose place is in its qform, its sform or both: `codes`, else one of them at random."""
    codes = codes or str(rng.choice(["q", "s", "qs"]))
    image = nib.Nifti1Image(data, grid.affine)
    image.set_sform(grid.affine, 1 if "s" in codes else 0)
    image.set_qform(grid.affine, 1 if "q" in codes else 0)
    return image
