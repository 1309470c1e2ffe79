# SPDX-License-Identifier: Apache-2.0
"""A volume pulled through a flow and the overlap of labels, by SciPy and by plain counting."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def pull(volume: np.ndarray, flow: np.ndarray, order: int) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij")).astype(float)
    return ndimage.map_coordinates(volume, grid + np.moveaxis(flow, -1, 0), order=order, mode="nearest")


def mean_dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(
        np.mean([2.0 * np.sum((a == n) & (b == n)) / (np.sum(a == n) + np.sum(b == n)) for n in np.unique(a) if n])
    )
