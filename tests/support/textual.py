# SPDX-License-Identifier: Apache-2.0
"""NRRD, MetaImage and Analyze files by their bytes, independent of any reader."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Dict, Optional, Sequence

import numpy as np

#: LIA, 1 mm, as the network's own grid of the fakes' shape
LIA = np.array([[-1.0, 0, 0, 8], [0, 0, 1, -16], [0, -1, 0, 8], [0, 0, 0, 1]])
#: oblique, anisotropic, mirrored
OBLIQUE = np.array([[0.1, -1.1, 0.3, 20.0], [1.4, 0.1, 0.1, -31.0], [-0.1, 0.2, 1.9, 7.5], [0, 0, 0, 1]])
ARRAY = np.random.RandomState(0).randint(0, 200, (20, 23, 26))
_NRRD = {"u1": "uchar", "i2": "short", "f4": "float", "f8": "double"}
_META = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "f4": "MET_FLOAT", "f8": "MET_DOUBLE"}


def write(
    path: Path, array: np.ndarray, affine: np.ndarray = LIA, packed: bool = False, **replaced: Optional[str]
) -> Path:
    """A file of the kind that its suffix says, for ``.nhdr`` and ``.mhd`` with ``<name>.raw`` beside it; entries of its
    header may be replaced, or left out by None.
    """
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    nrrd, beside = path.suffix in (".nrrd", ".nhdr"), path.suffix in (".nhdr", ".mhd")
    entries = _nrrd(array, lps, packed) if nrrd else _meta(array, lps, packed)
    if beside:
        entries["data file" if nrrd else "ElementDataFile"] = f"{path.name}.raw"
    entries.update({name.replace("_", " "): value for name, value in replaced.items()})  # type: ignore[misc]
    if "ElementDataFile" in entries:
        entries["ElementDataFile"] = entries.pop("ElementDataFile")  # the last one
    joint = ": " if nrrd else " = "
    if packed and not nrrd:
        # ITK needs it, and reads nonsense without.
        entries = {"CompressedDataSize": str(len(zlib.compress(array.tobytes(order="F")))), **entries}
    lines = [f"{name}{joint}{value}\n" for name, value in entries.items() if value is not None]
    data = array.tobytes(order="F")
    head = "".join(lines)
    if nrrd:
        head = "NRRD0005\n# by hand\nkey:=value\n" + head + ("" if beside else "\n")
    if packed:
        data = gzip.compress(data) if nrrd else zlib.compress(data)
    if beside:
        path.with_name(f"{path.name}.raw").write_bytes(data)
    path.write_bytes(head.encode("utf-8") + (b"" if beside else data))
    return path


def write_analyze(
    path: Path, array: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0), big: bool = False, **fields: tuple
) -> Path:
    """An Analyze 7.5 pair: the header ``<path>.hdr``, which is returned, and ``<path>.img``.

    Parameters
    ----------
    fields : name → offset, struct format, values; written over the others.
    """
    order = ">" if big else "<"
    code = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64}[array.dtype.str[1:]]
    known = {
        "sizeof_hdr": (0, "i", 348),
        "regular": (38, "c", b"r"),
        "dim": (40, "8h", 4, *array.shape, 1, 0, 0, 0),
        "datatype": (70, "hh", code, 8 * array.dtype.itemsize),
        "pixdim": (76, "4f", 0.0, *spacing),
    }
    head = bytearray(348)
    for at, form, *values in {**known, **fields}.values():
        struct.pack_into(order + form, head, at, *values)
    path.with_name(path.name + ".img").write_bytes(array.astype(array.dtype.newbyteorder(order)).tobytes(order="F"))
    header = path.with_name(path.name + ".hdr")
    header.write_bytes(bytes(head))
    return header


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
