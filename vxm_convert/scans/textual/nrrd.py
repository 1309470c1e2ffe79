# SPDX-License-Identifier: Apache-2.0
"""Headers of NRRD files, as Slicer and ITK write them: with their voxels behind them (.nrrd), or in a file beside them
(.nhdr).

Source: the format's definition, https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.scans.textual.beside import named_beside, skipped
from vxm_convert.scans.textual.stored import MAX_HEADER, Stored, affine_of, lines_of, numbers, sides

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
#: every spelling of the format's types → dtype without byte order
_TYPES: Dict[str, str] = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), "i8"
    ),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_ENDIAN = {"little": "<", "big": ">"}
_PACKED = {"raw": False, "gzip": True, "gz": True}
#: space → signs that turn it into RAS; other spaces do not say where left is
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
}
#: kinds of an axis along which the scan lies in space
_SPATIAL = ("space", "domain", "???", "none")
_VECTOR = re.compile(r"\(([^()]*)\)")
_SPLIT_FILES = ("data file", "datafile")


def read_nrrd(path: Path) -> Stored:
    """The header of an .nrrd or .nhdr file.

    Raises
    ------
    VolumeError
        For a damaged header, voxels in another than this file or (.nhdr) one file beside it, more or fewer than three axes,
        or an encoding other than raw and gzip.
    """
    with open(str(path), "rb") as handle:
        head = handle.read(MAX_HEADER)
    if not _MAGIC.match(head):
        raise VolumeError(
            f"{path}: starts with {head[:8]!r}, expected an NRRD header; it is damaged, or another format"
        )
    beside = path.suffix.lower() == ".nhdr"
    end = _END.search(head)
    if end is None and (not beside or len(head) == MAX_HEADER):
        raise VolumeError(f"{path}: its header has no end within {MAX_HEADER} bytes; copy the file again")
    text = head if end is None else head[: end.start()]
    fields = _fields(lines_of(path, text))
    other = next((name for name in _SPLIT_FILES if name in fields), None)
    if not beside and other is not None:
        raise VolumeError(f"{path}: its voxels are in another file ({other}); save it as one .nrrd, or as .nii.gz")
    try:
        # Text was decoded as latin-1, the name of a file is what its bytes are.
        named = "" if other is None else os.fsdecode(fields[other].encode("latin-1"))
        data = named_beside(path, named) if beside else None
        return _stored(path, fields, 0 if end is None or beside else end.end(), data)
    except ValueError as exc:
        raise VolumeError(f"{path}: {exc}; save it as one 3-D .nrrd, or as .nii.gz") from exc


def _fields(lines: List[str]) -> Dict[str, str]:
    """Field → value; keys with ``:=`` are of programs."""
    found: Dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(": ")
        if colon and not line.startswith("#") and ":=" not in line.split(": ")[0]:
            found.setdefault(name.strip().lower(), value.strip())
    return found


def _stored(path: Path, fields: Dict[str, str], start: int, data: Optional[Path]) -> Stored:
    kind, coding = _TYPES.get(fields.get("type", "").lower()), fields.get("encoding", "").lower()
    if kind is None:
        raise ValueError(f"voxels of type {fields.get('type', 'none')[:80]!r}, expected integers or floats")
    if coding not in _PACKED:
        raise ValueError(f"encoding {coding[:80]!r}, expected raw or gzip")
    order = _ENDIAN.get(fields.get("endian", "").lower(), "")
    if not order and kind[1] != "1":
        raise ValueError(f"endian {fields.get('endian', 'none')[:80]!r}, expected little or big")
    if fields.get("dimension") != "3":
        raise ValueError(f"dimension {fields.get('dimension', 'none')[:80]!r}, expected one 3-D scan")
    for kind_of_axis in fields.get("kinds", "").lower().split():
        if kind_of_axis not in _SPATIAL:
            raise ValueError(f"an axis of the kind {kind_of_axis[:80]!r}, expected three axes in space")
    start += _skip(fields, allowed=data is not None and coding == "raw")
    for name in ("space units", "units"):
        if not set(re.findall(r'"([^"]*)"', fields.get(name, ""))) <= {"mm", ""}:
            raise ValueError(f"{name} {fields[name][:80]}, expected mm")
    affine, placed = _space(fields)
    dtype, packed = np.dtype(order + kind), _PACKED[coding]
    return Stored(path, sides(fields.get("sizes", "")), dtype, packed, start, affine, placed, data)


def _skip(fields: Dict[str, str], allowed: bool) -> int:
    lines, count = (fields.get(f"{word} skip", fields.get(f"{word}skip", "0")) for word in ("line", "byte"))
    if lines != "0" or (count != "0" and not allowed):
        raise ValueError("its voxels do not start behind the header (line skip or byte skip)")
    return skipped(count, "byte skip")


def _space(fields: Dict[str, str]) -> Tuple[np.ndarray, bool]:
    flip: Optional[Tuple[float, float, float]] = _SPACES.get(fields.get("space", "").lower())
    if "space directions" not in fields:
        spacing = numbers(fields["spacings"], 3, "spacings") if "spacings" in fields else (1.0, 1.0, 1.0)
        return np.diag((*spacing, 1.0)), False
    vectors = _VECTOR.findall(fields["space directions"])
    if len(vectors) != 3:
        raise ValueError(f"space directions {fields['space directions'][:80]!r}, expected three vectors")
    axes = np.array([_vector(vector, "space directions") for vector in vectors]).T
    origin = _VECTOR.findall(fields.get("space origin", "(0,0,0)"))
    if len(origin) != 1:
        raise ValueError(f"space origin {fields['space origin'][:80]!r}, expected one vector")
    return affine_of(axes, np.array(_vector(origin[0], "space origin")), flip or (-1.0, -1.0, 1.0)), flip is not None


def _vector(text: str, what: str) -> Tuple[float, ...]:
    return numbers(text.replace(",", " "), 3, what)
