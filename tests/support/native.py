# SPDX-License-Identifier: Apache-2.0
"""Small brains given by a formula, on any grid and turned by a known transform, as files in the spaces of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional

import nibabel as nib
import numpy as np

from tests.support.grids import points_of, turn
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.scans.conform import oriented
from vxm_convert.scans.network_grid import network_affine

SHAPE = (32, 32, 48)
SHAPE_WORDS = "32,32,48"
NETWORK = Grid(SHAPE, network_affine(SHAPE))
#: reference RAS → scan RAS of each scan
PULLS: Dict[str, np.ndarray] = {}
for _name, _angles, _shift, _scale in (
    ("one", (0.15, -0.1, 0.12), (6, -5, 4), (1.0, 1.0, 1.0)),
    ("two", (-0.1, 0.2, 0.05), (-3, 4, 8), (1.06, 0.95, 1.03)),
):
    PULLS[_name] = np.eye(4)
    PULLS[_name][:3, :3], PULLS[_name][:3, 3] = turn(*_angles) @ np.diag(_scale), _shift
#: orientation and voxel size of the scans' grids
GRIDS = {"one": ("PIR", (1.1, 1.0, 1.2)), "two": ("LPS", (1.0, 1.0, 1.0))}


def grid_of(name: str) -> Grid:
    """The scan's own grid, about where its brain is."""
    axes, spacing = GRIDS[name]
    return oriented((44, 46, 48), axes, spacing, apply_affine(PULLS[name], NETWORK.centre_ras))


def brain(points: np.ndarray, size: float = 1.0) -> np.ndarray:
    """Intensities 0..1 at points of the reference's space (RAS mm): an ellipsoid full of folds, without symmetry."""
    x, y, z = np.moveaxis((points - NETWORK.centre_ras) / size, -1, 0)
    bright = (
        0.5 + 0.2 * np.sin(x / 2.5 + 0.4) * np.cos(z / 4) + 0.15 * np.cos(y / 3 + x / 6) + 0.1 * np.sin(z / 3.5 + y / 4)
    )
    return (bright * np.clip(6 - 6 * np.sqrt((x / 12) ** 2 + (y / 13.5) ** 2 + (z / 11) ** 2), 0, 1)).astype(np.float32)


def labels(points: np.ndarray) -> np.ndarray:
    """A left (2) and a right (41) half and a ball (16)."""
    centred = points - NETWORK.centre_ras
    seg = np.where(centred[..., 0] < 0, 2, 41) * (brain(points) > 0)
    return np.where(np.linalg.norm(centred - (1, 5, 2), axis=-1) < 4, 16, seg).astype(np.int16)


def write_scan(
    folder: Path,
    name: str,
    pull: Optional[np.ndarray],
    grid: Grid,
    suffix: str = ".nii.gz",
    size: float = 1.0,
    with_labels: bool = True,
) -> Path:
    """`NAME.suffix` with intensities 0..255 and `NAME_seg.suffix`; `pull` None: the reference's own space."""
    folder.mkdir(parents=True, exist_ok=True)
    home = apply_affine(np.linalg.inv(pull) if pull is not None else np.eye(4), points_of(grid))
    save(folder / (name + suffix), np.rint(255 * brain(home, size)).astype(np.uint8), grid)
    if with_labels:
        save(folder / f"{name}_seg{suffix}", labels(home), grid)
    return folder / (name + suffix)


def save(path: Path, array: np.ndarray, grid: Grid) -> None:
    kind = nib.MGHImage if path.suffix == ".mgz" else nib.Nifti1Image
    nib.save(kind(array, grid.affine.astype(np.float32)), str(path))


def write_native(folder: Path) -> Path:
    """`ref.nii.gz` on the network grid, and the scans `one.nii.gz` and `two.mgz`, all with labels; the folder of the
    scans.
    """
    write_scan(folder, "ref", None, NETWORK)
    write_scan(folder / "in", "one", PULLS["one"], grid_of("one"))
    write_scan(folder / "in", "two", PULLS["two"], grid_of("two"), ".mgz")
    return folder / "in"


def turn_degrees(a: np.ndarray, b: np.ndarray) -> float:
    """The angle between the rotations in two matrices."""
    turns = []
    for matrix in (a, b):
        left, _, right = np.linalg.svd(matrix[:3, :3])
        turns.append(left @ right)
    return float(np.degrees(np.arccos(np.clip((np.trace(turns[0].T @ turns[1]) - 1) / 2, -1, 1))))
