# SPDX-License-Identifier: Apache-2.0
"""Whether what the model returned can be the registration of this scan at all: figures of one scan's outputs, judged by
the section ``plausible`` of the profile before anything is written. No limits live here.

A value that is off by rounding, such as the lowest bit of one voxel, cannot be seen from one execution: `audit` runs
scans again for that.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from om_runner.precision.acceptance import judge_limit
from vxm_convert.errors import ImplausibleError
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.jacobian import determinant_range
from vxm_convert.geometry.reference_warp import warp_linear
from vxm_convert.geometry.resample import resample
from vxm_convert.metrics.jacobian import Folding, folding
from vxm_convert.profiles.plausible_figures import DISPLACEMENT, FOLDING, JACOBIAN_MAX, JACOBIAN_MIN, LIKENESS, WARP
from vxm_convert.profiles.profile import Profile

#: every second voxel along each axis is enough for a correlation
_STEP = (slice(None, None, 2),) * 3
_ADVICE = (
    "nothing is written for this scan; register it again, and if it fails again, suspect the device, its driver and the "
    ".om before the scan"
)


def check_outputs(
    path: Path,
    moving: np.ndarray,
    fixed: np.ndarray,
    moved: np.ndarray,
    flow: np.ndarray,
    velocity: Optional[np.ndarray],
    profile: Profile,
) -> Tuple[Folding, float]:
    """Refuse outputs that are not finite, or out of the profile's limits.

    Parameters
    ----------
    path : Path — the scan, for messages.
    moving, fixed, moved : ndarray, shape (X, Y, Z), float32 — network intensities.
    flow : ndarray, shape (X, Y, Z, 3), float32 — voxels.
    velocity : ndarray, shape (X/2, Y/2, Z/2, 3), or None — of a diffeomorphic model, voxels of its grid.

    Returns
    -------
    Folding, and the longest displacement in voxels, for the table of results.

    Raises
    ------
    ImplausibleError
    """
    bad = sum(int(part.size - np.count_nonzero(np.isfinite(part))) for part in _given(moved, flow, velocity))
    if bad:
        raise ImplausibleError(
            f"{path}: the model returned {bad} NaN or infinite values, expected none; nothing is written for this "
            "scan, register it again, and if it fails again, export again with --precision accurate"
        )
    folds = _folding(flow)
    limits = profile.plausible
    if limits:
        figures = _figures(moving, fixed, moved, flow, velocity, folds)
        beyond = [text for text in (judge_limit(limit, figures.get(limit.figure.name)) for limit in limits) if text]
        if beyond:
            raise ImplausibleError(
                f"{path}: the model's output cannot be a registration of this scan (profile {profile.name}): "
                f"{'; '.join(beyond)}; {_ADVICE}"
            )
    return folds, float(np.sqrt(np.max(np.einsum("...i,...i", flow, flow))))


def check_moved(path: Path, moved: np.ndarray, source: np.ndarray) -> None:
    """Refuse a moved scan without contrast where the scan has some; raises ImplausibleError."""
    low, high = moved.min(), moved.max()
    if low == high and source.min() != source.max():
        raise ImplausibleError(
            f"{path}: the moved scan is {float(low):g} everywhere, expected a brain; scan and atlas do not overlap in "
            "the space of the results: check the header of the scan, --affine and --space"
        )


def _given(moved: np.ndarray, flow: np.ndarray, velocity: Optional[np.ndarray]) -> List[np.ndarray]:
    return [part for part in (moved, flow, velocity) if part is not None]


def _figures(
    moving: np.ndarray,
    fixed: np.ndarray,
    moved: np.ndarray,
    flow: np.ndarray,
    velocity: Optional[np.ndarray],
    folds: Folding,
) -> Dict[str, Optional[float]]:
    error = _moved_again(moving, flow)
    error -= moved
    return {
        DISPLACEMENT: max(_share_of_side(field) for field in (flow, velocity) if field is not None),
        FOLDING: folds.fraction,
        JACOBIAN_MIN: folds.minimum,
        JACOBIAN_MAX: folds.maximum,
        WARP: float(np.max(np.abs(error, out=error))),
        LIKENESS: likeness(moved, moving, fixed),
    }


def _folding(flow: np.ndarray) -> Folding:
    if not compiled_for(flow.shape[:3]):
        return folding(flow)
    found = determinant_range(_as_warp(flow))
    return Folding(int(np.prod(flow.shape[:3])), found.folded, found.lowest, found.highest)


def _moved_again(moving: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The scan through the flow as the network moves it, by the host."""
    if not compiled_for(moving.shape):
        return warp_linear(moving, flow)
    return resample(moving, _as_warp(flow), edge="clamp")


def _as_warp(flow: np.ndarray) -> Warp:
    x, y, z = flow.shape[:3]
    grid = Grid((x, y, z), np.eye(4))
    return Warp(flow, grid, grid)


def _share_of_side(field: np.ndarray) -> float:
    longest = [max(-float(field[..., axis].min()), float(field[..., axis].max())) for axis in range(3)]
    return float(max(length / side for length, side in zip(longest, field.shape)))


def likeness(moved: np.ndarray, *others: np.ndarray) -> Optional[float]:
    """The largest correlation of an image with others, over every second voxel; None where it is constant."""
    known = [value for value in (_correlation(moved[_STEP], other[_STEP]) for other in others) if value is not None]
    return max(known) if known else None


def _correlation(a: np.ndarray, b: np.ndarray) -> Optional[float]:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x -= x.mean()
    y -= y.mean()
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread > 0 else None
