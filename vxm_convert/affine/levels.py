# SPDX-License-Identifier: Apache-2.0
"""What a search looks at, from coarse to fine: blurred images of the scan, and points of the atlas with their bins.
Computed by compiled loops; the points serve a whole cohort.

The schedule is that of the search with SimpleITK, and so are the points: ITK's regular sampling draws the same ones. The
result depends on where the points are (by 0.2 mm in the brains of `docs/geometry.md`), so that both searches agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from vxm_convert.affine.schedule import BINS, EMPTY, LEVELS, SEED, Level, NotFound
from vxm_convert.geometry.compiled import kernel, plain
from vxm_convert.geometry.grids import Grid, apply_affine

#: bins at either end that no intensity falls into; the loops (`geometry.information`, which imports numba) know the same
MARGIN = 2
_ITSELF = np.empty((0, 0, 0), dtype=np.float32)
#: side of the cubes that points are sorted into: a cube's part of a scan is in the nearest cache
BRICK_MM = 8.0
#: weights of a blur reach to this many standard deviations
_REACH = 4.0


@dataclass(frozen=True)
class Blurred:
    """An image at one level, with the range of its intensities.

    Parameters
    ----------
    data : ndarray, shape of the grid, float32.
    steep : ndarray, shape of the grid, float32 — the image whose derivatives are used; empty if it is `data`.
    """

    data: np.ndarray
    steep: np.ndarray
    grid: Grid
    lowest: float
    highest: float

    def bin_scale(self) -> Tuple[float, float]:
        """Factor and summand from intensities to places between bins."""
        scale = (BINS - 2 * MARGIN) / max(self.highest - self.lowest, float(np.finfo(np.float32).tiny))
        return scale, MARGIN - self.lowest * scale


@dataclass(frozen=True)
class Points:
    """The atlas at one level.

    Parameters
    ----------
    at : ndarray, shape (n, 3), float32 — RAS mm from the atlas's centre of mass.
    bins : ndarray, shape (n,), uint8.
    """

    at: np.ndarray
    bins: np.ndarray


@dataclass(frozen=True)
class Sampled:
    """An atlas as the fixed side of searches.

    Parameters
    ----------
    centre : ndarray, shape (3,) — centre of mass, RAS mm.
    radius_mm : float — root mean square distance of its mass from there.
    levels : Points, coarse to fine.
    """

    shape: Tuple[int, int, int]
    centre: np.ndarray
    radius_mm: float
    levels: Tuple[Points, ...]


def pyramid(image: np.ndarray, grid: Grid, steep: bool = True) -> List[Blurred]:
    """An image at all levels, coarse to fine; where the blur is wider than voxels, with fewer of them.

    Parameters
    ----------
    steep : bool — at the finest level, derivatives are those of the image blurred once more by its largest voxel size,
        as ITK computes them. At the others this would change little.
    """
    found: List[Blurred] = []
    data, at, done = plain(image, np.float32), grid, 0.0
    for level in reversed(LEVELS):
        data, at = blurred(data, at, float(np.sqrt(level.sigma_mm**2 - done**2)), level.sigma_mm)
        slopes = blurred(data, at, max(grid.spacing_mm), 0.0)[0] if steep and not found else _ITSELF
        done = level.sigma_mm
        found.append(Blurred(data, slopes, at, float(data.min()), float(data.max())))
    return found[::-1]


def blurred(data: np.ndarray, grid: Grid, sigma_mm: float, apart_mm: float) -> Tuple[np.ndarray, Grid]:
    """An image blurred by a Gaussian, borders continued, on every n-th of its voxels: as far apart as they may be within
    `apart_mm`.
    """
    steps = [max(1, min(int(apart_mm / mm + 1e-3), side // 2)) for mm, side in zip(grid.spacing_mm, grid.shape)]
    for axis, (mm, step) in enumerate(zip(grid.spacing_mm, steps)):
        before, after = int(np.prod(data.shape[:axis])), int(np.prod(data.shape[axis + 1 :]))
        side = (data.shape[axis] - 1) // step + 1
        out = np.empty((before, side, after), dtype=np.float32)
        kernel("blurred")(data.reshape(before, -1, after), _gaussian(sigma_mm / mm), step, out)
        data = out.reshape(data.shape[:axis] + (side,) + data.shape[axis + 1 :])
    x, y, z = data.shape
    return data, Grid((x, y, z), grid.affine @ np.diag([*map(float, steps), 1.0]))


def _gaussian(sigma: float) -> np.ndarray:
    """Weights of a blur by `sigma` voxels, sum 1, float32."""
    radius = int(np.ceil(_REACH * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def sampled(image: np.ndarray, grid: Grid) -> Sampled:
    """An atlas as the fixed side of searches.

    Raises
    ------
    NotFound
        For an image whose intensities have no sum above 0.
    """
    centre, radius = mass(image, grid)
    found = []
    for number, (level, blur) in enumerate(zip(LEVELS, pyramid(image, grid, steep=False))):
        at = _drawn(grid, level, SEED + number)
        scale, shift = blur.bin_scale()
        places = _linear(blur.data, apply_affine(blur.grid.inverse, at)) * scale + shift
        bins = np.clip(np.floor(places), MARGIN, BINS - MARGIN - 1).astype(np.uint8)
        order = in_bricks(at)
        found.append(Points(plain((at - centre)[order], np.float32), bins[order]))
    return Sampled(grid.shape, centre, radius, tuple(found))


def _drawn(grid: Grid, level: Level, seed: int) -> np.ndarray:
    """Every n-th voxel of the grid with fewer voxels, moved by a third of its size times a normal variate; RAS mm.

    So that no transform meets all of them on voxels. As `ImageRegistrationMethodv4::SetMetricSamplePoints` in ITK.
    """
    shape = level.shape(grid.shape)
    index = np.arange(0, int(np.prod(shape)), int(np.ceil(1.0 / level.share_of(grid.shape))))
    # ITK's fastest axis is the first.
    voxel = np.stack(np.unravel_index(index, shape, order="F"), axis=-1) * level.shrink
    voxel = voxel + (np.asarray(grid.shape) - np.asarray(shape) * level.shrink + level.shrink - 1) / 2
    drawn = np.random.RandomState(seed).randint(0, 2**32, size=(len(index), 3, 2), dtype=np.uint32)
    # Box and Muller; the halves keep the logarithm finite.
    size = np.sqrt(-2.0 * np.log(1.0 - (drawn[..., 0] + 0.5) / 2.0**32))
    variate = size * np.cos(2.0 * np.pi * drawn[..., 1] / 2.0**32)
    # Along the axes of space, LPS.
    moved = variate / 3.0 * np.asarray(grid.spacing_mm) * level.shrink * (-1.0, -1.0, 1.0)
    found: np.ndarray = apply_affine(grid.affine, voxel) + moved
    return found


def in_bricks(at: np.ndarray) -> np.ndarray:
    """The order of points (n, 3) brick by brick.

    Loops look up the scan at them: neighbours in this order share its cache lines, however the scan is turned.
    """
    x, y, z = np.floor(at / BRICK_MM).T
    return np.lexsort((z, y, x))


def _linear(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation at voxels (n, 3), borders continued."""
    out, points = np.empty((len(at), 1, 1), dtype=np.float32), plain(at, np.float32).reshape(-1, 1, 1, 3)
    kernel("linear")(image, np.zeros((3, 4)), points, 0, False, 0.0, out)
    return out.ravel()


def mass(image: np.ndarray, grid: Grid) -> Tuple[np.ndarray, float]:
    """Centre of mass (RAS mm) and root mean square distance from it; raises NotFound for an image without mass."""
    along = [image.sum(axis=tuple(d for d in range(3) if d != axis), dtype=np.float64) for axis in range(3)]
    total = float(along[0].sum())
    if not total > 0:
        raise NotFound(EMPTY)
    index = [np.arange(len(line)) for line in along]
    first = np.array([line @ at for line, at in zip(along, index)]) / total
    spread = np.array([line @ (at - middle) ** 2 for line, at, middle in zip(along, index, first)]) / total
    return apply_affine(grid.affine, first), float(np.sqrt(spread @ np.square(grid.spacing_mm)))
