# SPDX-License-Identifier: Apache-2.0
"""Transforms of other tools that are not read here, told by their names, and the command that makes a readable file of
each.
"""

from __future__ import annotations

from pathlib import Path

from vxm_convert.errors import VolumeError

_FOREIGN = (
    (
        (".m3z", ".m3d", ".mgz", ".mgh"),
        "a warp of FreeSurfer's own kind; make a NIfTI of it with 'mri_warp_convert --inm3z FILE --outras warp.nii.gz'",
    ),
    (
        (".xfm",),
        "a MINC transform; make an LTA of it with 'lta_convert --inmni FILE --src MOVING --trg FIXED --outlta "
        "FILE.lta'",
    ),
    ((".x5",), "an X5 transform; write it in ITK's layout with nitransforms"),
)


def refuse_foreign(path: Path) -> None:
    """Raise VolumeError for a transform that is known but not read here."""
    name = Path(path).name.lower()
    for endings, advice in _FOREIGN:
        if name.endswith(endings):
            raise VolumeError(f"{path}: not read here, this is {advice}")
