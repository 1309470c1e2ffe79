# SPDX-License-Identifier: Apache-2.0
"""The search in compiled loops: from coarse to fine, over rigid and then over all twelve parameters."""

from __future__ import annotations

import logging
from typing import Tuple

import numpy as np

from vxm_convert.affine.descent import Function, descended, settled
from vxm_convert.affine.levels import Sampled, mass, pyramid
from vxm_convert.affine.mutual import Free, Information, Turned
from vxm_convert.affine.schedule import LEVELS, Found, levels_for
from vxm_convert.geometry.grids import Grid

LOG = logging.getLogger(__name__)

#: coarse to fine, mm: the longest step, and the one that ends a level
_LONGEST, _SHORTEST = (8.0, 4.0, 2.0), (0.1, 0.03, 0.03)
#: mm: the step that ends a search
_SETTLED = 0.003


def search(atlas: Sampled, moving: np.ndarray, grid: Grid, kind: str) -> Found:
    """The transform with the largest mutual information, as `search_affine`, which knows the parameters.

    Raises
    ------
    NotFound
        If an image is empty, or the two brains no longer meet.
    """
    centre, _ = mass(moving, grid)
    levels = levels_for(min(atlas.shape + grid.shape))
    figures = [Information(*sides) for sides in zip(atlas.levels, pyramid(moving, grid))]
    place = np.concatenate([np.zeros(3), centre])
    # On the way to the affine transform, the rigid one need not be fine.
    for number in levels if kind == "rigid" else levels[:-1] or levels:
        turned = Turned(figures[number], atlas.radius_mm)
        place, value = _level(turned, place, number)
    matrix = turned.matrix(place)
    if kind == "affine":
        for number in levels:
            free = Free(figures[number], atlas.radius_mm)
            flat, value = _level(free, free.flat(matrix), number)
            matrix = free.matrix(flat)
    pull = np.eye(4)
    pull[:3] = matrix
    pull[:3, 3] -= pull[:3, :3] @ atlas.centre
    return Found(pull, value)


def _level(function: Function, start: np.ndarray, number: int) -> Tuple[np.ndarray, float]:
    end = descended(function, start, _LONGEST[number], _SHORTEST[number])
    if number == len(LEVELS) - 1:
        end = settled(function, end, _LONGEST[number], _SETTLED)
    LOG.debug("affine search: level %d, %d steps, metric %.5f", number, end.steps, end.value)
    return end.at, end.value
