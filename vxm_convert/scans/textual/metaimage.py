# SPDX-License-Identifier: Apache-2.0
"""Headers of MetaImage files, as ITK and elastix write them: with their voxels behind them (.mha), or in a file beside
them (.mhd).

Source: ITK's MetaIO; its documentation, https://itk.org/Wiki/ITK/MetaIO/Documentation. Space is LPS, in mm.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.scans.textual.beside import named_beside, skipped
from vxm_convert.scans.textual.stored import MAX_HEADER, Stored, affine_of, lines_of, numbers, sides

_LAST = re.compile(rb"^ElementDataFile[ \t]*=[ \t]*([^\r\n]*)(?:\r?\n|\Z)", re.MULTILINE)
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
#: names of one entry
_POSITION = ("Offset", "Position", "Origin")
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")


def read_metaimage(path: Path) -> Stored:
    """The header of an .mha or .mhd file.

    Raises
    ------
    VolumeError
        For a damaged header, voxels as text, or (.mhd) in another than one file beside it, more or fewer than three axes,
        or several values per voxel.
    """
    with open(str(path), "rb") as handle:
        head = handle.read(MAX_HEADER)
    last = _LAST.search(head)
    if last is None:
        raise VolumeError(f"{path}: has no ElementDataFile, with which a MetaImage header ends; it is damaged")
    beside = last.group(1).strip().upper() != b"LOCAL"
    if beside and path.suffix.lower() != ".mhd":
        raise VolumeError(f"{path}: its voxels are in another file; save it as one .mha, or as .nii.gz")
    entries: Dict[str, str] = {}
    for line in lines_of(path, head[: last.start()]):
        name, _, value = line.partition("=")
        entries.setdefault(name.strip(), value.strip())
    try:
        data = named_beside(path, os.fsdecode(last.group(1).strip())) if beside else None
        return _stored(path, entries, last.end(), data)
    except ValueError as exc:
        raise VolumeError(f"{path}: {exc}; save it as one 3-D .mha, or as .nii.gz") from exc


def _stored(path: Path, entries: Dict[str, str], start: int, data: Optional[Path]) -> Stored:
    kind = _TYPES.get(entries.get("ElementType", ""))
    if kind is None:
        raise ValueError(
            f"ElementType {entries.get('ElementType', 'none')[:80]!r}, expected one of {', '.join(_TYPES)}"
        )
    if entries.get("NDims") != "3":
        raise ValueError(f"NDims {entries.get('NDims', 'none')[:80]!r}, expected one 3-D scan")
    if entries.get("ElementNumberOfChannels", "1") != "1":
        raise ValueError("several values per voxel (ElementNumberOfChannels)")
    before = entries.get("HeaderSize", "0")
    if data is not None:
        start = skipped(before, "HeaderSize")
    elif before != "0":
        raise ValueError("its voxels do not start behind the header (HeaderSize)")
    if not _said(entries, "BinaryData", default=True):
        raise ValueError("voxels written as text (BinaryData = False)")
    order = ">" if any(_said(entries, name) for name in _BIG_ENDIAN) else "<"
    spacing = _first(entries, ("ElementSpacing", "ElementSize"))
    sizes = np.diag(numbers(spacing, 3, "ElementSpacing") if spacing is not None else (1.0, 1.0, 1.0))
    affine, placed = _space(entries, sizes)
    packed = _said(entries, "CompressedData")
    return Stored(path, sides(entries.get("DimSize", "")), np.dtype(order + kind), packed, start, affine, placed, data)


def _space(entries: Dict[str, str], sizes: np.ndarray) -> Tuple[np.ndarray, bool]:
    matrix, position = _first(entries, _MATRIX), _first(entries, _POSITION)
    origin = np.array(numbers(position, 3, "Offset")) if position is not None else np.zeros(3)
    if matrix is None:
        return affine_of(sizes, origin, (-1.0, -1.0, 1.0)), False
    # Each row of the file is the direction of one axis.
    rows = np.array(numbers(matrix, 9, "TransformMatrix")).reshape(3, 3)
    return affine_of(rows.T @ sizes, origin, (-1.0, -1.0, 1.0)), True


def _said(entries: Dict[str, str], name: str, default: bool = False) -> bool:
    text = entries.get(name)
    return default if text is None else text[:1].lower() in ("t", "1", "y")


def _first(entries: Dict[str, str], names: Tuple[str, ...]) -> Optional[str]:
    return next((entries[name] for name in names if name in entries), None)
