# SPDX-License-Identifier: Apache-2.0
"""Transforms of other tools that are not read here, told by their names or their headers, and the command that makes a
readable file of each.

Codes and names: FSL's ``newimage.h`` (FSL_* intents), NiftyReg's ``NREG_TRANS_TYPE``, SPM's ``intent.name`` and
``descrip``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

from vxm_convert.errors import VolumeError

_FOREIGN = (
    (
        (".m3z", ".m3d", ".mgz", ".mgh"),
        "a FreeSurfer warp; convert it to NIfTI with 'mri_warp_convert --inm3z FILE --outras warp.nii.gz'",
    ),
    (
        (".xfm",),
        "a MINC transform; convert it to an LTA with 'lta_convert --inmni FILE --src MOVING --trg FIXED --outlta "
        "FILE.lta'",
    ),
    ((".x5",), "an X5 transform; write it in ITK's layout with nitransforms"),
)


_BY_INTENT = {
    **{
        code: "spline coefficients of fnirt, not a field; make one with 'fnirtfileutils --in=coefficients --ref=fixed "
        "--out=field'"
        for code in (2007, 2008, 2009)
    },
    **{
        code: "a field of topup, which corrects a distortion and registers nothing; use applytopup"
        for code in (2016, 2017, 2018)
    },
}
_REG_TRANSFORM = "make a deformation with 'reg_transform -ref FIXED -def FILE field.nii.gz'"
#: NiftyReg's intent_p1
_NIFTYREG: Dict[float, str] = {
    2: f"a grid of cubic B-spline control points of NiftyReg; {_REG_TRANSFORM}",
    3: f"a velocity field of NiftyReg; {_REG_TRANSFORM}",
    4: f"a velocity field of NiftyReg; {_REG_TRANSFORM}",
    5: f"a grid of velocity control points of NiftyReg; {_REG_TRANSFORM}",
    6: f"a grid of linear control points of NiftyReg; {_REG_TRANSFORM}",
}
_VELOCITY = (
    "a velocity field, which must be integrated before it moves anything; export the deformation with the tool that made "
    "it (SPM: the Deformations utility writes a y_ file)"
)


def refuse_foreign(path: Path) -> None:
    """Raise VolumeError for a known transform that is not supported."""
    name = Path(path).name.lower()
    for endings, advice in _FOREIGN:
        if name.endswith(endings):
            raise VolumeError(f"{path}: not supported, this is {advice}")


def refuse_unread(path: Path, intent: int, intent_name: str, description: str, intent_p1: float) -> None:
    """Raise VolumeError for a vector file that is no deformation: velocities, spline coefficients, control points.

    Parameters
    ----------
    intent, intent_name, description, intent_p1 — of its NIfTI header; texts in lower case.
    """
    what = _BY_INTENT.get(intent)
    if intent_name == "nreg_trans" and intent_p1 not in (0, 1):
        what = _NIFTYREG.get(
            intent_p1, f"a NiftyReg file of unknown kind (intent_p1 {intent_p1:g}, expected 0 or 1); {_REG_TRANSFORM}"
        )
    said = f"{intent_name} {description}"
    if "velocity" in said or "flow field" in said:
        what = _VELOCITY
    if what is not None:
        named = f" ({intent_name or description})" if intent_name or description else ""
        raise VolumeError(f"{path}: intent {intent}{named}: {what}")
