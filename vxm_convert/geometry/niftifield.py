# SPDX-License-Identifier: Apache-2.0
"""Reading vector fields from NIfTI without trusting them: everything is judged from the first bytes before voxels are allocated.

Refuses: damaged or truncated files, sizes that the file cannot hold, voxel sizes that are not positive, NaN. It knows shapes,
dtypes and intent codes, but not what a displacement means: that is warpfiles.py's subject.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Tuple

import nibabel as nib
import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.volumes import READ_ERRORS

#: 406³ voxels: a 0.5 mm template fits, what exceeds it is no field of a brain registration
MAX_FIELD_VOXELS = 1 << 26
#: room for header extensions; FreeSurfer's takes some hundred bytes
_MAX_VOX_OFFSET = 1 << 20
#: deflate cannot squeeze better than 1032:1, so a file claims at most this many bytes per byte it has
_MAX_RATIO = 1040
_HEADER_BYTES = 540


@dataclass(frozen=True)
class Field:
    """A vector field as a file has it.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, 3), float32 or float64 — as stored, unit and axes unknown here.
    grid : Grid — from sform, else qform.
    shape : tuple of ints — as the header says, 4-D or 5-D.
    intent : int — NIfTI intent code.
    extensions : list of (code, bytes)
    """

    data: np.ndarray
    grid: Grid
    shape: Tuple[int, ...]
    intent: int
    extensions: List[Tuple[int, bytes]]


@dataclass(frozen=True)
class FieldHeader:
    """What a header says, before any voxel is read."""

    path: Path
    image: Any
    shape: Tuple[int, ...]
    intent: int
    ndim: int


def open_field(path: Path) -> FieldHeader:
    """The checked header of a vector field: (X, Y, Z, 3) or (X, Y, Z, 1, 3), floats.

    Raises
    ------
    VolumeError
        When the file is missing, damaged, too large, or no such field.
    """
    path = Path(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such file, expected a warp; check the path")
    packed = _check_first_bytes(path)
    try:
        image = nib.load(str(path))
        shape = tuple(int(n) for n in image.shape)
        intent, dtype = int(image.header["intent_code"]), np.dtype(image.get_data_dtype())
    except READ_ERRORS as exc:
        raise VolumeError(f"{path}: not a readable NIfTI warp ({exc}); copy or export it again") from exc
    _check_shape(path, shape)
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise VolumeError(f"{path}: components of dtype {dtype}, expected float32 or float64; a warp in integers has lost its fractions")
    claimed, have = int(np.prod(shape, dtype=float)) * dtype.itemsize, path.stat().st_size
    if claimed > have * (_MAX_RATIO if packed else 1):
        raise VolumeError(f"{path}: the header claims {claimed} bytes of voxels, the file has {have}; copy the file again")
    return FieldHeader(path, image, shape, intent, len(shape))


def read_field(header: FieldHeader) -> Field:
    """The whole field of an opened file; raises VolumeError for damaged data."""
    path, image = header.path, header.image
    try:
        data = np.asanyarray(image.dataobj).reshape(header.shape[:3] + (3,), order="F")
        extensions = [(int(e.get_code()), _content(e)) for e in image.header.extensions]
    except READ_ERRORS as exc:
        raise VolumeError(f"{path}: damaged data ({exc}); copy the file again") from exc
    if data.dtype not in (np.float32, np.float64):
        data = data.astype(np.float32 if data.dtype.itemsize <= 4 else np.float64)
    try:
        grid = Grid(header.shape[:3], image.affine)
    except VolumeError as exc:
        raise VolumeError(f"{path}: {exc}") from exc
    return Field(data.astype(data.dtype.newbyteorder("="), copy=False), grid, header.shape, header.intent, extensions)


def _content(extension: Any) -> bytes:
    """The extension's bytes; nibabel drops zero bytes at its end, which readers of a record format must allow for."""
    content = extension.get_content()
    return content if isinstance(content, bytes) else str(content).encode("utf-8", "replace")


def _check_shape(path: Path, shape: Tuple[int, ...]) -> None:
    text = "x".join(str(n) for n in shape)
    if not (len(shape) == 4 and shape[3] == 3 or len(shape) == 5 and shape[3:] == (1, 3)):
        raise VolumeError(f"{path}: shape {text}, expected X x Y x Z x 3 or X x Y x Z x 1 x 3: one displacement of three parts per voxel")
    if min(shape) < 1 or np.prod(shape[:3], dtype=float) > MAX_FIELD_VOXELS:
        raise VolumeError(f"{path}: shape {text}, expected between 1 and {MAX_FIELD_VOXELS} voxels; the header is damaged")


def _check_first_bytes(path: Path) -> bool:
    """Judge the header's own numbers, before nibabel mends or follows them; returns whether the file is gzipped."""
    try:
        with open(str(path), "rb") as handle:
            packed = handle.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        with opener(str(path), "rb") as handle:
            start = handle.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as exc:
        raise VolumeError(f"{path}: damaged or truncated ({exc}); copy the file again") from exc
    kinds = {(order, size) for order in "<>" for size in (348, 540) if start[:4] == struct.pack(order + "i", size)}
    if not kinds or len(start) < 348:
        what = "is empty" if not start else f"starts with {start[:4]!r}"
        raise VolumeError(f"{path}: {what}, expected a NIfTI-1 or NIfTI-2 header; this is no NIfTI warp or it is damaged")
    order, size = kinds.pop()
    try:
        sizes = struct.unpack_from(order + ("3f" if size == 348 else "3d"), start, 80 if size == 348 else 112)
        offset = struct.unpack_from(order + ("f" if size == 348 else "q"), start, 108 if size == 348 else 168)[0]
    except struct.error as exc:
        raise VolumeError(f"{path}: the header ends after {len(start)} bytes; copy the file again") from exc
    if not all(np.isfinite(s) and s > 0 for s in sizes):
        raise VolumeError(f"{path}: voxel sizes {sizes}, expected positive numbers of mm (pixdim[1..3]); mend the header")
    if not 0 <= offset <= _MAX_VOX_OFFSET:
        raise VolumeError(f"{path}: voxels said to start at byte {offset}, expected at most {_MAX_VOX_OFFSET}; the header is damaged")
    return packed
