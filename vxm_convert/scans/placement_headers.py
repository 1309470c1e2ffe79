# SPDX-License-Identifier: Apache-2.0
"""The grid of an image file, and what is doubtful about its header, one line each. Voxels are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid, corner_distance_mm
from vxm_convert.lazy import LazyModule
from vxm_convert.scans.header import check_shape, open_scan, read_errors, volume_suffix
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.npz import NPZ_IMAGE_NAMES, NPZ_LABEL_NAMES, NpzReader
from vxm_convert.scans.raw_header import require_file

nib = LazyModule("nibabel")
#: qform and sform further apart than this at a corner are a disagreement, not rounding
DISAGREEMENT_MM = 0.1


def read_grid(path: Path) -> Grid:
    """The grid of a scan or segmentation; an .npz without header lies on the network grid (LIA, 1 mm).

    Raises
    ------
    VolumeError
        When the file is missing, unreadable, not 3-D, or its affine is no grid.
    """
    return inspect_header(path)[0]


def inspect_header(path: Path) -> Tuple[Grid, List[str]]:
    """Grid and notes of a file: no orientation stored, qform and sform apart, sheared or mirrored axes, an identity
    affine.
    """
    path = require_file(path, "a scan or segmentation")
    if volume_suffix(path) == ".npz":
        with NpzReader(path) as archive:
            name = archive.first_of(NPZ_IMAGE_NAMES + NPZ_LABEL_NAMES)
            if name is None:
                raise VolumeError(
                    f"{path}: holds {archive.names}, expected one of {', '.join(NPZ_IMAGE_NAMES + NPZ_LABEL_NAMES)}"
                )
            header = archive.header(name)
            shape = check_shape(header.shape, None, path)
            archive.check_size(name, header)
        return Grid(shape, network_affine(shape)), ["no header: taken to lie on the network grid, axes LIA, 1 mm"]
    scan = open_scan(path)
    return scan.grid, _notes(scan.image, scan.grid)


def header_trust(path: Path) -> bool:
    """Whether a NIfTI or MGH header says how its array lies: not an identity affine, and a qform or an sform is there.

    VoxelMorph's published test scan has an identity affine over an array that runs left, inferior, anterior.
    """
    image = nib.load(str(path))
    if np.array_equal(image.affine, np.eye(4)):
        return False
    header = image.header
    return not hasattr(header, "get_qform") or bool(header["qform_code"] or header["sform_code"])


def _notes(image: Any, grid: Grid) -> List[str]:
    notes = []
    header = image.header
    if hasattr(header, "get_qform"):
        try:
            qform, q_code = header.get_qform(coded=True)
            sform, s_code = header.get_sform(coded=True)
        except read_errors() as exc:
            return [f"the qform cannot be read ({exc}); tools that prefer it will refuse the file"]
        if not q_code and not s_code:
            notes.append("neither qform nor sform: orientation and place are unknown, a guess is used")
        elif q_code and s_code:
            apart = _apart_mm(grid.shape, qform, sform)
            if apart > DISAGREEMENT_MM:
                notes.append(
                    f"qform and sform disagree by up to {apart:.1f} mm; the sform is used, ITK and FSL may use the "
                    "qform"
                )
    if grid.sheared:
        notes.append(f"axes {grid.shear:.2g} off a right angle (sheared): ITK refuses such a file, resample it")
    if np.array_equal(grid.affine, np.eye(4)):
        notes.append(
            "identity affine: claims RAS with the origin in the corner, which scanners do not write; the orientation "
            "may be wrong"
        )
    return notes


def _apart_mm(shape: Tuple[int, int, int], a: np.ndarray, b: np.ndarray) -> float:
    try:
        return corner_distance_mm(Grid(shape, a), Grid(shape, b))
    except VolumeError:
        return float("inf")
