# SPDX-License-Identifier: Apache-2.0
"""Gives a scan of any contrast the contrast of the atlas: for each of its values, the mean of the atlas where the two overlap.

The curve is the regression of the atlas's intensities on the scan's, as in the correlation ratio (Roche et al., MICCAI
1998); unlike a curve through quantiles it need not rise, so that it turns T2-weighted or inverted scans over as well. It
needs scan and atlas in the same place to within some millimetres, as they are after an affine registration, and it cannot
part tissues that the scan shows alike. Owns the curve; knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from vxm_convert.errors import VolumeError

#: values of the scan, by quantile, between which the curve is straight
_KNOTS = 48
_FEWEST_VOXELS = 1000
#: share of the neighbours' values in the smoothing of the curve
_SMOOTHING = 0.25
#: the spread that the means lose to misplaced voxels is given back, up to this factor
_MOST_STRETCH = 2.0


@dataclass(frozen=True)
class ContrastCurve:
    """Values of the scan, ascending, and the atlas's intensities in their place; straight between, constant beyond."""

    values: Tuple[float, ...]
    intensities: Tuple[float, ...]

    def apply(self, image: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """float32 network intensities of the voxels `inside`, 0 elsewhere; same shape as `image`."""
        fitted = np.interp(image, self.values, self.intensities)
        return np.where(inside, fitted, 0).astype(np.float32)


def fit_contrast(scan: np.ndarray, atlas: np.ndarray, inside: np.ndarray) -> ContrastCurve:
    """The curve from the scan's values to the atlas's.

    Parameters
    ----------
    scan : ndarray, shape (X, Y, Z) — any scale, on the atlas's grid.
    atlas : ndarray, shape (X, Y, Z) — network intensities, 0 outside the brain.
    inside : ndarray of bool, shape (X, Y, Z) — the scan's brain.

    Raises
    ------
    VolumeError
        Where the two brains hardly overlap, or the scan has a single value.
    """
    both = inside & (atlas > 0)
    if np.count_nonzero(both) < _FEWEST_VOXELS:
        raise VolumeError(
            f"scan and atlas overlap in {np.count_nonzero(both)} voxels, expected at least {_FEWEST_VOXELS}; bring the scan "
            "to the atlas first, e.g. by --affine auto"
        )
    values, wanted = scan[both].astype(np.float64), atlas[both].astype(np.float64)
    edges = np.unique(np.percentile(values, np.linspace(0, 100, _KNOTS + 1)))
    if len(edges) < 3:
        raise VolumeError(f"the scan's brain has {len(edges)} values, expected an image; this looks like a mask")
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(place, minlength=len(edges) - 1)
    kept = counts > 0
    centres, means = (np.bincount(place, w, len(counts))[kept] / counts[kept] for w in (values, wanted))
    means = _smoothed(means)
    fitted = np.interp(values, centres, means)
    stretch = min(_MOST_STRETCH, wanted.std() / max(fitted.std(), 1e-6))
    means = np.clip(wanted.mean() + stretch * (means - fitted.mean()), 0.0, 1.0)
    return ContrastCurve(tuple(float(v) for v in centres), tuple(float(m) for m in means))


def _smoothed(means: np.ndarray) -> np.ndarray:
    padded = np.pad(means, 1, mode="edge")
    return (1 - 2 * _SMOOTHING) * means + _SMOOTHING * (padded[:-2] + padded[2:])
