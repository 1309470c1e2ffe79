# SPDX-License-Identifier: Apache-2.0
"""Doubts about a scan's header or preprocessing from its voxels and labels: one line each, or nothing. Rules:
docs/geometry.md.
"""

from __future__ import annotations

from typing import List, Optional, Sequence

import numpy as np

from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LabelSet, load_label_set
from vxm_convert.metrics.numbering import are_foreign, ids_in, wrong_numbering
from vxm_convert.scans.conform import brain_mask

#: FreeSurfer ids of structures that exist once per side
LEFT_LABELS = (2, 3, 4, 7, 8, 10, 11, 12, 13, 17, 18, 26, 28, 31)
RIGHT_LABELS = (41, 42, 43, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60, 63)
#: mm by which the left structures must be on the right for a flip
_FLIP_MM = 2.0
#: litres of bright voxels in a head but not in a brain; brains of MNI size have 2.2
_HEAD_LITRES = 2.8
#: fraction of the 99.9th percentile above which a voxel is bright: above air, below skin
_BRIGHT = 0.1
#: mm between two brain centres that are too far for the network
_FAR_MM = 15.0
#: an image of labels: so few values, and so many neighbours with the same one
_MOST_LABELS, _SAME_NEIGHBOUR = 512, 0.5
#: voxels of a part that tell something about the whole
_ENOUGH = 1000
#: share of the voxels above the smallest value that may have the largest one: of a mask all, of a map of tissue many
_SATURATED = 0.1
_SHOWN = 5
#: fraction of brain voxels outside the network's field of view that is refused
REFUSED_OUTSIDE = 0.5


def foreign_ids(ids: Sequence[int], labels: Optional[LabelSet] = None) -> Optional[str]:
    """Ids that are not those of the structures to score: no Dice is made of them.

    Parameters
    ----------
    ids : those of a segmentation.
    labels : LabelSet or None — the structures to score; None: those of FreeSurfer.
    """
    wrong = wrong_numbering(ids, labels or load_label_set(DEFAULT_LABEL_SET))
    if wrong is None:
        return None
    advice = "" if labels is not None else "; or give a segmentation with FreeSurfer's ids"
    return f"label {wrong}{advice}; no Dice is computed"


def flip_doubt(seg: np.ndarray, grid: Grid) -> Optional[str]:
    """A left/right flip: structures named left are on the right of those named right."""
    left, right = (_centre(np.isin(seg, ids), grid) for ids in (LEFT_LABELS, RIGHT_LABELS))
    if left is None or right is None or left[0] - right[0] < _FLIP_MM:
        return None
    return (
        f"left/right flip suspected: the structures named left are {left[0] - right[0]:.0f} mm to the right of those "
        f"named right; header ({grid.orientation}) or labels are mirrored, see --orientation"
    )


def skull_doubt(image: np.ndarray, grid: Grid) -> Optional[str]:
    """A scan whose bright part is larger than a brain."""
    bright = np.count_nonzero(image > _BRIGHT * np.percentile(image, 99.9))
    litres = bright * abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1e6
    if litres <= _HEAD_LITRES:
        return None
    return (
        f"{litres:.1f} litres of bright voxels, more than in a brain: the scan seems to include the skull, but the "
        "network was trained without"
    )


def distance_doubt(
    fixed: np.ndarray, fixed_grid: Grid, moving: np.ndarray, moving_grid: Grid, affine: str = "none"
) -> Optional[str]:
    """Two brains too far apart for a network that only deforms; both on grids of one space, after ``--affine``."""
    here, there = _centre(brain_mask(fixed), fixed_grid), _centre(brain_mask(moving), moving_grid)
    if here is None or there is None or np.linalg.norm(here - there) <= _FAR_MM:
        return None
    advice = {
        "none": "not aligned, see --affine auto",
        "auto": "the affine that was searched did not align it, give a better one with --affine FILE",
    }.get(affine, "the affine that was given does not align it, check its file and direction")
    return f"its brain lies {np.linalg.norm(here - there):.0f} mm from the atlas's: {advice}"


def outside_doubt(outside: int, total: int) -> Optional[str]:
    """Brain voxels beyond the network's field of view."""
    if not outside:
        return None
    return (
        f"{outside} of {total} brain voxels ({100.0 * outside / total:.2g} %) are outside the network's field of view"
    )


def holds_labels(data: np.ndarray) -> bool:
    """Whether an image looks like a segmentation: whole numbers, few of them, and neighbours along each axis mostly equal.

    A mask of 0 and 1 counts as none: interpolated and rounded, it stays a mask.
    """
    # A part first: of a large scan, that is nearly always enough to tell.
    inner = data[tuple(slice(n // 3, max(n - n // 3, 2)) for n in data.shape)]
    filled = np.count_nonzero(inner) >= _ENOUGH
    if _few_whole(inner) is None or (filled and _same_neighbours(inner) < _SAME_NEIGHBOUR / 2):
        return False
    values = _few_whole(data)
    if values is None or len(values) < 2 or (len(values) == 2 and values[-1] - values[0] <= 1):
        return False
    return _same_neighbours(data) >= _SAME_NEIGHBOUR


def kind_doubt(data: np.ndarray) -> Optional[str]:
    """An image whose voxels are those of a segmentation, a mask or a map of probabilities."""
    if holds_labels(data):
        values = np.unique(data)
        known = "a tool's" if are_foreign(values) else "FreeSurfer's"
        shown = ", ".join(f"{value:g}" for value in values[:_SHOWN]) + (", …" if len(values) > _SHOWN else "")
        return (
            f"looks like a segmentation, not a scan: {len(values)} whole numbers ({shown}) such as {known} ids, most "
            "neighbours equal"
        )
    low, high = float(data.min()), float(data.max())
    at_high = int(np.count_nonzero(data == high))
    inside = int(np.count_nonzero(data != low))
    if high == low or at_high < _SATURATED * inside:
        return None
    if at_high == inside:
        return f"looks like a mask, not a scan: every voxel is {low:g} or {high:g}"
    return (
        f"{100 * at_high / inside:.0f} % of its voxels above {low:g} have its largest value, {high:g}: a map of "
        "probabilities, or a scan that was clipped"
    )


def image_doubts(
    image: np.ndarray, grid: Grid, seg: Optional[np.ndarray], labels: Optional[LabelSet] = None
) -> List[str]:
    """Doubts about one scan by itself; `labels` as in `foreign_ids`."""
    found = [skull_doubt(image, grid)]
    if seg is not None:
        ids = ids_in(seg)
        found.append(foreign_ids(ids, labels))
        # Sides of structures that are others say nothing about the scan's sides.
        found.append(None if are_foreign(ids) else flip_doubt(seg, grid))
    return [doubt for doubt in found if doubt]


def _few_whole(data: np.ndarray) -> Optional[np.ndarray]:
    """The sorted values of an image of at most `_MOST_LABELS` whole numbers, else None."""
    if not np.isfinite(data).all() or (data != np.rint(data)).any():
        return None
    values = np.unique(data)
    return values if len(values) <= _MOST_LABELS else None


def _same_neighbours(data: np.ndarray) -> float:
    """Share of equal neighbours among those that are not 0, along the axis where it is smallest."""
    shares = []
    for axis in range(3):
        low, high = (
            np.take(data, range(*ends), axis=axis) for ends in ((0, data.shape[axis] - 1), (1, data.shape[axis]))
        )
        used = (low != 0) & (high != 0)
        shares.append(np.count_nonzero((low == high) & used) / max(int(np.count_nonzero(used)), 1))
    # Along every axis: a ramp is constant along two.
    return float(min(shares))


def _centre(mask: np.ndarray, grid: Grid) -> Optional[np.ndarray]:
    """RAS centre of mass of a mask, mm; from its three projections, so that no list of voxels is made."""
    total = int(np.count_nonzero(mask))
    if not total:
        return None
    index = np.empty(3)
    for axis, side in enumerate(mask.shape):
        along = mask.sum(axis=tuple(d for d in range(3) if d != axis))
        index[axis] = (along * np.arange(side)).sum() / total
    return apply_affine(grid.affine, index)
