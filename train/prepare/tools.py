# SPDX-License-Identifier: Apache-2.0
"""Which program finds the linear transform, and its result in one form. Both see the scan as it is, and the reference
on the network grid.

Carrying images and labels through the transform is ours in either case, one interpolation straight onto the network
grid, so that two tools differ in the matrix alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from train.prepare import freesurfer
from train.prepare.loaded import Loaded
from train.prepare.reference import Reference
from vxm_convert.affine import simpleitk
from vxm_convert.affine.affine_search import Target, judge_affine, search_affine
from vxm_convert.errors import ToolchainError, VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.compiled import compiled_for, numba_version
from vxm_convert.scans.header import volume_suffix
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.transforms.affines import read_affine

LOG = logging.getLogger(__name__)

FREESURFER, COMPILED, SIMPLEITK = "freesurfer", "compiled", "simpleitk"
_ASKED_BY = "linear registration"
#: what mri_robust_register reads
_READABLE = (".mgz", ".nii", ".nii.gz", ".mgh")


@dataclass(frozen=True)
class Tool:
    """`name`: freesurfer, compiled or simpleitk; `program`: FreeSurfer's, else None."""

    name: str
    version: str
    program: Optional[Path] = None

    def describe(self) -> str:
        """For logs and pages."""
        if self.program:
            return f"{freesurfer.PROGRAM} ({self.version})"
        return f"compiled loops, numba {self.version}" if self.name == COMPILED else f"SimpleITK {self.version}"


@dataclass(frozen=True)
class Found:
    """The transform, the overlap (Dice) of the brains under it, and how it was found."""

    affine: Affine
    overlap: float
    how: Dict[str, Any]


def choose_tool(choice: str, shape: Tuple[int, int, int]) -> Tool:
    """The tool of ``--tool`` for a network grid of this shape; ``auto`` takes FreeSurfer where it is usable, else compiled
    loops where there are any.

    Raises
    ------
    ToolchainError
        What was asked for is not there or not usable.
    """
    program = freesurfer.find_program() if choice in ("auto", FREESURFER) else None
    problem = freesurfer.environment_problem() if program else f"no {freesurfer.PROGRAM} on PATH"
    if choice == FREESURFER and problem:
        raise ToolchainError(f"--tool freesurfer: {problem}; or pass --tool auto")
    if program and not problem:
        return Tool(FREESURFER, freesurfer.version_of(program), program)
    if choice == COMPILED or (choice == "auto" and compiled_for(shape)):
        try:
            tool = Tool(COMPILED, numba_version())
        except ImportError as exc:
            raise ToolchainError(
                f"--tool compiled: numba cannot be imported ({exc}); install it, or pass --tool auto"
            ) from exc
    else:
        tool = Tool(SIMPLEITK, simpleitk.version(_ASKED_BY))
    if program:
        LOG.warning("%s is there, but %s; %s is used", program, problem, tool.describe())
    return tool


def find_transform(tool: Tool, kind: str, reference: Reference, loaded: Loaded, folder: Path, threads: int) -> Found:
    """The transform that brings a scan onto the reference.

    Parameters
    ----------
    kind : str — ``rigid`` or ``affine``.
    folder : Path — an empty folder for the tool's own files.
    threads : int — for FreeSurfer; the others use one, because sums depend on their number.

    Raises
    ------
    VolumeError, ToolchainError
        The tool fails, or ends where the brains do not meet.
    """
    if tool.program is None:
        target = Target(reference.image, reference.network)
        found = search_affine(target, loaded.image, loaded.grid, kind, _ASKED_BY, compiled=tool.name == COMPILED)
        return Found(found.affine, found.overlap, {**found.to_dict(), "affine": kind})
    moving, fixed = _moving_file(loaded, folder), folder / "reference.nii"
    write_nifti(fixed, reference.image, reference.network.affine)
    calls, lta = freesurfer.commands(tool.program, moving, fixed, folder, kind)
    for call in calls:
        freesurfer.run(call, folder, threads)
    if not lta.is_file():
        raise ToolchainError(f"{freesurfer.PROGRAM} ended without error and without a transform; expected {lta.name}")
    try:
        affine = read_affine(lta, reference.network.as_stored(), loaded.grid)
    except VolumeError as exc:
        raise ToolchainError(f"{freesurfer.PROGRAM} wrote a transform that cannot be used: {exc}") from exc
    overlap = judge_affine(reference.image, reference.network, loaded.image, loaded.grid, affine, _ASKED_BY)
    words = [[Path(word).name if word.startswith("/") else word for word in call] for call in calls]
    return Found(
        Affine(affine.pull),
        overlap,
        {"affine": kind, "affine_tool": tool.describe(), "affine_overlap_dice": overlap, "affine_commands": words},
    )


def _moving_file(loaded: Loaded, folder: Path) -> Path:
    """The scan's own file where its header and its suffix are what FreeSurfer reads, else a copy."""
    suffix = volume_suffix(loaded.source.path)
    if loaded.as_filed and suffix in _READABLE and loaded.source.path.name.endswith(suffix):
        return loaded.source.path.resolve()
    path = folder / "moving.nii"
    write_nifti(path, loaded.image, loaded.grid.affine)
    return path
