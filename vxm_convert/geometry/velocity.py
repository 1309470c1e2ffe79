# SPDX-License-Identifier: Apache-2.0
"""The inverse of a diffeomorphic network's flow: its negated velocity, integrated as in the network's graph.

A stationary velocity v gives the flow exp(v); exp(−v) is its inverse. Both are computed at half resolution and then
upsampled (`vxm_convert.network.integrate`), so they cancel up to the interpolation error, which the caller measures.
"""

from __future__ import annotations

from typing import List

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry import loops
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import index_block, slabs
from vxm_convert.lazy import LazyModule

ndimage = LazyModule("scipy.ndimage")


def inverse_flow(velocity: np.ndarray, steps: int) -> np.ndarray:
    """exp(−v) on the full grid.

    Parameters
    ----------
    velocity : ndarray, shape (X/2, Y/2, Z/2, 3) — voxels of that grid.
    steps : int — steps of scaling and squaring, as in the network.

    Returns
    -------
    ndarray, shape (X, Y, Z, 3), float32 — displacement in voxels of the full grid.

    Raises
    ------
    VolumeError
        For another shape, or for NaN or Inf.
    """
    if velocity.ndim != 4 or velocity.shape[3] != 3 or not np.isfinite(velocity).all():
        raise VolumeError(f"velocity: array {velocity.shape}, expected finite numbers of shape (X/2, Y/2, Z/2, 3)")
    return double(integrate(-velocity, steps))


def integrate(velocity: np.ndarray, steps: int) -> np.ndarray:
    """exp(v) by scaling and squaring, borders repeated: v / 2^steps, then `steps` times u ← u + u∘(id + u); (X, Y, Z,
    3) float32.

    Arsigny et al., MICCAI 2006; the same steps as `vxm_convert.network.integrate.integrate_velocity`.
    """
    flow = np.asarray(velocity, dtype=np.float32) / np.float32(2**steps)
    for _ in range(steps):
        flow = loops.added(flow) if compiled_for(flow.shape) else flow + _at_displaced(flow)
    return flow


def double(flow: np.ndarray) -> np.ndarray:
    """Twice the voxels along every axis and twice the length: voxel i is at i/2, the last value is repeated; float32."""
    net = flow * np.float32(2.0)
    for axis in range(3):
        ahead = np.concatenate([np.take(net, range(1, net.shape[axis]), axis), np.take(net, [-1], axis)], axis=axis)
        pairs = np.stack([net, (net + ahead) * np.float32(0.5)], axis=axis + 1)
        shape: List[int] = list(net.shape)
        shape[axis] *= 2
        net = pairs.reshape(shape)
    return net


def _at_displaced(flow: np.ndarray) -> np.ndarray:
    out = np.empty_like(flow)
    for part in slabs(flow.shape[0]):
        where = np.moveaxis(index_block(flow.shape, part) + flow[part], -1, 0)
        for d in range(3):
            out[part, ..., d] = ndimage.map_coordinates(flow[..., d], where, order=1, mode="nearest", prefilter=False)
    return out
