# SPDX-License-Identifier: Apache-2.0
"""FreeSurfer's NIfTI header extension (code 14) of a warp: source and target geometry, kind of field. Bytes in, bytes
out.

Layout (big endian): ``>``, kind of image (u16, 3 = warp), version (u8) = 1, then records of tag (i32), length (i64),
data. The records of a warp: 10 (two geometries), 15 (the same with shear), 13 (field kind, spacing, exp_k), and last -1
with one ``*``, because some readers cut trailing zeros. A geometry: valid (i32), shape (3 i32), voxel sizes (3 f32),
directions of the x, y and z axis in RAS (9 f32), RAS of index shape / 2 (3 f32), in tag 15 shear (3 f32), length of a
file name (i32) and the name. Source: the open sources of FreeSurfer's `fstagsio` and of surfa, which writes the same
bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Dict, Iterator, Tuple

import numpy as np

from vxm_convert.errors import FormatError
from vxm_convert.geometry.grids import Grid, grid_of_geometry

EXTENSION_CODE = 14
#: NIfTI's and FreeSurfer's intent of a warp
INTENT_DISPLACEMENT = 1006
#: kinds of field in tag 13
KINDS = {0: "abs_crs", 1: "disp_crs", 2: "abs_ras", 3: "disp_ras"}
DISPLACEMENT_RAS = 3
_WARP = 3
_TAG_GEOMETRY, _TAG_GEOMETRY_SHEAR, _TAG_META, _TAG_END = 10, 15, 13, -1
_MAX_NAME_BYTES = 512
_MAX_RECORDS = 64


@dataclass(frozen=True)
class WarpGeometry:
    """Content of the extension: grids of the source (moving) and target (fixed) image, and the kind."""

    source: Grid
    target: Grid
    kind: str


def encode(source: Grid, target: Grid) -> bytes:
    """The extension's content for a displacement in RAS mm; grids without shear.

    Parameters
    ----------
    source, target : Grid — of the moving and of the fixed image.
    """
    parts = [b">" + struct.pack(">HB", _WARP, 1)]
    for tag, with_shear in ((_TAG_GEOMETRY, False), (_TAG_GEOMETRY_SHEAR, True)):
        parts.append(_record(tag, _geometry(source, with_shear) + _geometry(target, with_shear)))
    parts.append(_record(_TAG_META, struct.pack(">iif", DISPLACEMENT_RAS, 1, 0.0)))
    parts.append(_record(_TAG_END, b"*"))
    return b"".join(parts)


def decode(content: bytes) -> WarpGeometry:
    """Parse the extension of a warp.

    Raises
    ------
    FormatError
        If records exceed the end, or a warp's geometry or kind is missing or impossible.
    """
    if len(content) < 4 or content[:1] != b">":
        raise FormatError(
            f"FreeSurfer extension: starts with {content[:4]!r}, expected '>' and a kind; write the warp again"
        )
    records: Dict[int, bytes] = dict(_records(content))
    if _TAG_GEOMETRY not in records or _TAG_META not in records:
        raise FormatError(
            "FreeSurfer extension: no source and target geometry (tags 10 and 13), expected those of a warp"
        )
    source, end = _read_geometry(records[_TAG_GEOMETRY], 0)
    target, _ = _read_geometry(records[_TAG_GEOMETRY], end)
    if len(records[_TAG_META]) < 4:
        raise FormatError("FreeSurfer extension: tag 13 is cut short; write the warp again")
    kind = struct.unpack_from(">i", records[_TAG_META])[0]
    if kind not in KINDS:
        raise FormatError(f"FreeSurfer extension: field kind {kind}, expected one of {KINDS}")
    return WarpGeometry(source, target, KINDS[kind])


def _record(tag: int, data: bytes) -> bytes:
    return struct.pack(">iq", tag, len(data)) + data


def _records(content: bytes) -> Iterator[Tuple[int, bytes]]:
    at = 4
    for _ in range(_MAX_RECORDS):
        if at + 12 > len(content):
            return
        tag, length = struct.unpack_from(">iq", content, at)
        if tag in (_TAG_END, 0):
            return
        if length < 0 or at + 12 + length > len(content):
            raise FormatError(f"FreeSurfer extension: tag {tag} of {length} bytes exceeds its end; the file is damaged")
        yield tag, content[at + 12 : at + 12 + length]
        at += 12 + length
    raise FormatError(f"FreeSurfer extension: more than {_MAX_RECORDS} records; the file is damaged")


def _geometry(grid: Grid, with_shear: bool) -> bytes:
    numbers = (
        list(grid.spacing_mm) + list(grid.directions.T.ravel()) + list(grid.centre_ras) + [0.0, 0.0, 0.0] * with_shear
    )
    return struct.pack(f">i3i{len(numbers)}f", 1, *(list(grid.shape) + numbers)) + struct.pack(">i", 0)


def _read_geometry(data: bytes, at: int) -> Tuple[Grid, int]:
    try:
        valid, x, y, z, *numbers = struct.unpack_from(">i3i15f", data, at)
        name_length = struct.unpack_from(">i", data, at + 76)[0]
    except struct.error as exc:
        raise FormatError(f"FreeSurfer extension: geometry cut short ({exc}); the file is damaged") from exc
    if not valid or not 0 <= name_length <= _MAX_NAME_BYTES:
        raise FormatError(
            "FreeSurfer extension: a geometry is marked invalid; convert the warp with its images' geometry set"
        )
    directions = np.array(numbers[3:12]).reshape(3, 3).T
    return grid_of_geometry((x, y, z), numbers[:3], directions, numbers[12:15]), at + 80 + name_length
