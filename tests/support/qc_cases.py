# SPDX-License-Identifier: Apache-2.0
"""Cases for the pictures with a known truth: a head of boxes, each of its own brightness, on a grid of any orientation
and voxel size.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Dict, Tuple

import nibabel as nib
import numpy as np

from om_runner.qc.case import Case
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid

RAS_SHAPE = (20, 24, 16)


def grid_of(
    codes: str, spacing: Tuple[float, float, float] = (1.0, 1.0, 1.0), shape: Tuple[int, int, int] = RAS_SHAPE
) -> Grid:
    """A grid whose axes run as the letters say; `spacing` and `shape` are given in RAS order."""
    ras = nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag(list(spacing) + [1.0]))
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    image = ras.as_reoriented(turn)
    return Grid(image.shape, image.affine)


def in_axes(volume: np.ndarray, codes: str) -> np.ndarray:
    """An array in RAS order as a grid of those axes has it."""
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    return np.ascontiguousarray(nib.orientations.apply_orientation(volume, turn))


def head() -> np.ndarray:
    """RAS order: 50 all over the head, 100 on its right, 75 in front, 25 on top."""
    image = np.zeros(RAS_SHAPE, np.float32)
    image[2:18, 2:22, 2:14] = 50
    image[14:18, 2:22, 2:14] = 100
    image[6:12, 17:22, 2:14] = 75
    image[6:12, 6:14, 10:14] = 25
    return image


def case(codes: str = "RAS", **changes: Any) -> Case:
    """A head that is moved one voxel to the left by the warp."""
    grid = grid_of(codes)
    fixed = in_axes(head(), codes)
    before = in_axes(np.roll(head(), 1, axis=0), codes)
    u = np.zeros(grid.shape + (3,), np.float32)
    axis = int(np.flatnonzero(np.abs(grid.affine[0, :3]) > 0.5)[0])
    u[..., axis] = np.sign(grid.affine[0, axis])
    seg = (fixed > 0).astype(np.int16)
    values = {
        "subject": "a b",
        "grid": grid,
        "fixed": fixed,
        "moved": fixed.copy(),
        "before": before,
        "warp": Warp(u, grid, grid),
        "fixed_seg": seg,
        "moved_seg": seg,
        "figures": {"dice_before": 0.5, "dice_after": 0.9, "folding_fraction": 0.0, "flow_max_voxel": 1.0},
        "simulated": True,
        "label_set": "paper30",
    }
    return Case(**{**values, **changes})


def pixels(png: bytes) -> Tuple[np.ndarray, np.ndarray]:
    """Indices and palette of an indexed PNG without filters, read independently of what wrote it."""
    lines, chunks = _lines(png, 1)
    return lines, np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)


def colours(png: bytes) -> np.ndarray:
    """(height, width, 3)."""
    index, palette = pixels(png)
    return palette[index]


def direct_colours(png: bytes) -> np.ndarray:
    """(height, width, 3) of a PNG without palette and filters."""
    lines, chunks = _lines(png, 3)
    assert chunks[b"IHDR"][8:10] == b"\x08\x02"
    return lines.reshape(len(lines), -1, 3)


def _lines(png: bytes, bytes_per_pixel: int) -> Tuple[np.ndarray, Dict[bytes, bytes]]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        chunks[kind] = png[at + 8 : at + 8 + length]
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, bytes_per_pixel * width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:], chunks
