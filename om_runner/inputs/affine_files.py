# SPDX-License-Identifier: Apache-2.0
"""Affines from files: one for all scans, one per subject, or those that an earlier run left in its folder; and whether a
file that a run wrote belongs to the scan and the fixed image that it is used for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from om_runner.inputs.scans import Scan
from om_runner.names import AFFINE_NAME, FIXED_ROLES
from vxm_convert.artifacts.files import read_json, sha256_of, sidecar_path
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.raw_header import require_file
from vxm_convert.transforms.affines import read_affine

SUBJECT_FIELD = "{subject}"
AUTO_AFFINE, NO_AFFINE = "auto", "none"
#: what the search said of its result, in the side-car of the affine
_OF_SEARCH = ("affine_metric", "affine_metric_value", "affine_overlap_dice", "affine_tool", "affine_searched_on")


def is_choice(text: str) -> bool:
    """Whether a text is a value of ``--affine``: a word, a name with ``{subject}`` in it, or what is there."""
    # An empty text, as of a variable that is not set, would be the current folder.
    return text in (AUTO_AFFINE, NO_AFFINE) or SUBJECT_FIELD in text or (bool(text) and os.path.exists(text))


def affine_file(choice: str, subject: str) -> Optional[Path]:
    """The file of a subject's affine, which may not be there; None if none is read.

    Parameters
    ----------
    choice : str — ``none``, ``auto``, a file, in whose name ``{subject}`` is replaced, or the output folder of a run.
    """
    if choice in (NO_AFFINE, AUTO_AFFINE):
        return None
    path = Path(choice.replace(SUBJECT_FIELD, subject))
    if not path.is_dir():
        return path
    plain = path / subject / AFFINE_NAME
    if plain.is_file():
        return plain
    # A BIDS derivative has it among its records: sub-01[/ses-1]/provenance/sub-01_ses-1_affine.txt
    found = sorted(path.glob(f"{subject.partition('_')[0]}/**/provenance/{subject}_{AFFINE_NAME}"))
    return found[0] if found else plain


def affine_from(choice: str, scan: Scan, fixed: Tuple[Grid, str], moving: Grid) -> Tuple[Affine, Dict[str, Any]]:
    """The affine of a scan from its file, and where it came from, for side-cars.

    Parameters
    ----------
    fixed : grid and sha256 of the fixed image.
    moving : Grid — of the scan, as it is read now.

    Raises
    ------
    VolumeError
        For a file that is missing or damaged, and for one that a run wrote for another scan or fixed image, or with
        other axes.
    """
    path = affine_file(choice, scan.subject)
    if path is None:
        raise RuntimeError(f"{choice}: names no file")
    if Path(choice).is_dir() and not path.is_file():
        raise VolumeError(
            f"{scan.path}: there is no affine of {scan.subject} in {choice} (looked for {path}); register it once with "
            f"--affine {AUTO_AFFINE}, or name its file with --affine FILE"
        )
    require_file(path, "an affine")
    digest = sha256_of(path)
    noted = _noted(path)
    if noted is not None:
        reason = _foreign(noted, digest, scan, fixed, moving)
        if reason is not None:
            raise VolumeError(
                f"{path}: {reason}; search this one with --affine {AUTO_AFFINE}, or remove {sidecar_path(path).name} if the "
                "matrix is right all the same"
            )
    said = (noted or {}).get("placement")
    how = {name: said[name] for name in _OF_SEARCH if name in said} if isinstance(said, dict) else {}
    return read_affine(path, fixed[0], moving), {"affine": path.name, "affine_sha256": digest, **how}


def _noted(path: Path) -> Optional[Dict[str, Any]]:
    """The side-car of a file that a run wrote; None for any other file."""
    side = sidecar_path(path)
    if not side.is_file():
        return None
    found = read_json(side)
    known = isinstance(found, dict) and "affine_format" in found and isinstance(found.get("made_from"), dict)
    return found if known else None


def _foreign(noted: Dict[str, Any], digest: str, scan: Scan, fixed: Tuple[Grid, str], moving: Grid) -> Optional[str]:
    """Why a file does not belong to a scan and its fixed image."""
    if noted.get("sha256") != digest:
        return "was changed after a run wrote it"
    sources = noted["made_from"]
    for role, what, wanted in (
        ("moving", f"the scan {scan.path.name}", scan.file.sha256),
        (FIXED_ROLES[0], "the fixed image", fixed[1]),
    ):
        was = sources.get(role)
        if was is not None and was != wanted:
            return f"was made for another image than {what} (sha256 {str(was)[:12]}, {what} has {wanted[:12]})"
    for entry, what, grid in (("moving_grid", "scan", moving), ("fixed_grid", "fixed image", fixed[0])):
        if entry in noted and noted[entry] != grid.to_dict():
            return f"was made when the {what} was read with other axes (--orientation)"
    return None
