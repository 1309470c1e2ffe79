# SPDX-License-Identifier: Apache-2.0
"""Training losses as TensorFlow expressions: image similarity, smoothness, the prior of the diffeomorphic variant,
overlap of labels.

No weights, no sessions. Every loss computes in the dtype of its arguments. Sources are named per function; where it
says "voxelmorph legacy", the published training code's `src/losses.py` is meant.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import numpy as np

from vxm_convert.errors import SpecError
from vxm_convert.network.tf1 import tf

NCC_WINDOW = 9
#: Added to the product of variances: keeps flat windows from dividing by zero.
NCC_EPSILON = 1e-5
#: Far below the overlap of one voxel; only keeps an absent label from dividing by zero.
_TINY_OVERLAP = 1e-5


def mean_squared_error(moved: tf.Tensor, fixed: tf.Tensor) -> tf.Tensor:
    """Mean over all voxels of (moved − fixed)²; scalar float32.

    Parameters
    ----------
    moved, fixed : tf.Tensor, shape (B, X, Y, Z, 1), float32 — intensities 0..1.
    """
    return tf.reduce_mean(tf.square(moved - fixed))


def negative_local_correlation(moved: tf.Tensor, fixed: tf.Tensor, window: int = NCC_WINDOW) -> tf.Tensor:
    """Minus the mean of the squared local correlation coefficient over windows of `window`³ voxels; scalar in [−1, 0].

    Windows are zero-padded at the border and always divided by the full window (voxelmorph legacy, class NCC). Keep it
    in fp32: the variances are differences of large sums.

    Parameters
    ----------
    moved, fixed : tf.Tensor, shape (B, X, Y, Z, 1), float32 — intensities 0..1, static batch.
    """
    channels = fixed.shape.as_list()[-1]
    if channels != 1:
        raise SpecError(f"ncc: images have {channels} channels, expected 1")
    size = float(window**3)
    stacked = tf.concat([fixed, moved, fixed * fixed, moved * moved, fixed * moved], axis=0)
    sum_f, sum_m, sum_ff, sum_mm, sum_fm = tf.split(_box_sum(stacked, window), 5, axis=0)
    mean_f, mean_m = sum_f / size, sum_m / size
    cross = sum_fm - mean_m * sum_f - mean_f * sum_m + mean_f * mean_m * size
    variance_f = sum_ff - 2.0 * mean_f * sum_f + mean_f * mean_f * size
    variance_m = sum_mm - 2.0 * mean_m * sum_m + mean_m * mean_m * size
    return -tf.reduce_mean(cross * cross / (variance_f * variance_m + NCC_EPSILON))


def flow_gradient(flow: tf.Tensor, penalty: str = "l2") -> tf.Tensor:
    """Smoothness: mean over the three axes of the mean absolute (l1) or squared (l2) forward difference; scalar.

    Balakrishnan et al., IEEE TMI 2019, eq. 4; voxelmorph legacy, class Grad: no factor ½.

    Parameters
    ----------
    flow : tf.Tensor, shape (B, X, Y, Z, 3), float32 — displacement in voxels of the fixed grid.
    """
    measure = {"l1": tf.abs, "l2": tf.square}[penalty]
    means = [tf.reduce_mean(measure(_forward_difference(flow, axis))) for axis in (1, 2, 3)]
    return tf.add_n(means) / 3.0


def velocity_divergence(mean: tf.Tensor, log_sigma: tf.Tensor, prior_lambda: float) -> tf.Tensor:
    """KL divergence of the velocity's posterior N(μ, Σ) from its smoothness prior, up to constants; scalar.

    Σ is diagonal, the prior's precision is λ(D − A): D counts a voxel's neighbours (6 inside, 5, 4, 3 on faces, edges,
    corners), A joins neighbours along the axes. With n = 3 axes,

        ½·n·( mean(λ·D·σ² − log σ²) + λ·½·(1/n)·Σ_axes mean((∂μ)²) )

    Dalca et al., MICCAI 2018, eq. 6; voxelmorph legacy, class Miccai2018.kl_loss, whose scaling this keeps.

    Parameters
    ----------
    mean, log_sigma : tf.Tensor, shape (B, X, Y, Z, 3) — velocity in voxels of its own grid, and log σ² (the log of the
        variance).
    prior_lambda : float — λ, the strength of the prior.
    """
    degree = _neighbours(mean.shape.as_list()[1:4], mean.dtype)
    sigma_term = tf.reduce_mean(prior_lambda * degree * tf.exp(log_sigma) - log_sigma)
    means = [tf.reduce_mean(tf.square(_forward_difference(mean, axis))) for axis in (1, 2, 3)]
    precision_term = prior_lambda * 0.5 * tf.add_n(means) / 3.0
    return 0.5 * 3.0 * (sigma_term + precision_term)


def label_overlap(moved: tf.Tensor, fixed: tf.Tensor) -> tf.Tensor:
    """1 − mean soft Dice, 2Σab / (Σa + Σb), over the labels present in either and over the batch; 0 if there is none;
    scalar.

    Balakrishnan et al., IEEE TMI 2019, eq. 6, with soft sums as in voxelmorph legacy, class Dice; unlike there, labels
    that neither segmentation has do not count as a Dice of 0.

    Parameters
    ----------
    moved, fixed : tf.Tensor, shape (B, X, Y, Z, L) — share of each voxel that belongs to each of L labels, 0..1.
    """
    both = tf.reduce_sum(moved * fixed, axis=(1, 2, 3))
    total = tf.reduce_sum(moved, axis=(1, 2, 3)) + tf.reduce_sum(fixed, axis=(1, 2, 3))
    present = tf.cast(total > 0, moved.dtype)
    missed = 1.0 - 2.0 * both / tf.maximum(total, _TINY_OVERLAP)
    return tf.reduce_sum(present * missed) / tf.maximum(tf.reduce_sum(present), 1.0)


IMAGE_LOSSES: Dict[str, Callable[[Any, Any], Any]] = {"mse": mean_squared_error, "ncc": negative_local_correlation}


def _forward_difference(tensor: tf.Tensor, axis: int) -> tf.Tensor:
    count = tensor.shape.as_list()[axis] - 1
    return _along(tensor, axis, 1, count) - _along(tensor, axis, 0, count)


def _neighbours(sides: List[int], dtype: tf.DType) -> tf.Tensor:
    """How many of its six neighbours each voxel has inside the grid, shaped (1, X, Y, Z, 1)."""
    total = 0.0
    for axis, side in enumerate(sides):
        along = np.full(side, 2.0)
        along[0] -= 1.0
        along[-1] -= 1.0
        shape = [1] * 5
        shape[axis + 1] = side
        total = total + tf.constant(along.reshape(shape), dtype)
    return total


def _box_sum(volumes: tf.Tensor, window: int) -> tf.Tensor:
    """Sum over a cube around every voxel, zeros outside, along one axis after the other.

    Along an axis, sums over 1, 2, 4, … voxels are each the sum of two of the sums before, and those whose lengths add
    up to the window make the result: four additions for nine voxels. Plain additions, because a 910 convolves in
    float16.
    """
    for axis in (1, 2, 3):
        volumes = _running_sum(volumes, axis, window)
    return volumes


def _running_sum(volumes: tf.Tensor, axis: int, window: int) -> tf.Tensor:
    side, total, start = volumes.shape.as_list()[axis], None, 0
    pads = [(0, 0)] * 5
    pads[axis] = ((window - 1) // 2, window // 2)
    sums, length = tf.pad(volumes, pads), 1
    while True:
        if window & length:
            part = _along(sums, axis, start, side)
            total = part if total is None else total + part
            start += length
        if 2 * length > window:
            return total
        rest = sums.shape.as_list()[axis] - length
        sums, length = _along(sums, axis, 0, rest) + _along(sums, axis, length, rest), 2 * length


def _along(tensor: tf.Tensor, axis: int, start: int, count: int) -> tf.Tensor:
    begin, size = [0] * 5, tensor.shape.as_list()
    begin[axis], size[axis] = start, count
    return tf.slice(tensor, begin, size)
