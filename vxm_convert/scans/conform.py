# SPDX-License-Identifier: Apache-2.0
"""Position of the network grid in space, and one resampling of any scan onto it.

The network grid is in the atlas's space. One map leads from it to a scan: network voxel → RAS of the atlas → (affine) →
RAS of the scan → voxel of the scan. If that map only permutes, flips and crops, voxels are copied without
interpolation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry import loops
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import Warp, index_block, slabs
from vxm_convert.geometry.grids import Grid, apply_affine, same_place
from vxm_convert.geometry.maps import compose
from vxm_convert.geometry.orientations import reordering
from vxm_convert.geometry.resample import EDGES, INTERPOLATIONS, SAMPLERS
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.scans.network_grid import network_affine

#: a voxel map this close to whole numbers (matrix entries; voxels of translation) copies voxels
_SNAP_MATRIX, _SNAP_VOXEL = 1e-5, 1e-3
#: cosine and relative voxel size within which two grids have the same axes
_SAME_AXES = 1e-3
#: VoxelMorph's crop ((48, 48), (31, 33), (3, 29)) of FreeSurfer's conformed volume
FREESURFER_SHAPE, FREESURFER_CROP_START, FREESURFER_CROP_SHAPE = (256, 256, 256), (48, 31, 3), (160, 192, 224)
#: intensity above which a voxel counts as brain, as a fraction of the largest
_BRAIN_FRACTION = 0.02


@dataclass(frozen=True)
class Placement:
    """Position of a scan relative to the network grid.

    Parameters
    ----------
    network : Grid — the network grid in the atlas's space.
    moving : Grid — of the scan, from its header or an override.
    affine : Affine — atlas RAS → scan RAS.
    untouched : bool — the scan's array is the network's array, voxel by voxel.
    how : dict — origin of the affine, for side-cars.
    """

    network: Grid
    moving: Grid
    affine: Affine
    untouched: bool = False
    how: Dict[str, Any] = field(default_factory=dict)

    @property
    def matrix(self) -> np.ndarray:
        """Network voxel → scan voxel, shape (4, 4); rounded to whole numbers if it is close to them."""
        if self.untouched:
            return np.eye(4)
        matrix = self.moving.inverse @ self.affine.pull @ self.network.affine
        whole = np.rint(matrix)
        near = np.abs(matrix - whole)
        return whole if near[:3, :3].max() < _SNAP_MATRIX and near[:3, 3].max() < _SNAP_VOXEL else matrix

    @property
    def copies(self) -> bool:
        """Whether voxels are copied and not interpolated."""
        return bool(np.array_equal(self.matrix, np.rint(self.matrix)))

    def final_warp(self, flow: np.ndarray, fixed: Grid) -> Warp:
        """Network flow, then affine: from voxels of `fixed` (any grid in the atlas's space) to voxels of the scan.

        Parameters
        ----------
        flow : ndarray, shape of the network grid + (3,) — voxels of the network grid.
        """
        if self.untouched and fixed == self.network:
            return Warp(flow, self.network, self.moving)
        inner = Warp(flow, self.network, self.network)
        return compose([inner, self.exact_affine()], fixed, self.moving)

    def exact_affine(self) -> Affine:
        """Atlas RAS → scan RAS, consistent with `matrix`; for an untouched scan it follows from the two grids, for any
        position of the scan.
        """
        return Affine(self.moving.affine @ self.matrix @ self.network.inverse)

    def to_dict(self) -> Dict[str, Any]:
        """For side-cars."""
        kind = (
            "untouched: array taken voxel by voxel"
            if self.untouched
            else "voxels copied"
            if self.copies
            else "linear, once"
        )
        return {
            "conform": kind,
            "network_grid": self.network.to_dict(),
            "moving_grid": self.moving.to_dict(),
            "affine_fixed_ras_to_moving_ras": [[float(v) for v in row] for row in self.exact_affine().pull],
            **self.how,
        }


def same_axes(grid: Grid, axes: NetworkAxes) -> bool:
    """Whether a grid has the network's axis directions and voxel sizes, at any position."""
    wanted = network_affine(grid.shape, axes)[:3, :3]
    return bool(np.abs(grid.affine[:3, :3] - wanted).max() <= _SAME_AXES * max(axes.spacing_mm))


def place(
    network: Grid,
    moving: Grid,
    axes: NetworkAxes,
    affine: Optional[Affine] = None,
    how: Optional[Mapping[str, object]] = None,
) -> Placement:
    """The placement of a scan.

    Without an affine, a scan with the network's shape, axes and voxel size is already the network's array, for any
    origin.
    """
    untouched = (
        affine is None and moving.shape == network.shape and (same_place(moving, network) or same_axes(moving, axes))
    )
    return Placement(network, moving, affine or Affine(np.eye(4)), untouched, dict(how or {"affine": "none"}))


def conform(image: np.ndarray, placement: Placement, interpolation: str = "linear", edge: str = "zero") -> np.ndarray:
    """A scan on the network grid, resampled at most once.

    Parameters
    ----------
    image : ndarray, shape of the scan's grid.
    interpolation : str — ``linear`` gives float32; ``nearest`` and ``labels`` keep the dtype.
    edge : str — values outside the scan: ``zero``, or ``clamp`` to its border.

    Returns
    -------
    ndarray, shape of the network grid; the same object for an untouched scan.

    Raises
    ------
    VolumeError
        For an image of another shape and unknown names.
    """
    if image.shape != placement.moving.shape:
        raise VolumeError(f"conform: array {image.shape}, the scan's grid is {placement.moving.describe()}")
    if interpolation not in INTERPOLATIONS or edge not in EDGES:
        raise VolumeError(
            f"conform: got {interpolation!r} and {edge!r}, expected one of {INTERPOLATIONS} and one of {EDGES}"
        )
    if placement.untouched:
        return image
    matrix, shape = placement.matrix, placement.network.shape
    how = "nearest" if placement.copies else interpolation
    if compiled_for(shape) and loops.can_resample(image, how):
        found = loops.resampled(image, shape, matrix, None, how, edge == "zero")
        return found.astype(np.float32, copy=False) if interpolation == "linear" else found
    sampler = SAMPLERS[how]
    out = np.empty(shape, dtype=np.float32 if interpolation == "linear" else image.dtype)
    for part in slabs(shape[0]):
        at = apply_affine(matrix, index_block(shape, part))
        block = sampler(image, at)
        out[part] = (
            block
            if edge == "clamp"
            else np.where(placement.moving.contains(at), block, np.zeros((), dtype=block.dtype))
        )
    return out


def brain_mask(image: np.ndarray) -> np.ndarray:
    """Voxels that count as brain: above a small fraction of the largest intensity."""
    return image > _BRAIN_FRACTION * float(image.max())


def outside_network(image: np.ndarray, placement: Placement) -> Tuple[int, int]:
    """Number of a scan's brain voxels outside the network grid, and of all its brain voxels."""
    mask, back = brain_mask(image), np.linalg.inv(placement.matrix)
    total = int(np.count_nonzero(mask))
    if placement.untouched or not total:
        return 0, total
    corners = np.array(np.meshgrid(*zip(*_box(mask)), indexing="ij")).reshape(3, -1).T
    if placement.network.contains(apply_affine(back, corners)).all():
        return 0, total
    inside = 0
    for part in slabs(mask.shape[0]):
        index = index_block(mask.shape, part)[mask[part]]
        inside += int(np.count_nonzero(placement.network.contains(apply_affine(back, index))))
    return total - inside, total


def network_grid_of(image: np.ndarray, atlas: Grid, shape: Tuple[int, int, int], axes: NetworkAxes) -> Grid:
    """The network grid in an atlas's space.

    * An atlas of the network's shape, axes and voxel size is the network grid.
    * FreeSurfer's conformed 256³ volume: VoxelMorph's crop of it, if that contains the whole brain.
    * Voxels of the network's size along its axes, in any order: the crop of the atlas's own voxels whose centre is
      nearest to the centre of the brain's bounding box (nothing is interpolated).
    * Any other: the network's axes and voxel size, centred on the brain's bounding box in space.

    Parameters
    ----------
    image : ndarray, shape of the atlas's grid — voxels above 2 % of the largest value are brain.
    """
    if atlas.shape == tuple(shape) and same_axes(atlas, axes):
        return atlas
    mask = brain_mask(image)
    if not mask.any():
        raise VolumeError("atlas: every voxel is 0, expected a brain to centre the network grid on")
    turn = reordering(atlas.affine, atlas.shape, axes.orientation)
    i, j, k = (int(n) for n in np.rint(np.abs(np.linalg.inv(turn)[:3, :3]) @ atlas.shape))
    straight = Grid((i, j, k), atlas.affine @ turn)
    if same_axes(straight, axes):
        at = apply_affine(np.linalg.inv(turn), _box(mask))
        start = _crop_start(straight.shape, at.min(axis=0), at.max(axis=0), shape)
        shift = np.eye(4)
        shift[:3, 3] = start
        return Grid(shape, straight.affine @ shift)
    ras = apply_affine(atlas.affine, np.argwhere(mask))
    centre = (ras.min(axis=0) + ras.max(axis=0)) / 2.0
    affine = network_affine(shape, axes)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2.0)
    return Grid(shape, affine)


def oriented(
    shape: Tuple[int, int, int], orientation: str, spacing: Tuple[float, float, float], centre_ras: np.ndarray
) -> Grid:
    """A grid with array axes in the directions of three letters and index shape / 2 at a point in space; VolumeError
    for bad letters.
    """
    affine = network_affine(shape, NetworkAxes(orientation, spacing))
    affine[:3, 3] = np.asarray(centre_ras) - affine[:3, :3] @ (np.asarray(shape) / 2.0)
    return Grid(shape, affine)


def _box(mask: np.ndarray) -> np.ndarray:
    """First and last true index of a mask along each axis; shape (2, 3)."""
    along = [np.flatnonzero(mask.any(axis=tuple(d for d in range(3) if d != axis))) for axis in range(3)]
    return np.array([[line[0] for line in along], [line[-1] for line in along]])


def _crop_start(have: Tuple[int, ...], low: np.ndarray, high: np.ndarray, want: Tuple[int, ...]) -> np.ndarray:
    known = np.asarray(FREESURFER_CROP_START)
    if tuple(have) == FREESURFER_SHAPE and tuple(want) == FREESURFER_CROP_SHAPE:
        if (low >= known).all() and (high < known + np.asarray(want)).all():
            return known
    return np.floor((low + high + 1 - np.asarray(want)) / 2.0)
