# SPDX-License-Identifier: Apache-2.0
"""Stands in for the search of an affine, which has tests of its own: always the same matrix, what it was given is kept."""

from __future__ import annotations

from typing import Any, Dict, List

import numpy as np

from tests.support import fakes
from vxm_convert.geometry.affines import Affine
from vxm_convert.scans.network_grid import network_affine

#: the network's place, of a scan with a margin of 4 voxels
PLACE = network_affine(fakes.SHAPE) @ np.array([[1, 0, 0, -4], [0, 1, 0, -4], [0, 0, 1, -4], [0, 0, 0, 1.0]])
#: a turn and a shift that no header shows
MOVED = Affine(np.array([[0.995, -0.0998, 0, 0.7], [0.0998, 0.995, 0, -0.9], [0, 0, 1.02, 1 / 3], [0, 0, 0, 1]]))
OVERLAP = 0.875


class Found:
    """What a search returns."""

    affine, overlap = MOVED, OVERLAP

    def to_dict(self) -> Dict[str, Any]:
        return {"affine": "auto", "affine_overlap_dice": OVERLAP, "affine_tool": "a search"}


class Searched:
    """`om_runner.inputs.placement.search_affine`."""

    def __init__(self) -> None:
        self.images: List[np.ndarray] = []

    def __call__(self, target: Any, image: np.ndarray, grid: Any) -> Found:
        self.images.append(image)
        return Found()
