# SPDX-License-Identifier: Apache-2.0
"""Affine files: ITK (.txt, .tfm, .mat, .h5), LTA (.lta), FSL (.mat) and a plain 4×4 in RAS (.txt); one reader, one writer.

The content determines the format; a plain 4×4 matrix is FSL's in a .mat and RAS in any other file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from vxm_convert.artifacts.files import write_bytes, write_sidecar, write_text
from vxm_convert.errors import FormatError, VolumeError
from vxm_convert.geometry.affines import MAX_ENTRY, Affine, from_fsl, from_lps
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.scans.raw_header import require_file
from vxm_convert.transforms import itk as itkaffine
from vxm_convert.transforms import lta
from vxm_convert.transforms.foreign import refuse_foreign
from vxm_convert.transforms.itk_composite import is_composite, read_composite

#: format → (mapping of the stored matrix, frame, suffixes for writing)
AFFINE_FORMATS: Dict[str, Any] = {
    "itk": ("fixed points to moving points", "LPS mm", (".txt", ".tfm", ".mat")),
    "lta": ("moving points (source) to fixed points (destination)", "RAS mm", (".lta",)),
    "fsl": ("moving points to fixed points", "FSL scaled voxels, mm", (".mat",)),
    "ras": ("fixed points to moving points", "RAS mm", (".txt",)),
}
_MAX_BYTES = 1 << 16
#: share of the fixed image that must lie in the moving one for a meaning of a matrix to count
_MEETS = 0.2


def read_affine(path: Path, fixed: Optional[Grid] = None, moving: Optional[Grid] = None) -> Affine:
    """Read an affine of any format.

    Parameters
    ----------
    fixed, moving : Grid — of the images: needed for FSL, checked against an LTA's own geometry.

    Raises
    ------
    VolumeError
        For an unknown or damaged file, missing grids, or geometry of other images.
    """
    path = Path(path)
    try:
        affine = _of_composite(path) if is_composite(path) else _parse(path, fixed, moving)
        affine.check_grids(fixed, moving, str(path))
    except FormatError as exc:
        raise VolumeError(f"{path}: {exc}") from exc
    except VolumeError as exc:
        raise exc if str(exc).startswith(str(path)) else VolumeError(f"{path}: {exc}") from exc
    return affine


def write_affine(
    path: Path,
    affine: Affine,
    format_name: str,
    fixed: Optional[Grid] = None,
    moving: Optional[Grid] = None,
    made_from: Optional[Dict[str, str]] = None,
    toolchain: Optional[Dict[str, Any]] = None,
    details: Optional[Dict[str, Any]] = None,
) -> None:
    """Write an affine and its side-car; lta and fsl need both grids (default: those of `affine`).

    Parameters
    ----------
    toolchain, details : of the side-car; default: no toolchain took part.
    """
    path = Path(path)
    if format_name not in AFFINE_FORMATS:
        raise VolumeError(f"affine format: got {format_name!r}, expected one of {', '.join(AFFINE_FORMATS)}")
    maps, frame, suffixes = AFFINE_FORMATS[format_name]
    if path.suffix.lower() not in suffixes:
        raise VolumeError(
            f"{path}: an affine in the format {format_name} is written to {' or '.join(suffixes)}; change the name"
        )
    fixed, moving = fixed or affine.fixed, moving or affine.moving
    if format_name == "itk" and path.suffix.lower() == ".mat":
        write_bytes(path, itkaffine.format_binary(affine.to_lps()))
    else:
        write_text(path, _text(path, affine, format_name, fixed, moving))
    grids = {key: grid.to_dict() for key, grid in (("fixed_grid", fixed), ("moving_grid", moving)) if grid is not None}
    entries = {"affine_format": format_name, "maps": maps, "frame": frame, "unit": "mm", **grids}
    write_sidecar(path, made_from or {}, toolchain or {"kind": "none"}, **{**(details or {}), **entries})


def _text(path: Path, affine: Affine, format_name: str, fixed: Optional[Grid], moving: Optional[Grid]) -> str:
    if format_name == "itk":
        return itkaffine.format_text(affine.to_lps())
    if format_name == "ras":
        return "# RAS mm, fixed points to moving points\n" + _rows(affine.pull)
    if fixed is None or moving is None:
        raise VolumeError(
            f"{path}: the format {format_name} contains both images' geometry; pass the fixed and the moving image"
        )
    return lta.format_text(affine, fixed, moving) if format_name == "lta" else _rows(affine.to_fsl(fixed, moving))


def is_affine_file(path: Path) -> bool:
    """Whether the suffix is that of an affine file."""
    return Path(path).suffix.lower() in {suffix for _, _, suffixes in AFFINE_FORMATS.values() for suffix in suffixes}


def _of_composite(path: Path) -> Affine:
    found = read_composite(path)
    if not isinstance(found, Affine):
        raise VolumeError("contains a displacement field, expected only matrices; 'om_runner apply' takes both")
    return found


def _parse(path: Path, fixed: Optional[Grid], moving: Optional[Grid]) -> Affine:
    data = _read_bytes(path)
    if b"\0" in data:
        return from_lps(itkaffine.parse_binary(data))
    try:
        text = data.decode("utf-8-sig").lstrip()
    except UnicodeDecodeError as exc:
        raise FormatError(f"neither text nor an ITK .mat ({exc.reason} at byte {exc.start})") from exc
    if text.startswith("(") and "(Transform " in text:
        raise FormatError(
            "parameters of elastix; make a displacement field of them with 'transformix -def all -tp FILE -out FOLDER'"
        )
    if text.startswith("#Insight"):
        return from_lps(itkaffine.parse_text(text))
    if "nxforms" in text:
        return lta.parse(text)
    matrix = _plain_matrix(text)
    as_fsl = path.suffix.lower() == ".mat"
    if as_fsl and (fixed is None or moving is None):
        raise FormatError("an FSL matrix has no meaning without both images; pass the fixed and the moving image")
    if fixed is None or moving is None:
        return Affine(matrix)
    return _by_landing(matrix, as_fsl, fixed, moving)


def _by_landing(matrix: np.ndarray, as_fsl: bool, fixed: Grid, moving: Grid) -> Affine:
    """A bare matrix as its name says; refused where only the other meaning brings the images together."""
    readings = {True: from_fsl(matrix, fixed, moving), False: Affine(matrix)}
    shares = {kind: _share_inside(affine, fixed, moving) for kind, affine in readings.items()}
    if shares[as_fsl] == 0 and shares[not as_fsl] > _MEETS:
        names = {True: "FSL's (moving to fixed, .mat)", False: "in RAS mm (fixed to moving, .txt)"}
        raise FormatError(
            f"read as a matrix {names[as_fsl]} the images do not meet, read as one {names[not as_fsl]} "
            f"{100 * shares[not as_fsl]:.0f} % of the fixed image does; rename it"
        )
    return readings[as_fsl]


def _share_inside(affine: Affine, fixed: Grid, moving: Grid) -> float:
    index = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 12) for n in fixed.shape), indexing="ij"), axis=-1)
    at = apply_affine(moving.inverse @ affine.pull @ fixed.affine, index)
    return float(moving.contains(at).mean())


def _plain_matrix(text: str) -> np.ndarray:
    try:
        rows = [
            [float(word) for word in line.split("#")[0].split()]
            for line in text.splitlines()
            if line.split("#")[0].strip()
        ]
    except ValueError as exc:
        raise FormatError(f"not an ITK transform, LTA or 4x4 matrix of numbers ({exc})") from exc
    if len(rows) != 4 or any(len(row) != 4 for row in rows):
        raise FormatError(f"not an ITK transform, LTA or 4x4 matrix of numbers ({len(rows)} lines{_rows_of(rows)})")
    matrix = np.array(rows)
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > MAX_ENTRY:
        raise FormatError(f"{matrix.tolist()}, expected finite numbers of at most {MAX_ENTRY:g}; copy the file again")
    return matrix


def _rows_of(rows: List[List[float]]) -> str:
    """What rows of numbers look like that are no 4×4 matrix."""
    widths = {len(row) for row in rows}
    if widths == {4} and len(rows) > 4 and len(rows) % 4 == 0:
        return f": {len(rows) // 4} matrices, a series over time, one per volume? Keep the one that is meant"
    if widths == {12}:
        return ": AFNI matrices, one per volume; convert one with 'cat_matvec -ONELINE' or nitransforms"
    if widths == {6}:
        return ": six motion parameters per volume, as SPM and FSL write them, and no registration"
    return ""


def _rows(matrix: np.ndarray) -> str:
    return "".join("  ".join(repr(float(v)) for v in row) + "\n" for row in matrix)


def _read_bytes(path: Path) -> bytes:
    refuse_foreign(path)
    require_file(path, "an affine")
    if not 0 < path.stat().st_size <= _MAX_BYTES:
        raise VolumeError(f"{path}: {path.stat().st_size} bytes, expected an affine of 1 to {_MAX_BYTES} bytes")
    try:
        return path.read_bytes()
    except OSError as exc:
        raise VolumeError(f"{path}: cannot be read ({exc.strerror})") from exc
