# SPDX-License-Identifier: Apache-2.0
"""NRRD and MetaImage files by their text, independent of any reader."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Dict, Optional

import numpy as np

#: LIA, 1 mm, as the network's own grid of the fakes' shape
LIA = np.array([[-1.0, 0, 0, 8], [0, 0, 1, -16], [0, -1, 0, 8], [0, 0, 0, 1]])
_NRRD = {"u1": "uchar", "i2": "short", "f4": "float", "f8": "double"}
_META = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "f4": "MET_FLOAT", "f8": "MET_DOUBLE"}


def write(
    path: Path, array: np.ndarray, affine: np.ndarray = LIA, packed: bool = False, **replaced: Optional[str]
) -> Path:
    """A file of the kind that its suffix says; entries of its header may be replaced, or left out by None."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    entries = _nrrd(array, lps, packed) if path.suffix == ".nrrd" else _meta(array, lps, packed)
    entries.update({name.replace("_", " "): value for name, value in replaced.items()})  # type: ignore[misc]
    if "ElementDataFile" in entries:
        entries["ElementDataFile"] = entries.pop("ElementDataFile")  # the last one
    joint = ": " if path.suffix == ".nrrd" else " = "
    if packed and path.suffix == ".mha":
        # ITK needs it, and reads nonsense without.
        entries = {"CompressedDataSize": str(len(zlib.compress(array.tobytes(order="F")))), **entries}
    lines = [f"{name}{joint}{value}\n" for name, value in entries.items() if value is not None]
    data = array.tobytes(order="F")
    if path.suffix == ".nrrd":
        head, data = (
            "NRRD0005\n# by hand\nkey:=value\n" + "".join(lines) + "\n",
            gzip.compress(data) if packed else data,
        )
    else:
        head, data = "".join(lines), zlib.compress(data) if packed else data
    path.write_bytes(head.encode("ascii") + data)
    return path


def _order(array: np.ndarray) -> bool:
    """Whether the array is big-endian."""
    return array.dtype.byteorder == ">"


def _nrrd(array: np.ndarray, lps: np.ndarray, packed: bool) -> Dict[str, str]:
    vectors = [f"({','.join(repr(float(value)) for value in vector)})" for vector in lps[:3].T]
    return {
        "type": _NRRD[array.dtype.str[1:]],
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, array.shape)),
        "space directions": " ".join(vectors[:3]),
        "kinds": "domain domain domain",
        "endian": "big" if _order(array) else "little",
        "encoding": "gzip" if packed else "raw",
        "space origin": vectors[3],
    }


def _meta(array: np.ndarray, lps: np.ndarray, packed: bool) -> Dict[str, str]:
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(_order(array)),
        "CompressedData": str(packed),
        "TransformMatrix": " ".join(repr(float(v)) for v in (lps[:3, :3] / spacing).T.ravel()),
        "Offset": " ".join(repr(float(v)) for v in lps[:3, 3]),
        "ElementSpacing": " ".join(repr(float(v)) for v in spacing),
        "DimSize": " ".join(map(str, array.shape)),
        "ElementType": _META[array.dtype.str[1:]],
        "ElementDataFile": "LOCAL",
    }
