# SPDX-License-Identifier: Apache-2.0
"""Chains of warps and affines as one map in space, and that map as one displacement field on any pair of grids.

A registration is such a chain: fixed point → (affine into the network's space) → network warp → (affine to the scan) →
moving point. Composing first and resampling the original scan once avoids a second interpolation.
"""

from __future__ import annotations

from typing import List, Sequence, Union

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry import loops
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import SLAB, Warp, index_block, slabs
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.lazy import LazyModule

ndimage = LazyModule("scipy.ndimage")

#: effect of a warp on points outside its grid: continue the border's displacement, or do not move them
BEYOND = ("edge", "zero")


class SpaceMap:
    """Points of the fixed space to points of the moving space, RAS mm, through the steps in order.

    Parameters
    ----------
    steps : sequence of Warp and Affine — in the order in which they act on a fixed point.
    beyond : str — ``edge`` or ``zero``, see `BEYOND`.

    Raises
    ------
    VolumeError
        Without steps, or for an unknown `beyond`.
    """

    def __init__(self, steps: Sequence[Union[Warp, Affine]], beyond: str = "edge") -> None:
        _check_chain(steps, beyond)
        self._beyond = beyond
        self._steps: List[Union[_SpatialField, np.ndarray]] = [
            step.pull if isinstance(step, Affine) else _SpatialField(step) for step in steps
        ]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """RAS points (…, 3) of the fixed space → RAS points of the moving space, float64."""
        points = np.asarray(points, dtype=np.float64)
        for step in self._steps:
            points = (
                apply_affine(step, points) if isinstance(step, np.ndarray) else points + step.at(points, self._beyond)
            )
        return points

    def sources(self) -> List[Grid]:
        """Grids of the warps in the chain, first step first."""
        return [step.grid for step in self._steps if isinstance(step, _SpatialField)]


class _SpatialField:
    """A warp as displacement in RAS mm on its fixed grid; linear interpolation of it does not depend on the moving
    grid.
    """

    def __init__(self, warp: Warp) -> None:
        self.grid = warp.fixed
        self._field = warp.in_frame("ras")
        self._to_voxel = warp.fixed.inverse

    def at(self, points: np.ndarray, beyond: str) -> np.ndarray:
        index = apply_affine(self._to_voxel, points)
        where = np.moveaxis(index, -1, 0)
        parts = [
            ndimage.map_coordinates(self._field[..., d], where, order=1, mode="nearest", prefilter=False)
            for d in range(3)
        ]
        found = np.stack(parts, axis=-1)
        return found if beyond == "edge" else np.where(self.grid.contains(index)[..., np.newaxis], found, 0.0)


def compose(steps: Sequence[Union[Warp, Affine]], fixed: Grid, moving: Grid, beyond: str = "edge") -> Warp:
    """One displacement field on `fixed` that reads from `moving`, for a chain of steps; float64, float32 from compiled
    loops.

    A single warp on these grids is returned unchanged.
    """
    if len(steps) == 1 and isinstance(steps[0], Warp) and steps[0].fixed == fixed:
        return steps[0].on_moving(moving)
    _check_chain(steps, beyond)
    if compiled_for(fixed.shape):
        return _compiled(steps, fixed, moving, beyond)
    mapping, out = SpaceMap(steps, beyond), np.empty(fixed.shape + (3,))
    for part in slabs(fixed.shape[0], SLAB):
        index = index_block(fixed.shape, part)
        out[part] = apply_affine(moving.inverse, mapping(apply_affine(fixed.affine, index))) - index
    return Warp(out, fixed, moving)


def _check_chain(steps: Sequence[Union[Warp, Affine]], beyond: str) -> None:
    if not steps or beyond not in BEYOND:
        raise VolumeError(
            f"composition: {len(steps)} steps, beyond={beyond!r}; expected at least one and one of {BEYOND}"
        )


def _compiled(steps: Sequence[Union[Warp, Affine]], fixed: Grid, moving: Grid, beyond: str) -> Warp:
    """The chain in voxels: the affines between two warps become one matrix."""
    links, matrix = [], fixed.affine
    for step in steps:
        if isinstance(step, Affine):
            matrix = step.pull @ matrix
        else:
            links.append(loops.link(step, step.fixed.inverse @ matrix))
            matrix = step.moving.affine
    return Warp(loops.composed(links, moving.inverse @ matrix, fixed.shape, beyond == "zero"), fixed, moving)
