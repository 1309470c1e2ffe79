# SPDX-License-Identifier: Apache-2.0
"""The table of warp formats and the rule that tells them apart; what each file means, in the words its side-car
uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from vxm_convert.errors import VolumeError
from vxm_convert.transforms.freesurfer import EXTENSION_CODE, INTENT_DISPLACEMENT
from vxm_convert.transforms.nifti_field import FieldHeader

INTENT_VECTOR = 1007
INTENT_FNIRT = 2006
_FNIRT_COEFFICIENTS = (2007, 2008, 2009)
_IDENTITY_TRAP = (
    "ANTs would take this for the identity and ITK would refuse it: a displacement field for them is 5-D "
    "(X, Y, Z, 1, 3) with intent 1007"
)


@dataclass(frozen=True)
class WarpFormat:
    """One layout on disk.

    Parameters
    ----------
    name : str — as ``--warp-format`` takes it.
    ndim, intent : int — of the NIfTI header that is written.
    frame : str — of the components: a frame of `Grid.frame_matrix`; ``voxel`` for index differences.
    unit, axes, readable_by : str — for side-cars and help.
    suffixes : tuple of str — of the files it may be written to.
    """

    name: str
    ndim: int
    intent: int
    frame: str
    unit: str
    axes: str
    readable_by: Tuple[str, ...]
    suffixes: Tuple[str, ...] = (".nii.gz", ".nii")


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


def warp_format(name: str) -> WarpFormat:
    """A format by name; VolumeError for an unknown one."""
    if name not in FORMATS:
        raise VolumeError(f"warp format: got {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def describe(form: WarpFormat) -> Dict[str, Any]:
    """What a reader of the file must know, as its side-car says it."""
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
    wanted : str — what the user says it is, or None.
    hint : str — what the side-car says, or None; decides only where the header leaves a choice (l2r, vxm).

    Raises
    ------
    VolumeError
        When the header contradicts `wanted`, or says nothing and nobody else does.
    """
    found = _by_header(header)
    if wanted is None:
        name = found or (hint if hint in ("l2r", "vxm") and header.ndim == 4 and header.intent == 0 else None)
        if name is None:
            raise VolumeError(
                _explain(
                    header, "its header does not say what the numbers mean", "name the format: l2r or vxm for voxels"
                )
            )
        return FORMATS[name]
    form = warp_format(wanted)
    if form.frame == "voxel" and found is None and header.ndim == 4:
        return form
    if found != wanted:
        raise VolumeError(
            _explain(header, f"expected {form.ndim}-D with intent {form.intent} for {wanted}", _advice(found))
        )
    return form


def _by_header(header: FieldHeader) -> Optional[str]:
    if header.intent in _FNIRT_COEFFICIENTS:
        raise VolumeError(
            f"{header.path}: intent {header.intent}, spline coefficients of fnirt and no field; make one with "
            "'fnirtfileutils --in=coefficients --ref=fixed --out=field'"
        )
    extension = any(int(e.get_code()) == EXTENSION_CODE for e in header.said.extensions)
    if header.intent == INTENT_DISPLACEMENT or (extension and header.intent == INTENT_VECTOR and header.ndim == 4):
        return "freesurfer"
    if header.intent == INTENT_FNIRT and header.ndim == 4:
        return "fsl"
    return "itk" if header.intent == INTENT_VECTOR and header.ndim == 5 else None


def _advice(found: Optional[str]) -> str:
    return (
        f"its header is that of {found}"
        if found
        else "convert it with the tool that made it, or name l2r or vxm if it holds voxels"
    )


def _explain(header: FieldHeader, why: str, advice: str) -> str:
    shape = "x".join(str(n) for n in header.shape)
    trap = (
        f" {_IDENTITY_TRAP};"
        if header.intent in (0, INTENT_VECTOR) and (header.ndim, header.intent) != (5, INTENT_VECTOR)
        else ""
    )
    return f"{header.path}: {header.ndim}-D ({shape}), intent {header.intent}: {why}.{trap} {advice}"
