# SPDX-License-Identifier: Apache-2.0
"""Warps on disk: one reader and one writer for the formats of `formats`, each file with a side-car that states its
mapping.

ITK's and FreeSurfer's files hold a displacement in space, so any moving grid can be attached when they are read. FSL's,
Learn2Reg's and VoxelMorph's hold coordinates of the moving image, whose grid must be known: given, or from the side-car
of our own files.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from vxm_convert.artifacts.files import atomic_path, sha256_of, sidecar_path, write_sidecar
from vxm_convert.ascend.limits import HALF_MAX
from vxm_convert.errors import ChecksumError, FormatError, VolumeError
from vxm_convert.geometry.fields import Warp, check_finite, frame_planes, index_block, slabs, to_frame, warp_from_frame
from vxm_convert.geometry.grids import Grid, apply_affine, same_place
from vxm_convert.scans.nifti import DEFAULT_LEVEL, Made, write_nifti
from vxm_convert.transforms import freesurfer
from vxm_convert.transforms.formats import FORMATS, WarpFormat, describe, recognise, warp_format
from vxm_convert.transforms.itk_composite import is_composite, read_composite
from vxm_convert.transforms.landing import check_folds, check_reading
from vxm_convert.transforms.nifti_field import Field, open_field, read_field
from vxm_convert.transforms.npz_field import halved, read_npz_field

LOG = logging.getLogger(__name__)

_MAX_SIDECAR_BYTES = 1 << 20


def write_warp(
    path: Path,
    warp: Warp,
    format_name: str = "itk",
    made_from: Optional[Dict[str, str]] = None,
    toolchain: Optional[Dict[str, Any]] = None,
    dtype: str = "float32",
    level: int = DEFAULT_LEVEL,
    **details: object,
) -> None:
    """Write a warp and its side-car.

    Displacements refer to the grid that readers get from the file's float32 header, so that header rounding cancels; if
    both images have the same grid it cancels anyway.

    Parameters
    ----------
    path : Path — ``.nii.gz`` or ``.nii``; for l2r also ``.npz``.
    format_name : str — a name of `FORMATS`.
    made_from, toolchain — arguments of `vxm_convert.artifacts.files.write_sidecar`.
    dtype : str — ``float32``, or ``float16`` for l2r's .npz (a displacement of 8 voxels then has steps of 0.008).
    level : int — of compression, of a ``.nii.gz``.

    Raises
    ------
    VolumeError
        For NaN, a suffix or dtype that the format does not have, or a sheared grid that readers refuse.
    """
    form, path = warp_format(format_name), Path(path)
    suffix = check_target(path, form, dtype)
    check_finite(warp.u, str(path))
    check_right_angles(path, form.name, warp.fixed)
    one_grid = same_place(warp.moving, warp.fixed)
    fixed = warp.fixed if suffix == ".npz" or one_grid else warp.fixed.as_stored()
    meant = replace(warp, moving=fixed) if one_grid else warp
    if suffix == ".npz":
        with atomic_path(path) as temporary, open(str(temporary), "wb") as handle:
            np.savez_compressed(handle, _stored_field(meant, fixed, form, dtype, path))
    else:
        made = _made_field(meant, fixed, form, path)
        data = _shaped(_stored_field(meant, fixed, form, dtype, path), form) if made is None else made
        freesurfer_part = form.name == "freesurfer"
        write_nifti(
            path,
            data,
            warp.fixed.affine,
            np.float32,
            intent=form.intent,
            # Readers ignore it; it keeps the bytes of a registration's flow unchanged.
            intent_name="displacement" if form.name == "itk" and one_grid else "",
            time_unit="sec" if freesurfer_part else None,
            level=level,
            extensions=[(freesurfer.EXTENSION_CODE, freesurfer.encode(warp.moving, warp.fixed))]
            if freesurfer_part
            else (),
        )
    grids = {"fixed_grid": fixed.to_dict(), "moving_grid": warp.moving.to_dict()}
    write_sidecar(
        path, made_from or {}, toolchain or {"kind": "none"}, **{**describe(form), **grids, "dtype": dtype, **details}
    )


def read_warp(
    path: Path, format_name: Optional[str] = None, moving: Optional[Grid] = None, fixed: Optional[Grid] = None
) -> Warp:
    """Read a warp of any format.

    Parameters
    ----------
    format_name : str — what the file is, a name of `READABLE`; default: recognised from header and side-car.
    moving : Grid — of the moving image; default: the side-car's, FreeSurfer's source geometry, else the fixed grid.
    fixed : Grid — needed for an .npz without side-car; for NIfTI it must agree with the header.

    Returns
    -------
    Warp — float64.

    Raises
    ------
    VolumeError
        For hostile or damaged files, another format than `format_name`, NaN, a grid that is needed and unknown, and
        numbers that are not what the format says, or no registration (`landing`).
    """
    path = Path(path)
    if is_composite(path):
        return _of_composite(path, format_name, fixed, moving)
    noted = _read_sidecar(path)
    if path.name.lower().endswith(".npz"):
        field, form = read_npz_field(path, format_name, fixed or noted.get("fixed_grid")), FORMATS["l2r"]
    else:
        header = open_field(path)
        form = recognise(header, format_name, noted.get("warp_format"))
        field = _placed(path, read_field(header), fixed)
    if format_name is None and noted.get("warp_format") is None:
        LOG.info("%s: %s", path, _recognised(form))
    _check_numbers(path, field)
    if fixed is not None and not same_place(fixed, field.grid, 0.1):
        raise VolumeError(
            f"{path}: is on {field.grid.describe()}, the fixed image on {fixed.describe()}; this warp belongs to "
            f"another image{halved(field.grid, fixed)}"
        )
    source = _source_grid(path, field, form)
    moving = moving or noted.get("moving_grid") or source
    if moving is None and form.name == "fsl":
        raise VolumeError(
            f"{path}: an FSL warp is in the moving image's voxel coordinates; pass the moving image it was made for"
        )
    moving = moving or field.grid
    check_reading(path, field.data, form, field.grid, moving)
    warp = _warp(field, form, moving)
    check_folds(path, warp)
    return warp


def _recognised(form: WarpFormat) -> str:
    """What is assumed of a file that only its own header describes: small displacements land in both images either way."""
    frame = "voxels" if form.frame == "voxel" else f"mm along {form.frame.upper()} axes"
    what = "positions" if form.absolute else "displacements"
    return f"read as {form.name} by its header alone, {what} in {frame}; name the tool with --from if it is another's"


def _warp(field: Field, form: WarpFormat, moving: Grid) -> Warp:
    if form.frame == "voxel":
        return Warp(field.data.astype(np.float64), field.grid, moving)
    if not form.absolute:
        return warp_from_frame(field.data, form.frame, field.grid, moving)
    back, u = np.linalg.inv(moving.frame_matrix(form.frame)), np.empty(field.data.shape)
    for part in slabs(u.shape[0]):
        u[part] = apply_affine(back, field.data[part]) - index_block(field.grid.shape, part)
    return Warp(u, field.grid, moving)


def _placed(path: Path, field: Field, fixed: Optional[Grid]) -> Field:
    """A field without qform and sform lies where the fixed image does."""
    if field.placed:
        return field
    if fixed is None or fixed.shape != field.grid.shape:
        raise VolumeError(
            f"{path}: its header has neither qform nor sform, and tools place it differently; name the fixed image it was "
            "made for (--fixed), of the same shape"
        )
    return replace(field, grid=fixed)


def _check_numbers(path: Path, field: Field) -> None:
    try:
        check_finite(field.data, str(path))
    except VolumeError as exc:
        some = bool(np.isfinite(field.data).any())
        why = (
            "; MRtrix and SPM mark voxels that map nowhere with NaN: fill them before, or crop the field"
            if some
            else ""
        )
        raise VolumeError(f"{exc}{why}") from exc


def _stored_field(warp: Warp, fixed: Grid, form: WarpFormat, dtype: str, path: Path) -> np.ndarray:
    if form.frame == "voxel":
        with np.errstate(over="ignore"):
            data = warp.u.astype(dtype, copy=False)
    else:
        data = to_frame(
            warp.u, fixed.frame_matrix(form.frame), warp.moving.frame_matrix(form.frame), np.dtype(dtype).type
        )
    largest = max(float(np.abs(data[part]).max()) for part in slabs(data.shape[0]))
    if not np.isfinite(largest):
        raise _too_long(path, dtype)
    return data


def _made_field(warp: Warp, fixed: Grid, form: WarpFormat, path: Path) -> Optional[Made]:
    """`_stored_field` as it is written, without a second copy of the field; None where only the whole can be computed."""
    matrices = fixed.frame_matrix(form.frame), warp.moving.frame_matrix(form.frame)
    found = None if form.frame == "voxel" else frame_planes(warp.u, *matrices)
    if found is None:
        return None
    planes = found

    def checked(index: Tuple[int, ...], part: slice) -> np.ndarray:
        block = planes(index[0], part)
        if not np.isfinite(block).all():
            raise _too_long(path, "float32")
        return block

    return Made(_shaped(warp.u, form).shape, np.dtype(np.float32), checked)


def _shaped(field: np.ndarray, form: WarpFormat) -> np.ndarray:
    """With the axis of length 1 that some formats have before the components."""
    return field[:, :, :, np.newaxis, :] if form.ndim == 5 else field


def _too_long(path: Path, dtype: str) -> VolumeError:
    return VolumeError(f"{path}: displacements beyond {HALF_MAX:g} do not fit {dtype}; write float32")


def check_right_angles(path: Path, format_name: str, fixed: Grid) -> None:
    """Refuse a fixed grid that readers of a format do not take; raises VolumeError for a sheared one."""
    if format_name in ("itk", "freesurfer") and fixed.sheared:
        raise VolumeError(
            f"{path}: the fixed grid is sheared (axes up to {fixed.shear:.2g} off a right angle), "
            "ITK and FreeSurfer read only right-angled grids; resample onto such a grid, or write fsl or vxm"
        )


def check_target(path: Path, form: WarpFormat, dtype: str = "float32") -> str:
    """The suffix of an output file for a warp; VolumeError for a name or dtype that the format does not have."""
    suffix = next((s for s in form.suffixes if path.name.lower().endswith(s) and len(path.name) > len(s)), None)
    if suffix is None:
        raise VolumeError(
            f"{path}: a warp in the format {form.name} is written to {' or '.join(form.suffixes)}; change the name"
        )
    if dtype not in ("float32", "float16") or (dtype == "float16" and suffix != ".npz"):
        raise VolumeError(f"{path}: dtype {dtype}, expected float32 (NIfTI has no float16; l2r in .npz takes it)")
    return suffix


def _of_composite(path: Path, format_name: Optional[str], fixed: Optional[Grid], moving: Optional[Grid]) -> Warp:
    if format_name not in (None, "itk"):
        raise VolumeError(f"{path}: an .h5 is an ITK transform, not {format_name}")
    found = read_composite(path, fixed, moving)
    if not isinstance(found, Warp):
        raise VolumeError(f"{path}: contains only matrices, expected a displacement field too")
    return found


def _source_grid(path: Path, field: Field, form: WarpFormat) -> Optional[Grid]:
    """FreeSurfer's source geometry, after a check of its field kind."""
    content = next((data for code, data in field.extensions if code == freesurfer.EXTENSION_CODE), None)
    if form.name != "freesurfer" or content is None:
        return None
    try:
        geometry = freesurfer.decode(content)
    except FormatError as exc:
        raise VolumeError(f"{path}: {exc}") from exc
    if geometry.kind != "disp_ras":
        raise VolumeError(
            f"{path}: a FreeSurfer field of kind {geometry.kind}, expected disp_ras; convert it with mri_warp_convert "
            "--outras"
        )
    return geometry.source


def _read_sidecar(path: Path) -> Dict[str, Any]:
    """Format and grids in our side-car; empty if there is none or it belongs to other bytes."""
    side = sidecar_path(path)
    if not side.is_file() or not path.is_file() or side.stat().st_size > _MAX_SIDECAR_BYTES:
        return {}
    try:
        entries = json.loads(side.read_text(encoding="utf-8"))
        if not isinstance(entries, dict) or "warp_format" not in entries or entries.get("sha256") != sha256_of(path):
            return {}
        grids = {key: _grid(entries[key]) for key in ("fixed_grid", "moving_grid") if key in entries}
        return {"warp_format": entries["warp_format"], **grids}
    except (OSError, ValueError, KeyError, TypeError, VolumeError, ChecksumError, RecursionError) as exc:
        LOG.warning("%s: side-car ignored (%s)", side, exc)
        return {}


def _grid(entry: Mapping[str, Any]) -> Grid:
    x, y, z = entry["shape"]
    return Grid((x, y, z), entry["affine"])
