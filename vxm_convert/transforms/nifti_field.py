# SPDX-License-Identifier: Apache-2.0
"""Reading vector fields from NIfTI without trusting them: everything is checked in the first bytes before voxels are
allocated.

Refuses: damaged or truncated files, sizes that the file cannot hold, voxel sizes that are not positive, NaN. It knows
shapes, dtypes and intents, but not what a displacement means: that is `formats`' and `landing`'s subject.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.header import header_reason, parsed, read_errors, scale_of, scaled
from vxm_convert.scans.header_space import Trust, space_of
from vxm_convert.scans.raw_header import RawHeader, judge, read_voxels, require_file
from vxm_convert.transforms.foreign import refuse_foreign

LOG = logging.getLogger(__name__)

#: 406³ voxels: a 0.5 mm template fits; larger fields do not come from brain registration
MAX_FIELD_VOXELS = 1 << 26
#: codes of xyzt_units but mm
_OTHER_UNITS = {1: "metres", 3: "microns"}


@dataclass(frozen=True)
class Field:
    """A vector field as stored in a file.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, 3), float32 or float64 — as stored, with unknown unit and axes.
    grid : Grid — from sform, else qform.
    shape : tuple of ints — from the header, 4-D or 5-D.
    intent : int — NIfTI intent code.
    extensions : list of (code, bytes)
    """

    data: np.ndarray
    grid: Grid
    shape: Tuple[int, ...]
    intent: int
    extensions: List[Tuple[int, bytes]]
    #: whether a qform or a sform says where the grid lies; without one, tools place it differently
    placed: bool = True


@dataclass(frozen=True)
class FieldHeader:
    """Content of a header, before any voxel is read."""

    path: Path
    said: Any
    shape: Tuple[int, ...]
    intent: int
    ndim: int
    raw: RawHeader
    #: in lower case
    intent_name: str = ""
    description: str = ""
    intent_p1: float = 0.0


def open_field(path: Path) -> FieldHeader:
    """The checked header of a vector field: (X, Y, Z, 3) or (X, Y, Z, 1, 3), floats.

    Raises
    ------
    VolumeError
        If the file is missing, damaged, too large, or not such a field.
    """
    path = Path(path)
    _check_name(path)
    raw = judge(path, "a warp")
    try:
        header = parsed(raw)
        shape = tuple(int(n) for n in header.get_data_shape())
        intent, dtype = int(header["intent_code"]), np.dtype(header.get_data_dtype())
    except read_errors() as exc:
        raise VolumeError(f"{path}: not a readable NIfTI warp ({header_reason(exc)}); copy or export it again") from exc
    _check_shape(path, shape)
    unit = _OTHER_UNITS.get(int(header["xyzt_units"]) & 7)
    if unit:
        raise VolumeError(
            f"{path}: its header is in {unit} (xyzt_units), which leaves open the unit of its displacements; export the "
            "warp again in mm"
        )
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise VolumeError(
            f"{path}: components of dtype {dtype}, expected float32 or float64; an integer warp has lost its fractions"
        )
    if np.prod(shape, dtype=np.int64) * dtype.itemsize != raw.voxel_bytes:
        raise VolumeError(f"{path}: bits per voxel and dtype {dtype} disagree in the header; export the warp again")
    names = [bytes(header[key]).split(b"\0")[0].decode("latin-1").strip().lower() for key in ("intent_name", "descrip")]
    return FieldHeader(path, header, shape, intent, len(shape), raw, names[0], names[1], float(header["intent_p1"]))


def read_field(header: FieldHeader) -> Field:
    """The whole field of an opened file; raises VolumeError for damaged data."""
    path, said = header.path, header.said
    flat = read_voxels(header.raw).view(said.get_data_dtype())
    data = scaled(flat.reshape(header.shape[:3] + (3,), order="F"), scale_of(said, path))
    try:
        extensions = [(int(e.get_code()), _content(e)) for e in said.extensions]
    except read_errors() as exc:
        raise VolumeError(f"{path}: damaged data ({header_reason(exc)}); copy the file again") from exc
    if data.dtype not in (np.float32, np.float64):
        data = data.astype(np.float32 if data.dtype.itemsize <= 4 else np.float64)
    x, y, z = header.shape[:3]
    space = space_of(said, header.raw, (x, y, z))
    for note in space.notes:
        LOG.warning("%s: %s", path, note)
    grid, placed = space.grid, space.trust is not Trust.UNSET
    return Field(
        data.astype(data.dtype.newbyteorder("="), copy=False), grid, header.shape, header.intent, extensions, placed
    )


def _check_name(path: Path) -> None:
    refuse_foreign(path)
    require_file(path, "a warp")
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise VolumeError(f"{path}: unknown kind of file, expected a warp as .nii, .nii.gz or .npz")


def _content(extension: Any) -> bytes:
    """The extension's bytes; nibabel drops zero bytes at its end, so readers of a record format must tolerate that."""
    content = extension.get_content()
    return content if isinstance(content, bytes) else str(content).encode("utf-8", "replace")


def _check_shape(path: Path, shape: Tuple[int, ...]) -> None:
    text = "x".join(str(n) for n in shape)
    if len(shape) == 5 and shape[3] > 1 and shape[4] == 3:
        raise VolumeError(
            f"{path}: shape {text}: {shape[3]} fields over time (a time-varying velocity, or a series), expected one "
            "displacement per voxel; export the total deformation"
        )
    if not (len(shape) == 4 and shape[3] == 3 or len(shape) == 5 and shape[3:] == (1, 3)):
        raise VolumeError(
            f"{path}: shape {text}, expected X x Y x Z x 3 or X x Y x Z x 1 x 3: one displacement of three components "
            "per voxel"
        )
    if min(shape) < 1 or np.prod(shape[:3], dtype=float) > MAX_FIELD_VOXELS:
        raise VolumeError(
            f"{path}: shape {text}, expected between 1 and {MAX_FIELD_VOXELS} voxels; the header is damaged"
        )
