# SPDX-License-Identifier: Apache-2.0
"""FreeSurfer's LTA text: one matrix, source → destination, with both images' geometry. Text in, text out.

Source = moving and destination = fixed, as ``mri_robust_register --mov --dst`` writes it: the matrix has the opposite
direction of resampling. Type 0 maps voxels to voxels, type 1 scanner RAS to scanner RAS.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.errors import FormatError, VolumeError
from vxm_convert.geometry.affines import Affine, from_push
from vxm_convert.geometry.grids import Grid, grid_of_geometry
from vxm_convert.text import whole_in

_VOXEL_TO_VOXEL, _RAS_TO_RAS = 0, 1
_VECTORS = ("voxelsize", "xras", "yras", "zras", "cras")


def parse(text: str) -> Affine:
    """Parse an LTA of type 0 or 1.

    Raises
    ------
    FormatError
        For other types, several transforms, or damaged text.
    """
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    settings, at = _assignments(lines)
    kind, count = _whole(settings, "type"), _whole(settings, "nxforms")
    if kind not in (_VOXEL_TO_VOXEL, _RAS_TO_RAS) or count != 1:
        raise FormatError(
            f"type {kind} with {count} transforms, expected one of type 0 (voxels) or 1 (RAS); use lta_convert"
        )
    matrix, at = _matrix(lines, at)
    moving, fixed = _geometry(lines, "src"), _geometry(lines, "dst")
    if kind == _VOXEL_TO_VOXEL:
        if moving is None or fixed is None:
            raise FormatError(
                "type 0 without valid source and destination geometry, so its voxels have no position; use "
                "lta_convert --outlta"
            )
        matrix = fixed.affine @ matrix @ moving.inverse
    return from_push(matrix, fixed, moving)


def format_text(affine: Affine, fixed: Grid, moving: Grid, kind: int = _RAS_TO_RAS) -> str:
    """LTA text of an affine between two images; `kind` 0 or 1.

    Raises
    ------
    VolumeError
        For a sheared grid, which the geometry lines cannot express, or for another kind.
    """
    if kind not in (_VOXEL_TO_VOXEL, _RAS_TO_RAS):
        raise VolumeError(f"LTA: type {kind}, expected 0 (voxels) or 1 (RAS)")
    if fixed.sheared or moving.sheared:
        raise VolumeError(
            "LTA: an image's axes are not orthogonal, which this format cannot express; resample it first"
        )
    push = np.linalg.inv(affine.pull)
    matrix = push if kind == _RAS_TO_RAS else fixed.inverse @ push @ moving.affine
    rows = "".join(" ".join(f"{v:.15e}" for v in row) + "\n" for row in matrix)
    name = "LINEAR_RAS_TO_RAS" if kind == _RAS_TO_RAS else "LINEAR_VOX_TO_VOX"
    head = f"type      = {kind} # {name}\nnxforms   = 1\nmean      = 0.0000 0.0000 0.0000\nsigma     = 1.0000\n1 4 4\n"
    return head + rows + _geometry_text("src", moving) + _geometry_text("dst", fixed)


def _assignments(lines: List[str]) -> Tuple[Dict[str, str], int]:
    """The ``key = value`` lines before the matrix, and where it starts."""
    settings: Dict[str, str] = {}
    for at, line in enumerate(lines):
        if line.split() == ["1", "4", "4"]:
            return settings, at + 1
        key, equals, value = line.partition("=")
        if not equals:
            break
        settings[key.strip()] = value.strip()
    raise FormatError("no line '1 4 4' before the matrix; this is not LTA text")


def _matrix(lines: List[str], at: int) -> Tuple[np.ndarray, int]:
    rows = [_floats(line, "matrix row", 4) for line in lines[at : at + 4]]
    if len(rows) != 4:
        raise FormatError("the matrix ends early; copy the file again")
    return np.array(rows), at + 4


def _geometry(lines: List[str], which: str) -> Optional[Grid]:
    start = next((i for i, line in enumerate(lines) if line.split() == [which, "volume", "info"]), None)
    if start is None:
        return None
    entries: Dict[str, str] = {}
    for line in lines[start + 1 : start + 9]:
        key, equals, value = line.partition("=")
        if not equals:
            break
        entries[key.strip()] = value.strip()
    if _whole(entries, "valid") != 1:
        return None
    shape = tuple(int(v) for v in _floats(entries.get("volume", ""), f"{which} volume", 3))
    size, x, y, z, centre = (_floats(entries.get(key, ""), f"{which} {key}", 3) for key in _VECTORS)
    try:
        return grid_of_geometry(shape, size, np.array([x, y, z]).T, centre)
    except VolumeError as exc:
        raise FormatError(f"{which} geometry: {exc}") from exc


def _geometry_text(which: str, grid: Grid) -> str:
    directions = grid.directions
    rows = zip(_VECTORS, [grid.spacing_mm] + [directions[:, i] for i in range(3)] + [grid.centre_ras])
    sides = " ".join(str(n) for n in grid.shape)
    head = f"{which} volume info\nvalid = 1  # volume info valid\nfilename = none\nvolume = {sides}\n"
    return head + "".join(f"{key:<6} = {values[0]:.15e} {values[1]:.15e} {values[2]:.15e}\n" for key, values in rows)


def _whole(entries: Dict[str, str], key: str) -> int:
    number = whole_in("".join(entries.get(key, "").split()[:1]))
    if number is None:
        raise FormatError(f"no number behind '{key} ='; this is not LTA text or it is damaged")
    return number


def _floats(text: str, what: str, count: int) -> List[float]:
    words = text.split()
    try:
        values = [float(word) for word in words]
    except ValueError as exc:
        raise FormatError(f"{what}: {exc}") from exc
    if len(values) != count or not np.isfinite(values).all():
        raise FormatError(f"{what}: {text!r}, expected {count} finite numbers")
    return values
