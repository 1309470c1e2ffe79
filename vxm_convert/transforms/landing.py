# SPDX-License-Identifier: Apache-2.0
"""Whether the numbers of a field are what its header or the user says, told from where its points would land.

A registration keeps brains about as large as they were. So the linear part of its map, fitted over the field, stretches
no direction many times and mirrors none, and most voxels keep their orientation. Positions that are read as displacements
(or the other way round) break this: x + y(x) with y near the identity doubles every length, u(x) without x collapses
them. The spread of the numbers alone would not tell, where the two images' axes differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import LPS, Grid, apply_affine
from vxm_convert.geometry.jacobian import folds
from vxm_convert.transforms.formats import WarpFormat

#: log of a stretch: one reading is believed over the other by this much
_CLEARLY = 0.2
#: or by this much of the points, where the stretches do not tell
_MORE_INSIDE = 0.3
#: share of points inside the moving image below which it does not tell either
_FEW = 0.2
#: largest stretch of a linear part that a registration may have, and its inverse
MOST_STRETCH = 4.0
#: share of mirrored or collapsed voxels from which a field is no registration
MOST_FOLDED = 0.5
_PER_AXIS = 24
_LEAST_SAMPLES = 32
_SLABS = 8
_ADVICE = {"fsl": "make displacements with 'convertwarp --relout'", "voxel": "subtract each voxel's own index"}
_BY_POSITIONS = (
    "SPM's y_, NiftyReg's -def and MRtrix's warps hold such: name it with --from spm if they run along R, A, S in mm"
)


def check_reading(path: object, data: np.ndarray, form: WarpFormat, fixed: Grid, moving: Grid) -> None:
    """Raise VolumeError where a field holds positions but is read as displacements, or the other way round.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, 3) — as stored.
    form : WarpFormat — how it is about to be read.
    fixed, moving : Grid — of the field and of the image that it reads.
    """
    found = _readings(data, form, fixed, moving)
    if found is None:
        return
    said, other = found[form.absolute], found[not form.absolute]
    # Coordinates of the moving image mean nothing outside it; in space, an image may be anywhere.
    by_place = form.frame in ("voxel", "fsl")
    likelier = by_place and (
        other.inside > said.inside
        and other.stretch < said.stretch
        or other.inside > said.inside + _MORE_INSIDE
        and other.stretch < said.stretch + _CLEARLY
    )
    surely = by_place and said.inside > other.inside + _MORE_INSIDE and said.stretch < other.stretch + 2 * _CLEARLY
    if likelier or (other.stretch + _CLEARLY < said.stretch and not surely):
        what = ("displacements", "positions (absolute coordinates)")
        advice = "name its format with --from" if form.absolute else _ADVICE.get(form.frame, _BY_POSITIONS)
        raise VolumeError(
            f"{path}: read as {what[form.absolute]} ({form.name}) it would stretch space {_times(said.stretch)}, read as "
            f"{what[not form.absolute]} {_times(other.stretch)}, and {100 * said.inside:.0f} and "
            f"{100 * other.inside:.0f} % of its points would land in the moving image: looks like "
            f"{what[not form.absolute]}, expected {what[form.absolute]}; {advice}"
        )
    if said.stretch > np.log(MOST_STRETCH):
        raise VolumeError(
            f"{path}: read as {form.name} it would stretch space {_times(said.stretch)}, expected at most "
            f"{MOST_STRETCH:g} times for a registration; its numbers are in another unit or frame, or it belongs to "
            "another image"
        )
    if by_place and max(said.inside, other.inside) < _FEW and abs(said.stretch - other.stretch) < _CLEARLY:
        raise VolumeError(
            f"{path}: could be displacements as well as positions, and hardly a point lands in the moving image "
            f"({moving.describe()}); name the image it was made for, or convert it to a format in mm"
        )
    if by_place and said.inside == 0:
        raise VolumeError(
            f"{path}: read as {form.name}, none of its points lands in the moving image ({moving.describe()}); it belongs "
            "to another image, or its numbers are in another unit or frame"
        )


def check_folds(path: object, warp: Warp) -> None:
    """Raise VolumeError where most voxels of a warp are mirrored or collapsed; some planes are looked at."""
    share = _folded_share(warp)
    if share > MOST_FOLDED:
        refuse_folded(path, share)


def refuse_folded(path: object, share: float) -> None:
    """The message for a field that is folded through and through."""
    raise VolumeError(
        f"{path}: {100 * share:.0f} % of its voxels are folded (Jacobian determinant at most 0), expected a registration, "
        f"which folds few; its numbers are in another unit, frame or order, or they are no displacements"
    )


def share_inside(warp: Warp, mirrored: bool = False) -> float:
    """Share of sampled fixed voxels that a warp sends into the moving grid.

    With `mirrored`, the displacements in space have x and y negated: what a field would be that is in RAS where LPS was
    read, or the other way round.
    """
    index = _sample(warp.fixed.shape)
    at = index + warp.u[tuple(index[..., d] for d in range(3))]
    if mirrored:
        here = apply_affine(warp.fixed.affine, index)
        there = here + (apply_affine(warp.moving.affine, at) - here) @ LPS[:3, :3]
        at = apply_affine(warp.moving.inverse, there)
    return float(warp.moving.contains(at).mean())


@dataclass(frozen=True)
class _Reading:
    """Largest |log| of a singular value of the map's linear part, and the share of points inside the moving image."""

    stretch: float
    inside: float


def _readings(data: np.ndarray, form: WarpFormat, fixed: Grid, moving: Grid) -> Optional[Tuple[_Reading, _Reading]]:
    """The numbers as displacements, and as positions.

    None where the field is too small, or holds too few numbers, to tell.
    """
    if min(fixed.shape) < 2:
        return None
    index = _sample(fixed.shape).reshape(-1, 3)
    some = data[tuple(index[:, d] for d in range(3))].astype(np.float64)
    # Some tools write zeros outside a mask.
    used = np.any(some != 0, axis=1)
    if np.count_nonzero(used) < _LEAST_SAMPLES:
        return None
    index, some = index[used], some[used]
    ras = apply_affine(fixed.affine, index)
    back = moving.affine @ np.linalg.inv(moving.frame_matrix(form.frame))
    here = apply_affine(fixed.frame_matrix(form.frame), index)
    design = np.concatenate([ras - ras.mean(axis=0), np.ones((len(ras), 1))], axis=1)
    if np.linalg.matrix_rank(design) < 4:
        return None
    both = []
    for numbers in (here + some, some):
        there = apply_affine(back, numbers)
        sizes = np.linalg.svd(np.linalg.lstsq(design, there, rcond=None)[0][:3], compute_uv=False)
        inside = moving.contains(apply_affine(moving.inverse, there))
        both.append(_Reading(float(np.abs(np.log(np.maximum(sizes, 1e-9))).max()), float(inside.mean())))
    return both[0], both[1]


def _sample(shape: Tuple[int, ...]) -> np.ndarray:
    """Indices of at most `_PER_AXIS` voxels along each axis, the faces left out where there are others; (…, 3) ints."""
    axes = [np.unique(np.linspace(0, n - 1, min(n, _PER_AXIS)).astype(np.intp)) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _folded_share(warp: Warp) -> float:
    """Share of voxels with a determinant of at most 0 in a few planes across the first axis."""
    if min(warp.fixed.shape) < 2:
        return 0.0
    size, folded, seen = warp.fixed.shape[0], 0, 0
    for at in np.unique(np.linspace(0, max(size - 3, 0), _SLABS).astype(int)):
        part = slice(int(at), min(int(at) + 3, size))
        block = Warp(
            warp.u[part], Grid((part.stop - part.start,) + warp.fixed.shape[1:], warp.fixed.affine), warp.moving
        )
        found = folds(block)
        middle = found[1:-1] if found.shape[0] > 2 else found
        folded += int(np.count_nonzero(middle))
        seen += middle.size
    return folded / seen


def _times(stretch: float) -> str:
    return f"{np.exp(min(stretch, 20.0)):.3g} times" if stretch < 10 else "to a plane, a line or a point"
