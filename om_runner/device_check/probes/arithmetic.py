# SPDX-License-Identifier: Apache-2.0
"""The arithmetic that the simulator assumes, in NumPy alone, and what other chips could do instead.

Independent of the simulator: it is the second opinion about each of its predictions.
"""

from __future__ import annotations

from typing import Callable, Sequence, Tuple

import numpy as np

from vxm_convert.ascend.limits import HALF_MAX

#: the smallest normal fp16 number, and the distance between subnormal ones
HALF_NORMAL = 2.0**-14
Rounding = Callable[[np.ndarray], np.ndarray]


def half(values: np.ndarray) -> np.ndarray:
    """To nearest even, saturating, NaN to 0; float32 on the fp16 grid."""
    wide = np.nan_to_num(np.asarray(values, np.float64), nan=0.0, posinf=HALF_MAX, neginf=-HALF_MAX)
    return np.clip(wide, -HALF_MAX, HALF_MAX).astype(np.float16).astype(np.float32)


def single(values: np.ndarray) -> np.ndarray:
    """Rounding of a kernel in fp32."""
    return np.asarray(values, np.float32)


def half_toward_zero(values: np.ndarray) -> np.ndarray:
    """As `half`, but the part that does not fit is cut off."""
    nearest = half(values).astype(np.float16)
    return np.where(
        np.abs(nearest.astype(np.float64)) > np.abs(values), np.nextafter(nearest, np.float16(0)), nearest
    ).astype(np.float32)


def half_odd(values: np.ndarray) -> np.ndarray:
    """As `half`, but a value between two fp16 numbers becomes the odd one (von Neumann rounding)."""
    cut = half_toward_zero(values)
    bits = cut.astype(np.float16).view(np.uint16)
    return np.where(cut == values, bits, bits | np.uint16(1)).astype(np.uint16).view(np.float16).astype(np.float32)


def half_ties_away(values: np.ndarray) -> np.ndarray:
    """As `half`, but ties go away from zero."""
    exact = np.asarray(values, np.float64)
    cut = half_toward_zero(values).astype(np.float16)
    beyond = np.nextafter(cut, np.where(exact < 0, -np.inf, np.inf).astype(np.float16)).astype(np.float64)
    low = cut.astype(np.float64)
    return np.where(np.abs(exact - low) >= np.abs(beyond - exact), beyond, low).astype(np.float32)


def half_infinite(values: np.ndarray) -> np.ndarray:
    """IEEE's: beyond the largest number comes infinity."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


def half_flushed(values: np.ndarray) -> np.ndarray:
    """As `half`, but subnormal numbers become 0."""
    made = half(values)
    return np.where(np.abs(made) < HALF_NORMAL, np.float32(0), made)


def convolve(volume: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's SAME convolution in float64.

    Parameters
    ----------
    volume : ndarray, shape (1, X, Y, Z, C)
    kernel : ndarray, shape (kx, ky, kz, C, N)
    stride : int — the same along every axis.

    Returns
    ------- ndarray, shape (1, ⌈X/stride⌉, ⌈Y/stride⌉, ⌈Z/stride⌉, N), float64
    """
    sides = [-(-n // stride) for n in volume.shape[1:4]]
    pads = []
    for side, out, width in zip(volume.shape[1:4], sides, kernel.shape):
        total = max((out - 1) * stride + width - side, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(volume.astype(np.float64), [(0, 0)] + pads + [(0, 0)], mode="constant")
    result = np.zeros((1, *sides, kernel.shape[4]))
    for tap in np.ndindex(*kernel.shape[:3]):
        spans = tuple(slice(at, at + (n - 1) * stride + 1, stride) for at, n in zip(tap, sides))
        result += padded[(slice(None), *spans)] @ kernel[tap].astype(np.float64)
    return result


def leaky(values: np.ndarray, slope: float, rounding: Rounding) -> np.ndarray:
    """max(x, slope·x), rounded once."""
    wide = np.asarray(values, np.float64)
    return rounding(np.where(wide >= 0, wide, wide * slope))


def warp(volume: np.ndarray, flow: np.ndarray, rounding: Rounding) -> np.ndarray:
    """The integer-base warp of `vxm_convert.network.warp`, every operator rounded by `rounding`.

    Parameters
    ----------
    volume : ndarray, shape (1, X, Y, Z, 1)
    flow : ndarray, shape (1, X, Y, Z, 3) — voxels.

    Returns
    ------- ndarray, shape (1, X, Y, Z, 1), float32
    """
    sides = volume.shape[1:4]
    low, high, fractions = [], [], []
    for axis, side in enumerate(sides):
        shape = [1, 1, 1, 1]
        shape[axis + 1] = side
        moved = np.clip(rounding(flow[..., axis]), -float(side), float(side)).astype(np.float32)
        whole = np.floor(moved)
        base = np.arange(side).reshape(shape) + whole.astype(np.int64)
        low.append(np.clip(base, 0, side - 1))
        high.append(np.clip(base + 1, 0, side - 1))
        fractions.append(rounding(moved - whole))
    table = rounding(volume).reshape(-1)
    corners = [table[row] for row in corner_rows(low, high, sides)]
    for fraction in reversed(fractions):
        corners = [blend(a, b, fraction, rounding) for a, b in zip(corners[0::2], corners[1::2])]
    return corners[0].reshape(volume.shape)


def corner_rows(low: Sequence[np.ndarray], high: Sequence[np.ndarray], sides: Tuple[int, ...]) -> Sequence[np.ndarray]:
    """Rows of the flattened volume for the eight corners, Z fastest."""
    return [
        (x * sides[1] + y) * sides[2] + z
        for x in (low[0], high[0])
        for y in (low[1], high[1])
        for z in (low[2], high[2])
    ]


def blend(low: np.ndarray, high: np.ndarray, fraction: np.ndarray, rounding: Rounding) -> np.ndarray:
    """low + fraction · (high − low), each operator rounded."""
    return rounding(low + rounding(fraction * rounding(high - low)))
