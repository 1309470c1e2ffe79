# SPDX-License-Identifier: Apache-2.0
"""What a transform makes of an image, looked at before it is written: whether image and warp meet, whether an image of
labels is interpolated as one, whether anything is left of it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import List, Optional, Sequence, Union

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.geometry.maps import SpaceMap
from vxm_convert.transforms.npz_field import halved

LOG = logging.getLogger(__name__)

#: share of the fixed grid that a warp should cover
_COVERED = 0.5
#: an image whose range shrinks to less than this share has lost its content
_RANGE_LEFT = 0.1
_SHOWN = 5


def check_cover(steps: Sequence[Union[Warp, Affine]], words: Sequence[str], fixed: Grid, beyond: str) -> None:
    """Whether the points of a fixed grid lie on the warps' grids when they come to them.

    Raises
    ------
    VolumeError
        For a warp that no fixed voxel reaches.
    """
    index = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 12) for n in fixed.shape), indexing="ij"), axis=-1)
    points = apply_affine(fixed.affine, index)
    for step, word in zip(steps, words):
        if isinstance(step, Warp):
            share = float(step.fixed.contains(apply_affine(step.fixed.inverse, points)).mean())
            if share == 0:
                raise VolumeError(
                    f"{word}: no voxel of the fixed grid ({fixed.describe()}) lies on this warp's grid "
                    f"({step.fixed.describe()}); it belongs to another image, or the order of the transforms is wrong"
                )
            lost = halved(step.fixed, fixed)
            if share < _COVERED and lost:
                raise VolumeError(
                    f"{word}: its grid covers {100 * share:.0f} % of the fixed grid: it is of another image{lost}"
                )
            if share < _COVERED:
                LOG.warning(
                    "%s: its grid covers %.0f %% of the fixed grid; beyond it, %s is taken",
                    word,
                    100 * share,
                    "the displacement of its edge" if beyond == "edge" else "no displacement",
                )
        points = SpaceMap([step], beyond)(points)


def say_beyond(what: Path, points: Optional[np.ndarray], steps: Sequence[Union[Warp, Affine]]) -> None:
    """Whether fixed points lie on the grid of the first warp.

    Raises
    ------
    VolumeError
        When none does.
    """
    if points is None or not isinstance(steps[0], Warp):
        return
    grid = steps[0].fixed
    outside = int(np.count_nonzero(~grid.contains(apply_affine(grid.inverse, points))))
    if outside == len(points):
        raise VolumeError(
            f"{what}: none of {len(points)} points lies on the warp's grid ({grid.describe()}); check the frame (RAS, LPS, "
            "voxel) and which image the points are on"
        )
    if outside:
        LOG.warning("%s: %d of %d points lie beyond the warp's grid", what, outside, len(points))


def check_result(image: Path, before: np.ndarray, after: np.ndarray, how: str) -> None:
    """Whether a resampled image is of use.

    Raises
    ------
    VolumeError
        When it is constant and the image was not.
    """
    lost_before, lost_after = (int(data.size - np.isfinite(data).sum()) for data in (before, after))
    known, left = (data[np.isfinite(data)] for data in (before, after))
    if not left.size or (left.min() == left.max() and known.size and known.min() != known.max()):
        raise VolumeError(
            f"{image}: the result is {'NaN' if not left.size else format(float(left.min()), 'g')} everywhere, expected what "
            f"the image holds ({known.min():g} to {known.max():g}); the fixed grid meets only its background, check headers, "
            "order and direction of the transforms"
        )
    if lost_before or lost_after:
        LOG.warning(
            "%s: %d of %d voxels are NaN or infinite, in the result %d of %d (every voxel that touches one)",
            image,
            lost_before,
            before.size,
            lost_after,
            after.size,
        )
    span, kept = float(known.max()) - float(known.min()), float(left.max()) - float(left.min())
    if how == "linear" and kept < _RANGE_LEFT * span:
        LOG.warning(
            "%s: the result holds %g to %g, the image %g to %g: most of it is not on the fixed grid",
            image,
            left.min(),
            left.max(),
            known.min(),
            known.max(),
        )


def say_new_ids(image: Path, before: np.ndarray, after: np.ndarray) -> None:
    """Warn of ids that an interpolation made up."""
    new: List[float] = sorted(set(np.unique(after)) - set(np.unique(before)) - {0})
    if new:
        LOG.warning(
            "%s: looks like a segmentation, and linear interpolation made %d values that it does not have (%s); use "
            "--interpolation labels or nearest",
            image,
            len(new),
            ", ".join(f"{value:g}" for value in new[:_SHOWN]),
        )
