# SPDX-License-Identifier: Apache-2.0
"""How well a scan lies on the reference, before and after, what the transform does, and what is doubtful about
either.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from train.prepare.loaded import Loaded
from train.prepare.reference import Reference
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.metrics.labels import LabelSet
from vxm_convert.metrics.numbering import ids_in, wrong_numbering
from vxm_convert.metrics.overlap import dice
from vxm_convert.scans.checks import image_doubts, outside_doubt
from vxm_convert.scans.conform import Placement, brain_mask, conform, outside_network

#: degrees beyond which a header's axes are more likely wrong than a head so tilted
_TILTED_DEGREES = 45.0
#: change of length along any direction beyond which two adult brains hardly differ
_STRETCHED = (0.75, 1.35)
#: correlation that the registration may lose against the headers alone
_NCC_LOST = 0.02
#: correlation after, below which two T1 brains hardly are in place; unrelated brains in place have about 0.85
_NCC_LOW = 0.6


def figures_of(
    image: np.ndarray, seg: Optional[np.ndarray], reference: Reference, labels: LabelSet
) -> Dict[str, Optional[float]]:
    """Overlap of the brains (Dice), correlation of the intensities, mean Dice of the structures; None where undefined.

    Parameters
    ----------
    image, seg : ndarray, shape of the network grid.
    """
    here, there = brain_mask(reference.image), brain_mask(image)
    overlap = 2.0 * np.count_nonzero(here & there) / max(1, np.count_nonzero(here) + np.count_nonzero(there))
    scored = seg is not None and reference.seg is not None and not _other_ids(labels, seg, reference.seg)
    scores = dice(seg, reference.seg, labels.ids) if scored else None
    return {
        "overlap": float(overlap),
        "ncc": correlation(reference.image[here | there], image[here | there]),
        "dice": scores.mean if scores is not None and scores.n_labels else None,
    }


def correlation(a: np.ndarray, b: np.ndarray) -> Optional[float]:
    """Pearson's correlation of two samples; None where one of them is constant."""
    x, y = (np.asarray(v, dtype=np.float64) - np.mean(v, dtype=np.float64) for v in (a, b))
    size = float(np.sqrt(np.dot(x, x) * np.dot(y, y)))
    return float(np.dot(x, y)) / size if size > 0 else None


def motion_of(affine: Affine, network: Grid) -> Dict[str, float]:
    """What the transform does to the scan: degrees turned, mm moved at the middle of the network grid, change of
    lengths and of volume.

    The turn is the rotation of the polar decomposition; lengths change by the singular values.
    """
    push = np.linalg.inv(affine.pull)[:3, :3]
    left, lengths, right = np.linalg.svd(push)
    turn = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    middle = apply_affine(network.affine, (np.asarray(network.shape) - 1) / 2.0)
    return {
        "rotation_degrees": float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1.0, 1.0)))),
        "translation_mm": float(np.linalg.norm(middle - apply_affine(affine.pull, middle))),
        "scale_min": float(lengths.min()),
        "scale_max": float(lengths.max()),
        "volume_change": float(np.linalg.det(push)),
    }


def carried(loaded: Loaded, placement: Placement) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    """Image (linear, once) and labels (nearest) on the network grid."""
    return conform(loaded.image, placement), None if loaded.seg is None else conform(loaded.seg, placement, "nearest")


def _other_ids(labels: LabelSet, *segs: np.ndarray) -> bool:
    return any(wrong_numbering(ids_in(seg), labels) is not None for seg in segs)


def doubts_about(
    loaded: Loaded,
    placement: Placement,
    before: Dict[str, Any],
    after: Dict[str, Any],
    motion: Dict[str, float],
    labels: LabelSet,
) -> List[str]:
    """One line for each thing to look at, and the share of brain voxels that the network grid leaves out is put into
    `after`.
    """
    outside, total = outside_network(loaded.image, placement)
    after["outside"] = outside / total if total else 0.0
    found = image_doubts(loaded.image, loaded.grid, loaded.seg, labels) + [outside_doubt(outside, total)]
    if motion["rotation_degrees"] > _TILTED_DEGREES:
        found.append(f"turned by {motion['rotation_degrees']:.0f} degrees: does the header say the right axes?")
    if not _STRETCHED[0] <= motion["scale_min"] <= motion["scale_max"] <= _STRETCHED[1]:
        found.append(
            f"lengths change by factors of {motion['scale_min']:.2f} to {motion['scale_max']:.2f}: not as between "
            "adult brains"
        )
    if after["ncc"] is not None and after["ncc"] < _NCC_LOW:
        found.append(
            f"correlation with the reference is {after['ncc']:.2f} only: is it registered, is it the same contrast?"
        )
    if None not in (before["ncc"], after["ncc"]) and after["ncc"] < before["ncc"] - _NCC_LOST:
        found.append(f"lies worse than by its header: correlation {before['ncc']:.2f} before, {after['ncc']:.2f} after")
    return [doubt for doubt in found if doubt]
