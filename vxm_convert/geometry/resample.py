# SPDX-License-Identifier: Apache-2.0
"""One resampling of an image through a warp: linear, nearest, or label-safe; in slabs, so that temporaries stay small.

There are two rules outside the moving image. ``zero``: positions outside the box of the voxels (0.5 beyond the outer
centres, as in ITK) give the fill value. ``clamp``: they take the nearest border voxel, as the network's own warp does.
"""

from __future__ import annotations

from typing import Callable, Dict, Union

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry import loops
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import Warp, slabs
from vxm_convert.lazy import LazyModule

ndimage = LazyModule("scipy.ndimage")

#: weights of positions that are on a voxel but for rounding
_NO_WEIGHT = 1e-5

EDGES = ("zero", "clamp")
INTERPOLATIONS = ("linear", "nearest", "labels")


def resample(
    image: np.ndarray, warp: Warp, interpolation: str = "linear", edge: str = "zero", fill: float = 0
) -> np.ndarray:
    """The moving image on the fixed grid, interpolated once.

    Parameters
    ----------
    image : ndarray, shape of the moving grid, any real dtype.
    interpolation : str — ``linear``; ``nearest`` (half to even, as in the network's reference); ``labels``:
        interpolates every label's indicator linearly and takes the largest (ties: the smaller label), so that
        structures keep smooth borders.
    edge : str — ``zero`` or ``clamp``.
    fill : number — outside, for ``zero``.

    Returns
    -------
    ndarray, shape (X, Y, Z) — float32 for ``linear`` (float64 for a float64 image), else the image's dtype.

    Raises
    ------
    VolumeError
        For an image that is not on the warp's moving grid, unknown names, and labels that are not integers.
    """
    if interpolation not in INTERPOLATIONS or edge not in EDGES:
        raise VolumeError(
            f"resampling: got {interpolation!r} and {edge!r}, expected one of {INTERPOLATIONS} and one of {EDGES}"
        )
    if image.shape != warp.moving.shape:
        raise VolumeError(
            f"resampling: image {image.shape}, the warp reads from {warp.moving.describe()}; this warp belongs to "
            "another image"
        )
    if interpolation == "labels" and image.dtype.kind not in "uib":
        raise VolumeError(f"resampling: labels of dtype {image.dtype}, expected integers")
    if compiled_for(warp.fixed.shape) and loops.can_resample(image, interpolation):
        return loops.resampled(image, warp.fixed.shape, np.eye(4), warp.u, interpolation, edge == "zero", fill)
    wide = np.float64 if image.dtype == np.float64 else np.float32
    out = np.empty(warp.fixed.shape, dtype=wide if interpolation == "linear" else image.dtype)
    for part in slabs(out.shape[0]):
        at = warp.positions(part)
        block = SAMPLERS[interpolation](image, at)
        if edge == "zero":
            block = np.where(warp.moving.contains(at), block, np.asarray(fill, dtype=out.dtype))
        out[part] = block
    return out


def voxels_that_meet(warp: Warp) -> int:
    """Voxels of the fixed grid that a warp sends into the moving grid."""
    return sum(int(np.count_nonzero(warp.moving.contains(warp.positions(part)))) for part in slabs(warp.fixed.shape[0]))


def sample_linear(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation at voxel positions (…, 3), border values continued; float32, float64 for a float64 image.

    Where a voxel that is not finite has a weight, the result is NaN; where its weight is 0, it does not count.
    """
    wide = np.float64 if image.dtype == np.float64 else np.float32
    source = image if image.dtype == wide else image.astype(np.float32)
    found = _interpolate(source, at, wide)
    if np.isfinite(found).all():
        return found
    # 0 times NaN is NaN: once more with 0 in its place, and the share that it has.
    finite = np.isfinite(source)
    found = _interpolate(np.where(finite, source, 0), at, wide)
    found[_interpolate((~finite).astype(np.float32), at, np.float32) > _NO_WEIGHT] = np.nan
    return found


def _interpolate(source: np.ndarray, at: np.ndarray, wide: type) -> np.ndarray:
    return ndimage.map_coordinates(
        source, np.moveaxis(at, -1, 0), output=wide, order=1, mode="nearest", prefilter=False
    )


def sample_nearest(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The voxel at the rounded position (half to even), clamped to the grid; dtype of the image."""
    return image[tuple(np.clip(np.rint(at[..., d]), 0, image.shape[d] - 1).astype(np.intp) for d in range(3))]


def sample_labels(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The label whose linearly interpolated indicator is largest, borders continued; the smaller label wins a tie.

    Only labels at the eight voxels around a position can be largest, so one pass over them replaces one volume per
    label.
    """
    low, weight = [], []
    for d in range(3):
        position = np.clip(at[..., d].ravel(), 0, image.shape[d] - 1)
        low.append(np.minimum(np.floor(position), max(image.shape[d] - 2, 0)).astype(np.intp))
        weight.append(position - low[-1])
    corners, weights = [], []
    for a, b, c in np.ndindex(2, 2, 2):
        index = tuple(np.minimum(low[d] + step, image.shape[d] - 1) for d, step in enumerate((a, b, c)))
        corners.append(image[index])
        weights.append(np.prod([weight[d] if step else 1 - weight[d] for d, step in enumerate((a, b, c))], axis=0))
    found = corners[0].copy()
    mixed = np.flatnonzero(np.any([corner != corners[0] for corner in corners[1:]], axis=0))
    found[mixed] = _heaviest(np.stack([c[mixed] for c in corners]), np.stack([w[mixed] for w in weights]))
    return found.reshape(at.shape[:-1])


def _heaviest(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Label with the largest sum of weights, per column of (8, n)."""
    order = np.argsort(labels, axis=0, kind="stable")
    labels, weights = np.take_along_axis(labels, order, 0), np.take_along_axis(weights, order, 0)
    sums = np.stack([np.where(labels == row, weights, 0).sum(axis=0) for row in labels])
    # 1e-9: sums that differ only by rounding are a tie; argmax then takes the first, which is the smallest label.
    winner = np.argmax(sums > sums.max(axis=0) - 1e-9, axis=0)
    return np.take_along_axis(labels, winner[np.newaxis], 0)[0]


SAMPLERS: Dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "linear": sample_linear,
    "nearest": sample_nearest,
    "labels": sample_labels,
}


def to_dtype(values: np.ndarray, dtype: Union[str, np.dtype]) -> np.ndarray:
    """Interpolated intensities in an image's own dtype: rounded and clipped to its range if that is an integer."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "ui":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    # 2**31 - 128 is the largest float32 below 2**31; wider integers than int32 are not stored in NIfTI.
    return np.clip(np.rint(values), max(limits.min, -(2**31)), min(limits.max, 2**31 - 128)).astype(dtype)
