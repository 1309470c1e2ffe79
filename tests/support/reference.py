# SPDX-License-Identifier: Apache-2.0
"""The network and the warp once more, in NumPy and float64, written from the mathematics and not from our TensorFlow
code.

Only for tests. Shares nothing with `vxm_convert.network` but the names of the variables.
"""

from __future__ import annotations

from itertools import product
from typing import Dict, Optional, Tuple

import numpy as np

from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.variables import expected_variables


def random_weights(spec: ModelSpec, seed: int = 0) -> Dict[str, np.ndarray]:
    """Weights that keep activations near 1 and give flows of a few voxels."""
    rng = np.random.RandomState(seed)
    weights = {}
    for name, shape in expected_variables(spec).items():
        scale = np.sqrt(2.0 / np.prod(shape[:-1])) if name.endswith("kernel") else 0.1
        weights[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return weights


def conv3d_same(volume: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """(B, X, Y, Z, Cin) * (3, 3, 3, Cin, Cout) → (B, X/s, Y/s, Z/s, Cout); stride 2 on even sides pads only at the far
    end.
    """
    before, after = (1, 1) if stride == 1 else (0, 1)
    padded = np.pad(volume.astype(np.float64), [(0, 0)] + [(before, after)] * 3 + [(0, 0)], mode="constant")
    sides = [n // stride for n in volume.shape[1:4]]
    out = np.zeros((volume.shape[0],) + tuple(sides) + (kernel.shape[4],))
    for tap in product(range(3), repeat=3):
        window = padded[(slice(None),) + tuple(slice(t, t + stride * n, stride) for t, n in zip(tap, sides))]
        out += window @ kernel[tap].astype(np.float64)
    return out + bias.astype(np.float64)


def leaky_relu(values: np.ndarray, slope: float = 0.2) -> np.ndarray:
    return np.where(values > 0, values, slope * values)


def upsample(volume: np.ndarray) -> np.ndarray:
    for axis in (1, 2, 3):
        volume = np.repeat(volume, 2, axis=axis)
    return volume


def unet(moving: np.ndarray, fixed: np.ndarray, weights: Dict[str, np.ndarray]) -> np.ndarray:
    """The whole U-Net; the variants tell themselves apart by the number of convolutions: with nine it ends at half
    resolution.
    """
    count = sum(1 for name in weights if name.startswith("conv3d") and name.endswith("/kernel"))
    names = ["conv3d"] + [f"conv3d_{n}" for n in range(1, count)]

    def block(number: int, values: np.ndarray, stride: int = 1) -> np.ndarray:
        return leaky_relu(
            conv3d_same(values, weights[names[number] + "/kernel"], weights[names[number] + "/bias"], stride)
        )

    images = np.concatenate([moving, fixed], axis=-1).astype(np.float64)
    half = block(0, images, 2)
    quarter = block(1, half, 2)
    eighth = block(2, quarter, 2)
    net = block(4, block(3, eighth, 2))
    net = block(5, np.concatenate([upsample(net), eighth], axis=-1))
    net = block(6, np.concatenate([upsample(net), quarter], axis=-1))
    net = block(7, np.concatenate([upsample(net), half], axis=-1))
    net = block(8, net)
    if count > 9:
        net = block(9, np.concatenate([upsample(net), images], axis=-1))
    for number in range(10, count):
        net = block(number, net)
    return conv3d_same(net, weights["flow/kernel"], weights["flow/bias"], 1)


def displacement(moving: np.ndarray, fixed: np.ndarray, weights: Dict[str, np.ndarray], steps: int = 7) -> np.ndarray:
    """What the exported graph's flow must be; networks with a log_sigma layer give a velocity."""
    field = unet(moving, fixed, weights)
    return resize_double(2.0 * integrate(field, steps)) if "log_sigma/kernel" in weights else field


def integrate(velocity: np.ndarray, steps: int) -> np.ndarray:
    """Compose the small step with itself: 2^steps small steps in all."""
    small = velocity.astype(np.float64) / 2**steps
    for _ in range(steps):
        small = small + warp_linear(small, small)
    return small


def resize_double(volume: np.ndarray) -> np.ndarray:
    """Linear interpolation at 0, ½, 1, … of each of the axes 1 to 3, clamped at the end."""
    for axis in (1, 2, 3):
        side = volume.shape[axis]
        volume = np.apply_along_axis(
            lambda line, n=side: np.interp(np.arange(2 * n) / 2.0, np.arange(n), line), axis, volume
        )
    return volume


def warp_linear(volume: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Clip the position p + u and interpolate: the form of the published training code, floor(p + u) and all."""
    out = np.empty(volume.shape)
    sides = volume.shape[1:4]
    mesh = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in sides], indexing="ij")
    for item in range(volume.shape[0]):
        low, high, weight_low = [], [], []
        for axis, side in enumerate(sides):
            position = mesh[axis] + flow[item, ..., axis].astype(np.float64)
            first = np.clip(np.floor(position), 0, side - 1)
            second = np.clip(first + 1, 0, side - 1)
            low.append(first.astype(int))
            high.append(second.astype(int))
            weight_low.append(second - np.clip(position, 0, side - 1))
        total = np.zeros(volume.shape[1:])
        for corner in product((0, 1), repeat=3):
            index = tuple(high[d] if c else low[d] for d, c in enumerate(corner))
            weight = np.prod([1 - weight_low[d] if c else weight_low[d] for d, c in enumerate(corner)], axis=0)
            total += weight[..., None] * volume[item][index].astype(np.float64)
        out[item] = total
    return out


def warp_nearest(volume: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Round half to even, then clip. Positions in float32, as the training code has them."""
    out = np.empty_like(volume)
    sides = volume.shape[1:4]
    mesh = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in sides], indexing="ij")
    for item in range(volume.shape[0]):
        index = tuple(np.clip(np.rint(mesh[d] + flow[item, ..., d]), 0, n - 1).astype(int) for d, n in enumerate(sides))
        out[item] = volume[item][index]
    return out


def warp_half(volume: np.ndarray, flow: np.ndarray, integer_base: bool) -> np.ndarray:
    """One (X, Y, Z) volume warped with every float operation in float16, as a device does that keeps nothing in fp32.

    Parameters
    ----------
    volume, flow : ndarray, shapes (X, Y, Z) and (X, Y, Z, 3)
    integer_base : bool — True: p + int(floor(u)) and u − floor(u); False: floor(p + u) on the float16 sum.
    """
    half = np.float16
    volume, flow = volume.astype(half), flow.astype(half)
    low, high, fraction = [], [], []
    for axis, side in enumerate(volume.shape):
        grid = np.arange(side).reshape([-1 if d == axis else 1 for d in range(3)])
        value = (
            flow[..., axis] if integer_base else np.clip(grid.astype(half) + flow[..., axis], half(0), half(side - 1))
        )
        whole = np.floor(value)
        base = whole.astype(np.int32) + (grid if integer_base else 0)
        low.append(np.clip(base, 0, side - 1))
        high.append(np.clip(base + 1, 0, side - 1))
        fraction.append(value - whole)
    corners = [
        volume[tuple(pair[c] for pair, c in zip(zip(low, high), corner))] for corner in product((0, 1), repeat=3)
    ]
    for axis in (2, 1, 0):
        corners = [a + fraction[axis] * (b - a) for a, b in zip(corners[0::2], corners[1::2])]
    assert corners[0].dtype == half
    return corners[0]


def smooth_noise(shape: Tuple[int, ...], seed: int, smoothing: float, amplitude: Optional[float] = None) -> np.ndarray:
    """Gaussian noise blurred over the first three axes, scaled to max |value| = amplitude if given."""
    from scipy.ndimage import gaussian_filter

    sigma = [smoothing] * 3 + [0.0] * (len(shape) - 3)
    noise = gaussian_filter(np.random.RandomState(seed).standard_normal(shape), sigma, mode="nearest")
    return noise if amplitude is None else noise * (amplitude / np.abs(noise).max())
