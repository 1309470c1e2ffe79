# SPDX-License-Identifier: Apache-2.0
"""The table of warp formats and the rule that tells them apart by their headers; what each file means, in the words its
side-car uses.

Headers name more than the formats that are written: positions of SPM and NiftyReg are read, velocities and spline
coefficients are refused by name. Whether the numbers are what the header says is `landing`'s subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from vxm_convert.errors import VolumeError
from vxm_convert.transforms.foreign import refuse_unread
from vxm_convert.transforms.freesurfer import EXTENSION_CODE, INTENT_DISPLACEMENT
from vxm_convert.transforms.nifti_field import FieldHeader

INTENT_VECTOR = 1007
INTENT_FNIRT = 2006
_SPM_NAME = "mapping"
_NIFTYREG_NAME = "nreg_trans"
#: intent_p1 of a NiftyReg field: positions, displacements; its other kinds are refused
_NIFTYREG_KINDS = {0: "niftyreg", 1: "niftyreg-disp"}
_AFNI_EXTENSION = 4
_IDENTITY_TRAP = (
    "ANTs would treat this as the identity and ITK would refuse it: a displacement field for them is 5-D (X, Y, Z, "
    "1, 3) with intent 1007"
)


@dataclass(frozen=True)
class WarpFormat:
    """One layout on disk.

    Parameters
    ----------
    name : str — value of ``--warp-format``.
    ndim, intent : int — of the NIfTI header that is written.
    frame : str — of the components: a frame of `Grid.frame_matrix`; ``voxel`` for index differences.
    unit, axes, readable_by : str — for side-cars and help.
    suffixes : tuple of str — of its files.
    absolute : bool — the numbers are positions in the moving image's frame, not displacements.
    """

    name: str
    ndim: int
    intent: int
    frame: str
    unit: str
    axes: str
    readable_by: Tuple[str, ...]
    suffixes: Tuple[str, ...] = (".nii.gz", ".nii")
    absolute: bool = False


FORMATS: Dict[str, WarpFormat] = {
    f.name: f
    for f in (
        WarpFormat(
            "itk",
            5,
            INTENT_VECTOR,
            "lps",
            "mm",
            "components along L, P, S",
            ("ITK", "SimpleITK", "ANTs", "3D Slicer", "nitransforms"),
        ),
        WarpFormat(
            "fsl",
            4,
            INTENT_FNIRT,
            "fsl",
            "mm",
            "difference of FSL's scaled-voxel coordinates of the moving and the fixed image (relative)",
            ("FSL applywarp, convertwarp", "fslpy"),
        ),
        WarpFormat(
            "freesurfer",
            5,
            INTENT_DISPLACEMENT,
            "ras",
            "mm",
            "components along R, A, S",
            ("FreeSurfer mri_convert -at", "surfa"),
        ),
        WarpFormat(
            "l2r",
            4,
            0,
            "voxel",
            "voxel",
            "moving index minus fixed index, along the array axes",
            ("Learn2Reg evaluation",),
            (".nii.gz", ".nii", ".npz"),
        ),
        WarpFormat(
            "vxm", 4, 0, "voxel", "voxel", "moving index minus fixed index, along the array axes", ("VoxelMorph",)
        ),
    )
}

_POSITIONS = "positions in the moving image along R, A, S"
#: formats that are read but not written; NiftyReg's headers say which of its two kinds a file is
_READ_ONLY = (
    WarpFormat("spm", 5, INTENT_VECTOR, "ras", "mm", _POSITIONS, ("SPM (y_ and iy_)",), absolute=True),
    WarpFormat("niftyreg", 5, INTENT_VECTOR, "ras", "mm", _POSITIONS, ("NiftyReg -def",), absolute=True),
)
_NIFTYREG_DISPLACEMENT = WarpFormat(
    "niftyreg-disp", 5, INTENT_VECTOR, "ras", "mm", "components along R, A, S", ("NiftyReg -disp",)
)
READABLE: Dict[str, WarpFormat] = {**FORMATS, **{f.name: f for f in _READ_ONLY}}


def warp_format(name: str) -> WarpFormat:
    """A format that is written, by name; VolumeError for an unknown one."""
    if name not in FORMATS:
        raise VolumeError(f"warp format: got {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def describe(form: WarpFormat) -> Dict[str, Any]:
    """The meaning of the file for its side-car."""
    return {
        "warp_format": form.name,
        "layout": f"{form.ndim}-D, intent {form.intent}",
        "unit": form.unit,
        "frame": form.axes,
        "maps": "fixed points to moving points; resamples the moving image onto the fixed grid",
        "direction": "pull: the value at a fixed voxel is read from the moving image at the displaced point",
        "readable_by": list(form.readable_by),
    }


def recognise(header: FieldHeader, wanted: Optional[str], hint: Optional[str]) -> WarpFormat:
    """The format of an opened file.

    Parameters
    ----------
    wanted : str — the user's choice, or None.
    hint : str — format in the side-car, or None; decides only if the header allows several (l2r, vxm).

    Raises
    ------
    VolumeError
        If the header contradicts `wanted`, or neither it nor anything else determines the format.
    """
    found = _by_header(header)
    if wanted is None:
        hinted = hint if hint in ("l2r", "vxm") and header.ndim == 4 and header.intent == 0 else None
        form = found or (FORMATS[hinted] if hinted else None)
        if form is None:
            raise VolumeError(
                _explain(
                    header,
                    "its header does not define the meaning of the numbers",
                    _other_tool(header)
                    or "name the format with --from: l2r or vxm for voxels, spm for positions in mm",
                )
            )
        return form
    return _wanted(header, wanted, found)


def _wanted(header: FieldHeader, wanted: str, found: Optional[WarpFormat]) -> WarpFormat:
    """The format that the user names, unless the header contradicts it."""
    if wanted not in READABLE:
        raise VolumeError(f"warp format: got {wanted!r}, expected one of {', '.join(READABLE)}")
    form = READABLE[wanted]
    if form.frame == "voxel" and found is None and header.ndim == 4:
        return form
    # Other tools copy SPM's and MRtrix's positions without their name.
    if wanted == "spm" and (found is None or found.name in ("spm", "itk", "freesurfer")) and not header.intent_name:
        return form
    if found is None or found.name.split("-")[0] != wanted:
        raise VolumeError(
            _explain(
                header,
                f"expected {form.ndim}-D with intent {form.intent} for {wanted}",
                _advice(found.name if found else None),
            )
        )
    return found


def _by_header(header: FieldHeader) -> Optional[WarpFormat]:
    refuse_unread(header.path, header.intent, header.intent_name, header.description, header.intent_p1)
    if header.intent_name == _SPM_NAME:
        return READABLE["spm"]
    if header.intent_name == _NIFTYREG_NAME:
        return READABLE["niftyreg"] if _NIFTYREG_KINDS[int(header.intent_p1)] == "niftyreg" else _NIFTYREG_DISPLACEMENT
    extension = any(int(e.get_code()) == EXTENSION_CODE for e in header.said.extensions)
    if header.intent == INTENT_DISPLACEMENT or (extension and header.intent == INTENT_VECTOR and header.ndim == 4):
        return FORMATS["freesurfer"]
    if header.intent == INTENT_FNIRT and header.ndim == 4:
        return FORMATS["fsl"]
    return FORMATS["itk"] if header.intent == INTENT_VECTOR and header.ndim == 5 else None


def _other_tool(header: FieldHeader) -> Optional[str]:
    if any(int(e.get_code()) == _AFNI_EXTENSION for e in header.said.extensions):
        return "AFNI wrote it (extension 4): set intent 1007 if it holds displacements in mm along L, P, S (3dNwarp)"
    return None


def _advice(found: Optional[str]) -> str:
    return (
        f"its header is that of {found}"
        if found
        else "convert it with the tool that made it, or pass l2r or vxm if it contains voxels"
    )


def _explain(header: FieldHeader, why: str, advice: str) -> str:
    shape = "x".join(str(n) for n in header.shape)
    trap = (
        f" {_IDENTITY_TRAP};"
        if header.intent in (0, INTENT_VECTOR) and (header.ndim, header.intent) != (5, INTENT_VECTOR)
        else ""
    )
    return f"{header.path}: {header.ndim}-D ({shape}), intent {header.intent}: {why}.{trap} {advice}"
