# SPDX-License-Identifier: Apache-2.0
"""Distances between the surfaces of two segmentations of one structure, in mm: HD95 and ASSD.

Surface: the voxels of a structure that have a face neighbour outside it (the volume's border counts as outside). With
d(A→B) the distances from A's surface voxels to the nearest one of B: HD95 = max(P95 d(A→B), P95 d(B→A)); ASSD = (Σ
d(A→B) + Σ d(B→A)) / (n_A + n_B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.lazy import LazyModule

ndimage = LazyModule("scipy.ndimage")


@dataclass(frozen=True)
class SurfaceDistance:
    """Distances of one structure, in the unit of the spacing; NaN if it is absent from either segmentation."""

    hd95: float
    assd: float


_ABSENT = SurfaceDistance(float("nan"), float("nan"))


def surface_distances(
    test: np.ndarray, reference: np.ndarray, labels: Sequence[int], spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> Dict[int, SurfaceDistance]:
    """HD95 and ASSD per label.

    Parameters
    ----------
    test, reference : ndarray, shape (X, Y, Z), integers — on the same grid with orthogonal axes.
    spacing_mm : three floats — voxel sizes; ones give distances in voxels.

    Raises
    ------
    VolumeError
        If the shapes differ.
    """
    if test.shape != reference.shape or test.ndim != 3:
        raise VolumeError(f"surface distance: shapes {test.shape} and {reference.shape}, expected two equal 3-D ones")
    ids = sorted({int(label) for label in labels})
    boxes_a, boxes_b = _boxes(test, ids), _boxes(reference, ids)
    return {label: _distance(test, reference, label, boxes_a[label], boxes_b[label], spacing_mm) for label in ids}


def _boxes(volume: np.ndarray, ids: Sequence[int]) -> Dict[int, Optional[Tuple[slice, ...]]]:
    """Bounding box of each label, None if it is absent; one pass over the volume for all of them."""
    known = np.asarray(ids, dtype=np.int64)
    at = np.minimum(np.searchsorted(known, volume), len(known) - 1)
    found = ndimage.find_objects(np.where(known[at] == volume, at + 1, 0).astype(np.int32), max_label=len(known))
    return dict(zip(ids, found))


def _distance(
    test: np.ndarray,
    reference: np.ndarray,
    label: int,
    box_a: Optional[Tuple[slice, ...]],
    box_b: Optional[Tuple[slice, ...]],
    spacing: Sequence[float],
) -> SurfaceDistance:
    if box_a is None or box_b is None:
        return _ABSENT
    # Both surfaces are in the union of the boxes, so distances need nothing outside it.
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(box_a, box_b))
    surface_a, surface_b = _surface(test[box] == label), _surface(reference[box] == label)
    to_b = ndimage.distance_transform_edt(~surface_b, sampling=spacing)[surface_a]
    to_a = ndimage.distance_transform_edt(~surface_a, sampling=spacing)[surface_b]
    return SurfaceDistance(
        float(max(np.percentile(to_b, 95), np.percentile(to_a, 95))),
        float((to_b.sum() + to_a.sum()) / (to_b.size + to_a.size)),
    )


def _surface(inside: np.ndarray) -> np.ndarray:
    return inside & ~ndimage.binary_erosion(inside, border_value=0)
