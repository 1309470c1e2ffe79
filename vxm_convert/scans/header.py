# SPDX-License-Identifier: Apache-2.0
"""What the header of a NIfTI or MGH file says: shape, affine, dtype, and whether it can be believed. No voxel is read.

nibabel interprets headers that `vxm_convert.scans.raw_header` has judged; what it lets escape on damaged ones is listed
here once.
"""

from __future__ import annotations

import enum
import io
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, List, Optional, Tuple, Type
from xml.parsers.expat import ExpatError

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid, corner_distance_mm
from vxm_convert.lazy import LazyModule
from vxm_convert.scans.raw_header import NIFTI_1, RawHeader, judge, read_voxels
from vxm_convert.text import one_line

nib = LazyModule("nibabel")

VOLUME_SUFFIXES = (".nii.gz", ".npz", ".nii", ".mgz", ".mgh")
#: 512³ voxels of float64: far above any brain grid, far below what hurts
MAX_VOLUME_BYTES = 512**3 * 8
#: qform and sform further apart than this at a corner are a disagreement, not rounding
DISAGREEMENT_MM = 0.1


class Trust(enum.Enum):
    """Whether a file says how its array lies in space, and if not, why."""

    #: a header that can be believed
    HEADER = "header"
    #: an .npz, which has no header: its array lies on the network grid
    NO_HEADER = "no header"
    #: an identity affine, which scanners do not write: VoxelMorph's published test scan has one over an array that runs
    #: left, inferior, anterior
    IDENTITY = "identity affine"
    #: a NIfTI file with neither qform nor sform
    UNSET = "neither qform nor sform"


@dataclass(frozen=True)
class Header:
    """A header that was judged.

    Parameters
    ----------
    raw : RawHeader — what the first bytes say.
    grid : Grid — shape without trailing ones, and affine.
    dtype : dtype — of the stored voxels.
    scale : two floats — slope and intercept of the stored voxels.
    trust : Trust
    notes : tuple of str — what is doubtful about it, one line each.
    """

    raw: RawHeader
    grid: Grid
    dtype: np.dtype
    scale: Tuple[float, float]
    trust: Trust
    notes: Tuple[str, ...]

    def voxels(self) -> np.ndarray:
        """All voxels, slope and intercept applied; raises VolumeError for damaged data and sizes that disagree."""
        return scaled(read_voxels(self.raw).view(self.dtype).reshape(self.grid.shape, order="F"), self.scale)


def read_header(path: Path) -> Header:
    """The header of a .nii, .nii.gz, .mgz or .mgh file.

    Raises
    ------
    VolumeError
        Damaged or hostile bytes, not 3-D, an affine that is no grid, voxels that are no plain numbers.
    """
    if volume_suffix(path) is None:
        raise VolumeError(f"{path}: unknown kind of file, expected one of {', '.join(VOLUME_SUFFIXES)}")
    raw = judge(path)
    try:
        header = parsed(raw)
        dtype = np.dtype(header.get_data_dtype())
        affine = np.array(header.get_best_affine(), dtype=float)
        scale = scale_of(header)
    except read_errors() as exc:
        raise VolumeError(
            f"{path}: not a readable {volume_suffix(path)} ({one_line(exc)}); export the scan again"
        ) from exc
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise VolumeError(
            f"{path}: voxels of dtype {dtype}, expected plain integers or floats; colour and complex volumes are no "
            "scans"
        )
    shape = check_shape(header.get_data_shape(), path)
    if np.prod(shape, dtype=np.int64) * dtype.itemsize != raw.voxel_bytes:
        raise VolumeError(f"{path}: bits per voxel and dtype {dtype} disagree in the header; export the scan again")
    try:
        grid = Grid(shape, affine)
    except VolumeError as exc:
        raise VolumeError(f"{path}: {exc}") from exc
    return Header(replace(raw, head=b""), grid, dtype, scale, _trust(header, grid), tuple(_notes(header, grid)))


def parsed(raw: RawHeader) -> Any:
    """nibabel's header of a file that `judge` let pass, with its extensions; may raise any of `read_errors`."""
    if raw.kind == "MGH":
        # What stands behind the voxels (TR, angles) says nothing about space.
        kind = nib.freesurfer.mghformat.MGHHeader
        return kind(raw.head.ljust(kind.template_dtype.itemsize, b"\0"))
    first = raw.head[:4] in (struct.pack("<i", NIFTI_1), struct.pack(">i", NIFTI_1))
    return (nib.Nifti1Header if first else nib.Nifti2Header).from_fileobj(io.BytesIO(raw.head))


def nibabel_version() -> str:
    """For the record of a run."""
    return str(nib.__version__)


def read_errors() -> Tuple[Type[BaseException], ...]:
    """What nibabel lets escape on damaged files."""
    own = (
        nib.filebasedimages.ImageFileError,
        nib.spatialimages.HeaderDataError,
        nib.freesurfer.mghformat.MGHError,
        ExpatError,
    )
    return own + (OSError, EOFError, ValueError, zlib.error, struct.error, OverflowError, KeyError, MemoryError)


def volume_suffix(path: Path) -> Optional[str]:
    """The suffix of a volume file (``.nii.gz`` counts as one), or None for any other file."""
    name = Path(path).name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix) and len(name) > len(suffix)), None)


def check_shape(shape: Tuple[int, ...], path: Path) -> Tuple[int, int, int]:
    """The three sides of `shape` without trailing ones; raises VolumeError when they are not three."""
    sides = tuple(int(n) for n in shape)
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    text = "x".join(str(n) for n in shape)
    if len(sides) != 3:
        raise VolumeError(
            f"{path}: {len(sides)}-D volume {text}, expected one 3-D scan; take a single frame out of it first"
        )
    if min(sides) < 1 or np.prod(sides, dtype=float) * 8 > MAX_VOLUME_BYTES:
        raise VolumeError(
            f"{path}: shape {text}, expected between 1 and {MAX_VOLUME_BYTES // 8} voxels; the header is damaged"
        )
    return sides


def scale_of(header: Any) -> Tuple[float, float]:
    """Slope and intercept of nibabel's header; may raise any of `read_errors`."""
    slope, inter = header.get_slope_inter()
    return 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)


def scaled(stored: np.ndarray, scale: Tuple[float, float]) -> np.ndarray:
    """Stored values with slope and intercept; the same array where they change nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        return nib.volumeutils.apply_read_scaling(stored, *scale)


def _trust(header: Any, grid: Grid) -> Trust:
    if np.array_equal(grid.affine, np.eye(4)):
        return Trust.IDENTITY
    known = not hasattr(header, "get_qform") or header["qform_code"] or header["sform_code"]
    return Trust.HEADER if known else Trust.UNSET


def _notes(header: Any, grid: Grid) -> List[str]:
    notes = []
    if hasattr(header, "get_qform"):
        try:
            qform, q_code = header.get_qform(coded=True)
            sform, s_code = header.get_sform(coded=True)
        except read_errors() as exc:
            return [f"the qform cannot be read ({exc}); tools that prefer it will refuse the file"]
        if not q_code and not s_code:
            notes.append("neither qform nor sform: orientation and place are unknown, a guess is used")
        elif q_code and s_code:
            apart = _apart_mm(grid.shape, qform, sform)
            if apart > DISAGREEMENT_MM:
                notes.append(
                    f"qform and sform disagree by up to {apart:.1f} mm; the sform is used, ITK and FSL may use the "
                    "qform"
                )
    if grid.sheared:
        notes.append(f"axes {grid.shear:.2g} off a right angle (sheared): ITK refuses such a file, resample it")
    if np.array_equal(grid.affine, np.eye(4)):
        notes.append(
            "identity affine: claims RAS with the origin in the corner, which scanners do not write; the orientation "
            "may be wrong"
        )
    return notes


def _apart_mm(shape: Tuple[int, int, int], a: np.ndarray, b: np.ndarray) -> float:
    try:
        return corner_distance_mm(Grid(shape, a), Grid(shape, b))
    except VolumeError:
        return float("inf")
