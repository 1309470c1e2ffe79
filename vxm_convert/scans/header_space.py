# SPDX-License-Identifier: Apache-2.0
"""Position of an array from its header: units, qform, sform, directions of an MGH file; and whether to trust it.

These rules are the same for every command, because every command reads headers here. Sources: nifti1.h and the NIfTI
library (`nifti_quatern_to_mat44`), FreeSurfer's `mghRead`.
"""

from __future__ import annotations

import enum
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid, corner_distance_mm
from vxm_convert.scans.raw_header import RawHeader

Shape = Tuple[int, int, int]

#: a larger distance of qform and sform at a corner is a disagreement, not rounding
DISAGREEMENT_MM = 0.1
#: relative difference of voxel sizes that is rounding
_SAME_SIZE = 0.01
#: possible sides of a voxel, and of the field of view, in a scan of a head
VOXEL_MM = (0.1, 10.0)
FIELD_OF_VIEW_MM = (30.0, 600.0)
#: code of xyzt_units (its lowest three bits) → name and mm
_UNITS = {1: ("metre", 1e3), 2: ("mm", 1.0), 3: ("micron", 1e-3)}
_UNKNOWN_UNIT = ("no unit, taken as mm", 1.0)
#: largest excess over 1 of the vector part of a quaternion; longer ones are damage, not rounding
_QUATERNION_EXCESS = 0.01
#: byte of an MGH header that tells whether directions follow
_RAS_GOOD_AT = 28
#: x to the left, y down, z forward: FreeSurfer's CORONAL, one column per array axis
_CORONAL = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


class Trust(enum.Enum):
    """Whether a file gives the position of its array in space, and if not, why. The value completes "its header has …"."""

    #: a trusted header
    HEADER = "a place for it"
    #: an MGH file without directions, which FreeSurfer reads as coronal: the axes are known, the position is not
    CORONAL = "no directions (ras_good is 0)"
    #: an .npz, which has no header: its array is on the network grid
    NO_HEADER = "no fields for it (.npz)"
    #: scanners do not write it: VoxelMorph's published test scan has it for an array with axes left, inferior, anterior
    IDENTITY = "an identity affine"
    #: a NIfTI file
    UNSET = "neither qform nor sform"
    #: an NRRD, MetaImage or Analyze file
    NO_DIRECTIONS = "no directions of the axes in space"

    @property
    def axes_known(self) -> bool:
        """Whether the header gives the axes."""
        return self in (Trust.HEADER, Trust.CORONAL)


@dataclass(frozen=True)
class Space:
    """Position in space from a header.

    Parameters
    ----------
    grid : Grid — in mm, for any unit of the header.
    trust : Trust
    notes : tuple of str — doubts about it, one line each.
    """

    grid: Grid
    trust: Trust
    notes: Tuple[str, ...]


def space_of(header: Any, raw: RawHeader, shape: Shape) -> Space:
    """Position of a file from its bytes and nibabel's header.

    Raises
    ------
    VolumeError
        For an invalid affine or quaternion, or an impossible size of voxels or field of view.
    """
    notes: List[str] = []
    path = raw.path
    if raw.kind == "MGH":
        affine, trust = _mgh(header, raw, shape, notes)
        unit = ("mm", 1.0)
    else:
        unit = _UNITS.get(int(header["xyzt_units"]) & 7, _UNKNOWN_UNIT)
        affine, trust = _nifti(header, shape, path, notes)
        affine[:3] *= unit[1]
        if unit[1] != 1.0:
            notes.append(f"its header is in units of one {unit[0]} (xyzt_units), which is converted to mm")
    grid = _checked(path, shape, affine, unit, notes)
    if np.array_equal(grid.affine, np.eye(4)):
        trust = Trust.IDENTITY
        notes.append(
            "identity affine: claims RAS with the origin in the corner, which scanners do not write; the orientation "
            "may be wrong"
        )
    return Space(grid, trust, tuple(notes))


def space_of_text(path: Path, shape: Shape, affine: np.ndarray, placed: bool) -> Space:
    """Position of an NRRD, MetaImage or Analyze file.

    Parameters
    ----------
    affine : ndarray, shape (4, 4) — voxel → RAS mm.
    placed : bool — whether the header gives the directions of the axes.

    Raises
    ------
    VolumeError
        For an invalid affine, or an impossible size of voxels or field of view.
    """
    notes: List[str] = []
    grid = _checked(path, shape, affine, ("mm", 1.0), notes)
    if not placed:
        notes.append(
            "no trusted directions of the axes in its header: orientation and position are unknown, a guess is used"
        )
        return Space(grid, Trust.NO_DIRECTIONS, tuple(notes))
    # In the file's own space, LPS or RAS, this is what programs write that know no position.
    if np.array_equal(np.abs(grid.affine), np.eye(4)):
        notes.append("identity directions with the origin in the corner, which scanners do not write")
        return Space(grid, Trust.IDENTITY, tuple(notes))
    return Space(grid, Trust.HEADER, tuple(notes))


def _checked(path: Path, shape: Shape, affine: np.ndarray, unit: Tuple[str, float], notes: List[str]) -> Grid:
    try:
        grid = Grid(shape, affine)
    except VolumeError as exc:
        raise VolumeError(f"{path}: {exc}") from exc
    _check_sizes(grid, unit, path, notes)
    if grid.sheared:
        notes.append(f"axes {grid.shear:.2g} off a right angle (sheared): ITK refuses this file, resample it")
    return grid


def _mgh(header: Any, raw: RawHeader, shape: Shape, notes: List[str]) -> Tuple[np.ndarray, Trust]:
    # Read from the bytes: nibabel makes up directions if there are none.
    if struct.unpack_from(">h", raw.head, _RAS_GOOD_AT)[0] > 0:
        return np.array(header.get_affine(), dtype=float), Trust.HEADER
    notes.append(
        "no directions in its header (ras_good is 0): read as coronal (LIA), 1 mm, centred on the origin, like "
        "FreeSurfer"
    )
    affine = np.eye(4)
    affine[:3, :3] = _CORONAL
    affine[:3, 3] = -_CORONAL @ (np.asarray(shape) / 2.0)
    return affine, Trust.CORONAL


def _nifti(header: Any, shape: Shape, path: Path, notes: List[str]) -> Tuple[np.ndarray, Trust]:
    """The sform if it is set, else the qform, else nibabel's guess from the voxel sizes."""
    has_q, has_s = bool(header["qform_code"]), bool(header["sform_code"])
    qform, problem = _qform(header) if has_q else (None, None)
    if has_s:
        if problem is not None:
            notes.append(f"its qform cannot be read ({problem}); tools that prefer it will refuse the file")
        sform = np.array(header.get_sform(), dtype=float)
        apart = 0.0 if qform is None else _apart_mm(shape, qform, sform)
        if apart > DISAGREEMENT_MM:
            notes.append(
                f"qform and sform disagree by up to {apart:.1f} mm; the sform is used, ITK and FSL may use the qform"
            )
        elif not has_q:
            _compare_sizes(header, sform, notes)
        return sform, Trust.HEADER
    if has_q:
        if qform is None:
            raise VolumeError(
                f"{path}: its qform cannot be read ({problem}) and it has no sform; export the scan again"
            )
        return qform, Trust.HEADER
    notes.append("neither qform nor sform: orientation and position are unknown, a guess is used")
    return np.array(header.get_base_affine(), dtype=float), Trust.UNSET


def _compare_sizes(header: Any, sform: np.ndarray, notes: List[str]) -> None:
    """ITK and others take voxel sizes from pixdim, whatever the sform says."""
    sizes, stored = np.linalg.norm(sform[:3, :3], axis=0), np.abs(np.array(header["pixdim"][1:4], dtype=float))
    if np.isfinite(sizes).all() and not np.allclose(sizes, stored, rtol=_SAME_SIZE):
        by_sform, by_pixdim = (" x ".join(f"{size:.4g}" for size in triple) for triple in (sizes, stored))
        notes.append(f"voxels of {by_sform} by the sform and {by_pixdim} by pixdim; the sform is used")


def _qform(header: Any) -> Tuple[Optional[np.ndarray], Optional[str]]:
    """The matrix of the qform, or its error. A vector part longer than 1 by rounding is shortened, as in the NIfTI
    library.
    """
    names = ("quatern_b", "quatern_c", "quatern_d")
    vector = [float(header[name]) for name in names]
    length = math.sqrt(sum(value * value for value in vector))
    if not math.isfinite(length) or length > 1 + _QUATERNION_EXCESS:
        return None, f"its quaternion has a vector part of length {length:g}, expected at most 1"
    try:
        return np.array(header.get_qform(), dtype=float), None
    except ValueError:
        header = header.copy()
    for name, value in zip(names, vector):
        # Just below 1 in float32, so that the remaining rotation is 0.
        header[name] = np.float32(value / length)
    header.quaternion_threshold = -1e-5
    return np.array(header.get_qform(), dtype=float), None


def _apart_mm(shape: Shape, a: np.ndarray, b: np.ndarray) -> float:
    try:
        return corner_distance_mm(Grid(shape, a), Grid(shape, b))
    except VolumeError:
        return float("inf")


def _check_sizes(grid: Grid, unit: Tuple[str, float], path: Path, notes: List[str]) -> None:
    low, high = VOXEL_MM
    sizes = " x ".join(f"{size:.4g}" for size in grid.spacing_mm)
    if min(grid.spacing_mm) < low or max(grid.spacing_mm) > high:
        raise VolumeError(
            f"{path}: voxels of {sizes} mm (its header has {unit[0]}), expected {low:g} to {high:g} mm for a head; "
            f"{_other_unit(grid, unit[1])}"
        )
    sides = [side * size for side, size in zip(grid.shape, grid.spacing_mm)]
    low, high = FIELD_OF_VIEW_MM
    seen = " x ".join(f"{side:.4g}" for side in sides)
    if max(sides) > high:
        raise VolumeError(
            f"{path}: a field of view of {seen} mm, expected at most {high:g} mm along each axis for a head; correct "
            "the voxel size in its header, or crop it to the head"
        )
    if min(sides) < low:
        notes.append(
            f"a field of view of {seen} mm, expected at least {low:g} mm along each axis for a brain; is part of it "
            "missing, or is the voxel size wrong?"
        )


def _other_unit(grid: Grid, used: float) -> str:
    """The advice for voxels of impossible size: another unit, if one fits."""
    for code, (name, factor) in _UNITS.items():
        sizes = [size / used * factor for size in grid.spacing_mm]
        if factor != used and VOXEL_MM[0] <= min(sizes) and max(sizes) <= VOXEL_MM[1]:
            return f"the numbers look like {name}: set xyzt_units to {code} in its header"
    return "correct the voxel size in its header, or export the scan again"
