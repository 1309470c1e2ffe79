# SPDX-License-Identifier: Apache-2.0
"""Training losses as TensorFlow expressions: image similarity and smoothness of the flow. No weights, no sessions."""
from __future__ import annotations

from typing import Any, Callable, Dict

import numpy as np

from vxm_convert.errors import SpecError
from vxm_convert.network.tf1 import tf

NCC_WINDOW = 9
#: Added to the product of variances: keeps flat windows from dividing by zero.
NCC_EPSILON = 1e-5


def mean_squared_error(moved: Any, fixed: Any) -> Any:
    """Mean over all voxels of (moved − fixed)²; scalar float32.

    Parameters
    ----------
    moved, fixed : tf.Tensor, shape (B, X, Y, Z, 1), float32 — intensities 0..1.
    """
    return tf.reduce_mean(tf.square(moved - fixed))


def negative_local_correlation(moved: Any, fixed: Any, window: int = NCC_WINDOW) -> Any:
    """Minus the mean of the squared local correlation coefficient over windows of `window`³ voxels; scalar in [−1, 0].

    Windows are zero-padded at the border and always divided by the full window, as in the published training code
    (voxelmorph legacy, `src/losses.py`, class NCC). Keep it in fp32: the variances are differences of large sums.

    Parameters
    ----------
    moved, fixed : tf.Tensor, shape (B, X, Y, Z, 1), float32 — intensities 0..1, static batch.
    """
    channels = fixed.shape.as_list()[-1]
    if channels != 1:
        raise SpecError(f"ncc: images have {channels} channels, expected 1")
    size = float(window ** 3)
    stacked = tf.concat([fixed, moved, fixed * fixed, moved * moved, fixed * moved], axis=0)
    sum_f, sum_m, sum_ff, sum_mm, sum_fm = tf.split(_box_sum(stacked, window), 5, axis=0)
    mean_f, mean_m = sum_f / size, sum_m / size
    cross = sum_fm - mean_m * sum_f - mean_f * sum_m + mean_f * mean_m * size
    variance_f = sum_ff - 2.0 * mean_f * sum_f + mean_f * mean_f * size
    variance_m = sum_mm - 2.0 * mean_m * sum_m + mean_m * mean_m * size
    return -tf.reduce_mean(cross * cross / (variance_f * variance_m + NCC_EPSILON))


def flow_gradient(flow: Any, penalty: str = "l2") -> Any:
    """Smoothness: mean over the three axes of the mean absolute (l1) or squared (l2) forward difference; scalar float32.

    Parameters
    ----------
    flow : tf.Tensor, shape (B, X, Y, Z, 3), float32 — displacement in voxels of the fixed grid.
    """
    measure = {"l1": tf.abs, "l2": tf.square}[penalty]
    means = [tf.reduce_mean(measure(_forward_difference(flow, axis))) for axis in (1, 2, 3)]
    return tf.add_n(means) / 3.0


IMAGE_LOSSES: Dict[str, Callable[[Any, Any], Any]] = {"mse": mean_squared_error, "ncc": negative_local_correlation}


def _forward_difference(tensor: Any, axis: int) -> Any:
    size = tensor.shape.as_list()
    ahead, here = [0] * 5, [0] * 5
    ahead[axis] = 1
    size[axis] -= 1
    return tf.slice(tensor, ahead, size) - tf.slice(tensor, here, size)


def _box_sum(volumes: Any, window: int) -> Any:
    """Sum over a cube around every voxel, zeros outside: three one-dimensional sums give the same as one of `window`³ taps."""
    for axis in range(3):
        sides = [1, 1, 1]
        sides[axis] = window
        kernel = tf.constant(np.ones(sides + [1, 1], np.float32))
        volumes = tf.nn.conv3d(volumes, kernel, strides=(1, 1, 1, 1, 1), padding="SAME")
    return volumes
