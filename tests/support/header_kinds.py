# SPDX-License-Identifier: Apache-2.0
"""Kinds of headers, what becomes of a file with each, and the table of docs/geometry.md about them.

``python -m tests.support.header_kinds`` writes the table. tests/integration/test_header_kinds.py proves every cell.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Tuple

import nibabel as nib
import numpy as np

from tests.support import textual
from vxm_convert.geometry.grids import Grid

#: what reads a header, in the order of the table's columns
ENTRIES = (
    "cohort",
    "atlas",
    "segmentation",
    "apply",
    "evaluate",
    "invert",
    "jacobian",
    "convert-warp",
    "points",
    "train",
    "prepare",
)
RIGHT, SAID, REFUSED = "right", "right, said", "refused"
BEGIN, END = "<!-- headers: made by tests/support/header_kinds.py -->", "<!-- end of headers -->"

Writer = Callable[[Path, np.ndarray, Grid], Path]


class Kind(NamedTuple):
    """A kind of header: how a file with it is written, what every entry does with it, and words of the message."""

    write: Writer
    outcome: str
    words: str = ""


def nifti(path: Path, data: np.ndarray, grid: Grid, **changes: object) -> Path:
    """A plain NIfTI, sform and qform set, mm; then `factor` times the affine, codes `q` and `s`, fields of the header."""
    factor, q, s = (changes.pop(name, default) for name, default in (("factor", 1.0), ("q", 1), ("s", 1)))
    affine = grid.affine.copy()
    affine[:3] *= factor
    image = nib.Nifti1Image(data, affine)
    image.set_qform(changes.pop("qform", affine), code=q)
    image.set_sform(affine, code=s)
    image.header.set_xyzt_units("mm")
    for name, value in changes.items():
        image.header[name] = value
    path = path.with_name(path.name + ".nii")
    nib.save(image, str(path))
    return path


def patched(path: Path, **fields: Tuple[int, str, float]) -> Path:
    """Numbers of a header overwritten: name → byte, struct format, value."""
    raw = bytearray(path.read_bytes())
    for at, form, value in fields.values():
        struct.pack_into(form, raw, at, value)
    path.write_bytes(bytes(raw))
    return path


def plain(path: Path, data: np.ndarray, grid: Grid) -> Path:
    return nifti(path, data, grid)


def _apart(path: Path, data: np.ndarray, grid: Grid) -> Path:
    shifted = grid.affine.copy()
    shifted[0, 3] += 6
    return nifti(path, data, grid, qform=shifted)


def _quaternion(path: Path, data: np.ndarray, grid: Grid, length: float) -> Path:
    """A qform alone, its vector part made `length` long; all grids here are half turns, whose scalar part is 0."""
    written = nifti(path, data, grid, s=0)
    header = nib.load(str(written)).header
    fields = {}
    for at, name in ((256, "quatern_b"), (260, "quatern_c"), (264, "quatern_d")):
        fields[name] = (at, "<f", float(header[name]) * length)
    return patched(written, **fields)


def _identity(path: Path, data: np.ndarray, grid: Grid) -> Path:
    return nifti(path, data, Grid(grid.shape, np.eye(4)))


def _slope(path: Path, data: np.ndarray, grid: Grid, slope: float, inter: float) -> Path:
    return patched(nifti(path, data, grid), slope=(112, "<f", slope), inter=(116, "<f", inter))


def _without_directions(path: Path, data: np.ndarray, grid: Grid) -> Path:
    """An MGH file with ras_good 0; rubbish where the directions would be."""
    written = path.with_name(path.name + ".mgh")
    nib.save(nib.MGHImage(data, np.diag([3.0, 2.0, 1.0, 1.0])), str(written))
    return patched(written, ras_good=(28, ">h", 0))


def _pair(path: Path, data: np.ndarray, grid: Grid) -> Path:
    written = path.with_name(path.name + ".hdr")
    nib.save(nib.Nifti1Pair(data, grid.affine), str(written))
    return written


def _textual(path: Path, data: np.ndarray, grid: Grid, suffix: str) -> Path:
    return textual.write(path.with_name(path.name + suffix), data, grid.affine)


def _analyze(path: Path, data: np.ndarray, grid: Grid) -> Path:
    return textual.write_analyze(path, data, grid.spacing_mm)


#: name in the table → kind
KINDS: Dict[str, Kind] = {
    "sform alone": Kind(lambda p, d, g: nifti(p, d, g, q=0), RIGHT),
    "qform alone": Kind(lambda p, d, g: nifti(p, d, g, s=0), RIGHT),
    "numbers in metres, and xyzt_units says so": Kind(
        lambda p, d, g: nifti(p, d, g, factor=1e-3, xyzt_units=1), SAID, "units of one metre"
    ),
    "numbers in microns, and xyzt_units says so": Kind(
        lambda p, d, g: nifti(p, d, g, factor=1e3, xyzt_units=3), SAID, "units of one micron"
    ),
    "xyzt_units says metre, the numbers are mm": Kind(
        lambda p, d, g: nifti(p, d, g, xyzt_units=1), REFUSED, "set xyzt_units to 2"
    ),
    "numbers in microns without a unit": Kind(
        lambda p, d, g: nifti(p, d, g, factor=1e3, xyzt_units=0), REFUSED, "set xyzt_units to 3"
    ),
    "qform and sform 6 mm apart": Kind(_apart, SAID, "disagree by up to 6.0 mm"),
    "quaternion longer than 1 by rounding": Kind(lambda p, d, g: _quaternion(p, d, g, 1 + 3e-6), RIGHT),
    "quaternion of length 2, no sform": Kind(lambda p, d, g: _quaternion(p, d, g, 2.0), REFUSED, "of length 2"),
    "scl_slope NaN": Kind(lambda p, d, g: _slope(p, d, g, np.nan, np.nan), RIGHT),
    "scl_slope 1, scl_inter NaN": Kind(lambda p, d, g: _slope(p, d, g, 1.0, np.nan), REFUSED, "scl_inter nan"),
    "MGH with ras_good 0 (coronal, LIA, 1 mm, centred)": Kind(_without_directions, SAID, "ras_good is 0"),
    "neither qform nor sform": Kind(
        lambda p, d, g: nifti(p, d, g, q=0, s=0), REFUSED, "does not give the array's orientation"
    ),
    "identity affine": Kind(_identity, REFUSED, "does not give the array's orientation"),
    "NIfTI in two files (`.hdr`, `.img`)": Kind(_pair, RIGHT),
    "MetaImage with its voxels beside it (`.mhd`)": Kind(lambda p, d, g: _textual(p, d, g, ".mhd"), RIGHT),
    "NRRD with its voxels beside it (`.nhdr`)": Kind(lambda p, d, g: _textual(p, d, g, ".nhdr"), RIGHT),
    "Analyze 7.5 (`.hdr`, `.img`)": Kind(_analyze, REFUSED, "does not give the array's orientation"),
}
#: Where a file has as many voxels as the network grid, or as the warp that goes with it, a header that says nothing is
#: taken to mean that grid, which is said. A segmentation is refused: it may lie anywhere on its scan.
#: its axes are known and its place is not, so it cannot be laid onto a scan elsewhere
_CORONAL = "MGH with ras_good 0 (coronal, LIA, 1 mm, centred)"
_SAME_SHAPE = ("neither qform nor sform", "identity affine", "Analyze 7.5 (`.hdr`, `.img`)")


def expected(kind: str, entry: str) -> str:
    """The cell of the table."""
    if kind == _CORONAL and entry == "segmentation":
        return REFUSED
    if kind in _SAME_SHAPE and entry == "train":
        # Training takes arrays of the network's shape only.
        return SAID
    return KINDS[kind].outcome


def words(kind: str, entry: str) -> str:
    """What the message must say."""
    if kind in (*_SAME_SHAPE, _CORONAL) and entry == "segmentation":
        return "their relative position is unknown"
    return KINDS[kind].words


def table() -> str:
    """Markdown: kinds × entries."""
    rows = ["| header | " + " | ".join(f"`{entry}`" for entry in ENTRIES) + " |", "|---" * (len(ENTRIES) + 1) + "|"]
    rows += [f"| {kind} | " + " | ".join(expected(kind, entry) for entry in ENTRIES) + " |" for kind in KINDS]
    return "\n".join(rows)


def main() -> int:
    """Write the table into docs/geometry.md."""
    document = Path(__file__).resolve().parents[2] / "docs" / "geometry.md"
    before, rest = document.read_text(encoding="utf-8").split(BEGIN)
    document.write_text(before + BEGIN + "\n\n" + table() + "\n\n" + END + rest.split(END)[1], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
