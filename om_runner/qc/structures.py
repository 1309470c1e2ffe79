# SPDX-License-Identifier: Apache-2.0
"""The rims of all structures in one picture of numbers, of which the page shows those that its reader chooses."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import numpy as np

from om_runner.qc.case import Case
from om_runner.qc.colours import GREYS, borders, mosaic
from om_runner.qc.slices import Slices

#: structures that one picture holds: a value of 8 bits each, 0 is none
MOST_LABELS = 255
_Cells = List[List[np.ndarray]]


def structures(case: Case, slices: Slices) -> Tuple[Tuple[int, ...], Optional[np.ndarray]]:
    """The labels in the slices, and the picture; no labels and None without a fixed segmentation.

    Returns
    -------
    labels : tuple of int — without background; number k of them has the value k + 1 in the picture.
    picture : ndarray, shape (height, width, 3), uint8 — rims of the fixed labels in red, of the moved ones in green.
    """
    if case.fixed_seg is None:
        return (), None
    sides = [_cells(seg, slices) for seg in (case.fixed_seg, case.moved_seg)]
    found = {int(label) for cells in sides for row in cells for cell in row for label in np.unique(cell)}
    labels = tuple(sorted(found - {0})[:MOST_LABELS])
    if not labels:
        return (), None
    fixed, moved = (mosaic([[_numbers(cell, labels) for cell in row] for row in cells], GREYS) for cells in sides)
    return labels, np.stack([fixed, moved, np.zeros_like(fixed)], axis=-1)


def _cells(seg: Optional[np.ndarray], slices: Slices) -> _Cells:
    if seg is None:
        return [[np.zeros(cut.size, np.uint8) for cut in row] for row in slices.cuts]
    return [[slices.nearest(seg, cut) for cut in row] for row in slices.cuts]


def _numbers(cell: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    at = np.minimum(np.searchsorted(labels, cell), len(labels) - 1)
    return borders(np.where(np.take(labels, at) == cell, at + 1, 0)).astype(np.uint8)
