# SPDX-License-Identifier: Apache-2.0
"""Pictures of a pair for TensorBoard: middle slices, the warped grid, as PNG bytes. NumPy and zlib only."""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np

_GRID_SPACING = 8.0


def pair_pictures(moving: np.ndarray, fixed: np.ndarray, moved: np.ndarray, flow: np.ndarray) -> Dict[str, np.ndarray]:
    """Name → picture, (height, width) uint8.

    Parameters
    ----------
    moving, fixed, moved : ndarray, shape (X, Y, Z) — 0..1.
    flow : ndarray, shape (X, Y, Z, 3) — displacement in voxels.
    """
    return {"moving": slices(moving), "fixed": slices(fixed), "moved": slices(moved), "warped grid": warped_grid(flow)}


def slices(volume: np.ndarray) -> np.ndarray:
    """The middle slices along the three axes, side by side."""
    parts = [np.take(volume, side // 2, axis=axis) for axis, side in enumerate(volume.shape)]
    return _beside([_bytes(part) for part in parts])


def warped_grid(flow: np.ndarray) -> np.ndarray:
    """Lines every 8 voxels of the moving grid, in the same three slices of the fixed grid."""
    parts = []
    for axis, side in enumerate(flow.shape[:3]):
        plane = np.take(flow, side // 2, axis=axis)
        first, second = (d for d in range(3) if d != axis)
        rows, columns = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in plane.shape[:2]), indexing="ij")
        lines = np.maximum(_line(rows + plane[..., first]), _line(columns + plane[..., second]))
        parts.append(_bytes(lines))
    return _beside(parts)


def _line(position: np.ndarray) -> np.ndarray:
    """1 on a grid line, falling to 0 one voxel away."""
    distance = np.abs((position + _GRID_SPACING / 2) % _GRID_SPACING - _GRID_SPACING / 2)
    return np.maximum(0.0, 1.0 - distance)


def _bytes(plane: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(np.nan_to_num(plane), 0, 1)).astype(np.uint8)


def _beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    height = max(p.shape[0] for p in parts)
    return np.concatenate([np.pad(p, ((0, height - p.shape[0]), (0, 0)), mode="constant") for p in parts], axis=1)
