# SPDX-License-Identifier: Apache-2.0
"""A scan's file opened as far as its header: shape, affine and dtype are judged, voxels are read on demand.

nibabel interprets headers that `vxm_convert.scans.raw_header` has judged; what it lets escape on damaged ones is listed
here once.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Tuple, Type
from xml.parsers.expat import ExpatError

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.lazy import LazyModule
from vxm_convert.scans.raw_header import RawHeader, judge, read_voxels
from vxm_convert.text import one_line

nib = LazyModule("nibabel")

VOLUME_SUFFIXES = (".nii.gz", ".npz", ".nii", ".mgz", ".mgh")
#: 512³ voxels of float64: far above any brain grid, far below what hurts
MAX_VOLUME_BYTES = 512**3 * 8


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


def check_shape(shape: Tuple[int, ...], expected: Optional[Tuple[int, int, int]], path: Path) -> Tuple[int, int, int]:
    """The three sides of `shape` without trailing ones; raises VolumeError when they are not three or not
    `expected`.
    """
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
    if expected is not None and sides != tuple(expected):
        want = "x".join(str(n) for n in expected)
        raise VolumeError(
            f"{path}: shape {text}, the network wants {want}; scans and atlas must lie on the network grid (resample "
            "or crop them to it)"
        )
    return sides


@dataclass(frozen=True)
class OpenScan:
    """A NIfTI or MGH file whose header was judged; no voxel is read yet.

    Parameters
    ----------
    image — nibabel's, for its header.
    raw : RawHeader — what the first bytes say.
    grid : Grid — shape without trailing ones, and affine.
    dtype : dtype — of the stored voxels.
    """

    image: Any
    raw: RawHeader
    grid: Grid
    dtype: np.dtype

    def voxels(self) -> np.ndarray:
        """All voxels, slope and intercept applied; raises VolumeError for damaged data and sizes that disagree."""
        flat = read_voxels(self.raw)
        return scaled(flat.view(self.dtype).reshape(self.grid.shape, order="F"), self.image)


def scaled(stored: np.ndarray, image: Any) -> np.ndarray:
    """Stored values with the slope and intercept of nibabel's `image`; the same array where they change nothing."""
    proxy = image.dataobj
    with np.errstate(over="ignore", invalid="ignore"):
        return nib.volumeutils.apply_read_scaling(stored, float(proxy.slope), float(proxy.inter))


def open_scan(path: Path, expected: Optional[Tuple[int, int, int]] = None) -> OpenScan:
    """The header of a .nii, .nii.gz, .mgz or .mgh file.

    Raises
    ------
    VolumeError
        Damaged or hostile bytes, not 3-D or not `expected`, an affine that is no grid, voxels that are no plain
        numbers.
    """
    path = Path(path)
    if volume_suffix(path) is None:
        raise VolumeError(f"{path}: unknown kind of file, expected one of {', '.join(VOLUME_SUFFIXES)}")
    raw = judge(path)
    try:
        image = nib.load(str(path))
        dtype = np.dtype(image.get_data_dtype())
        affine = np.array(image.affine, dtype=float)
    except read_errors() as exc:
        raise VolumeError(
            f"{path}: not a readable {volume_suffix(path)} ({one_line(exc)}); export the scan again"
        ) from exc
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise VolumeError(
            f"{path}: voxels of dtype {dtype}, expected plain integers or floats; colour and complex volumes are no "
            "scans"
        )
    shape = check_shape(image.shape, expected, path)
    if np.prod(shape, dtype=np.int64) * dtype.itemsize != raw.voxel_bytes:
        raise VolumeError(f"{path}: bits per voxel and dtype {dtype} disagree in the header; export the scan again")
    try:
        return OpenScan(image, raw, Grid(shape, affine), dtype)
    except VolumeError as exc:
        raise VolumeError(f"{path}: {exc}") from exc
