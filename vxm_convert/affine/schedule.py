# SPDX-License-Identifier: Apache-2.0
"""The levels of a search, coarse to fine, and what both programs that search have in common. Computes no transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from vxm_convert.errors import VolumeError

Shape3 = Tuple[int, int, int]
#: the runner's option, for messages
AUTO_OPTION = "--affine auto"
#: bins of a histogram, for either image
BINS = 32
#: of the points; each level adds its number
SEED = 20170901
#: a joint histogram of 32 x 32 needs at least this many points, for any share
_LEAST_POINTS = 20000
#: a level with fewer voxels along an axis is useless
_LEAST_SIDE = 8


@dataclass(frozen=True)
class Level:
    """One resolution.

    Parameters
    ----------
    shrink : int — voxels of the atlas per voxel of its smaller grid, along each axis.
    sigma_mm : float — blur of both images.
    share : float — of the smaller grid's voxels that are used.
    """

    shrink: int
    sigma_mm: float
    share: float

    def shape(self, full: Shape3) -> Shape3:
        """The smaller grid of an atlas."""
        x, y, z = (max(1, side // self.shrink) for side in full)
        return x, y, z

    def share_of(self, full: Shape3) -> float:
        """`share`, or more for an atlas whose smaller grid has few voxels."""
        voxels = float(np.prod(full)) / self.shrink**3
        return max(self.share, min(1.0, _LEAST_POINTS / voxels))


class NotFound(VolumeError):
    """A search gave up; its text is the reason."""


#: reasons of both programs
EMPTY = "one of the two images is empty; check the scan and the atlas"
PARTED = "the two brains no longer meet during the search; check the header of the scan, or give a first --affine FILE"


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Parameters
    ----------
    pull : ndarray, shape (4, 4) — RAS mm of the atlas → RAS mm of the scan.
    metric : float — negative mutual information, nats.
    """

    pull: np.ndarray
    metric: float


#: coarse to fine
LEVELS = (Level(8, 4.0, 1.0), Level(4, 2.0, 0.5), Level(2, 1.0, 0.2))


def levels_for(side: int) -> List[int]:
    """Numbers of the levels that images with this smallest side are searched at."""
    return [n for n, level in enumerate(LEVELS) if side // level.shrink >= _LEAST_SIDE] or [len(LEVELS) - 1]
