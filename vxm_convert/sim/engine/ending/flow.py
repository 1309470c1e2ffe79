# SPDX-License-Identifier: Apache-2.0
"""A convolution of 3×3×3 to three outputs: lanes are channels of the input, so that none is empty.

Engines compute 8 or 16 outputs at a time, for any number of them. Here a vector holds sixteen channels of one voxel,
and eight voxels times three outputs stay in registers; the lanes of each are added once, at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vxm_convert.geometry.compiled import compile_loop
from vxm_convert.geometry.kernels import F32, I64, U16, inner, made, read
from vxm_convert.sim.engine.ending.find import Convolution
from vxm_convert.sim.engine.ending.sizes import LANES, OUTPUTS
from vxm_convert.sim.engine.ending.spaces import Spaces, rounded_up
from vxm_convert.sim.engine.ending.vectors import (
    INDEX,
    NARROW,
    WIDE,
    ZERO,
    Loop,
    emitted,
    lane_sums,
    load,
    load_halves,
    multiply_add,
    number,
    plus,
    round_all,
    store,
)

#: voxels at a time: 24 sums, three filters and a voxel fill 28 of the 32 registers of AVX-512
VOXELS = 8


def arranged_filters(weights: np.ndarray) -> np.ndarray:
    """As `convolve_lines` reads them.

    Parameters
    ----------
    weights : ndarray, shape (3, 3, 3, C, 3) — C a multiple of 16.

    Returns
    -------
    ndarray, shape (C / 16, 27 taps, 3 outputs, 16), float32.
    """
    channels = weights.shape[3]
    blocks = weights.astype(np.float32).reshape(27, channels // LANES, LANES, OUTPUTS)
    return np.ascontiguousarray(blocks.transpose(1, 0, 3, 2))


@emitted
def _widen(b: Any, halves: Any, out: Any, voxels: Any, step: Any) -> None:
    """Sixteen channels of fp16 of every voxel, `step` / 2 bytes apart, as float32, `step` bytes apart."""
    with Loop(b, voxels) as turn:
        value = load_halves(b, plus(b, halves, turn.index, b.sdiv(step, number(2))))
        store(b, value, plus(b, out, turn.index, step))


@emitted
def _multiply(b: Any, taps: Any, count: Any, filters: Any, step: Any, out: Any, apart: Any) -> None:
    """Eight voxels: three outputs of each, `apart` bytes between outputs; `taps` are the addresses of what `count` taps
    multiply for the first voxel.
    """
    with Loop(b, count, [ZERO] * (OUTPUTS * VOXELS)) as turn:
        # One tap per turn: with three, LLVM keeps ten voxels in registers, and sums no longer fit.
        first = load(b, plus(b, taps, turn.index, 8), INDEX)
        weights = plus(b, filters, turn.index, OUTPUTS * WIDE)
        weight = [load(b, plus(b, weights, WIDE, n)) for n in range(OUTPUTS)]
        values = [load(b, plus(b, first, step, voxel)) for voxel in range(VOXELS)]
        pairs = [(value, weight[n]) for n in range(OUTPUTS) for value in values]
        turn.hand_on([multiply_add(b, *pair, total) for pair, total in zip(pairs, turn.values)])
    for n in range(OUTPUTS):
        store(b, lane_sums(b, turn.result[n * VOXELS : (n + 1) * VOXELS]), plus(b, out, apart, n))


@inner
def _read_lines(x: Any, depth: int, z: int, y: int, width: int, wide: Any) -> None:
    """Line `y` of the planes around `z`, zeros beside the volume."""
    for k in range(3):
        there = z + k - 1
        if 0 <= there < depth and 0 <= y < x.shape[1]:
            source, into = x[there % x.shape[0], y].ctypes.data, wide[k, y % 3].ctypes.data + wide.strides[2]
            for block in range(x.shape[3] // LANES):
                _widen(source + block * NARROW, into + block * WIDE, width, wide.strides[2])
        else:
            for n in range(wide.shape[2]):
                for c in range(wide.shape[3]):
                    wide[k, y % 3, n, c] = 0.0


@inner
def _point_at_taps(wide: Any, first: int, at: Any) -> None:
    """The addresses of what every tap multiplies for the first voxel, around line `first` + 1."""
    for n in range(at.shape[0]):
        block, tap = n // 27, n % 27
        line = wide[tap // 9, (first + tap // 3 % 3) % 3]
        at[n] = line[tap % 3].ctypes.data + block * WIDE


@inner
def _multiply_line(at: Any, filters: Any, step: int, line: Any) -> None:
    """The sums of a whole line."""
    for first in range(0, line.shape[1], VOXELS):
        into = line.ctypes.data + 4 * first
        _multiply(at.ctypes.data, at.shape[0], filters.ctypes.data, step, into, line.strides[0])
        for n in range(at.shape[0]):
            at[n] += VOXELS * step


@inner
def _put_line(line: Any, bias: Any, rounds: int, z: int, y: int, out: Any) -> None:
    """Bias, rounding, and the line in its place."""
    for n in range(OUTPUTS):
        for voxel in range(out.shape[3]):
            line[n, voxel] += bias[n]
    if rounds:
        round_all(line.ctypes.data, line.size // LANES)
    for n in range(OUTPUTS):
        for voxel in range(out.shape[3]):
            out[n, z, y, voxel] = line[n, voxel]


def convolve_lines(
    x: Any,
    depth: int,
    filters: Any,
    bias: Any,
    rounds: int,
    planes: Any,
    lines: Any,
    out: Any,
    wide: Any,
    at: Any,
    line: Any,
) -> None:
    """Some lines of some planes of the convolution and its bias.

    Parameters
    ----------
    x : ndarray, shape (P, H, W, C), uint16 — bits of fp16; plane z is at ``z mod P``.
    depth : planes of the volume.
    filters : ndarray — of `arranged_filters`.
    bias : ndarray, shape (3,), float32.
    rounds : whether the result is rounded to fp16.
    planes, lines : ndarray, shape (2,), int64 — the first, and that after the last.
    out : ndarray, shape (3, Q, H, W), float32 — plane z is at ``z mod Q``.
    wide : ndarray, shape (3, 3, L + 2, C), float32 — work space of zeros; L is W rounded up to 16.
    at : ndarray, shape (27 C / 16,), int64 — work space.
    line : ndarray, shape (3, L), float32 — work space.
    """
    width = out.shape[3]
    for z in range(planes[0], planes[1]):
        for y in range(lines[0] - 1, lines[1] + 1):
            _read_lines(x, depth, z, y, width, wide)
            if y <= lines[0]:
                continue
            _point_at_taps(wide, y - 2, at)
            _multiply_line(at, filters, wide.strides[2], line)
            _put_line(line, bias, rounds, z % out.shape[1], y - 1, out)


_SIGNATURE = (
    (read(U16, 4), I64, read(F32, 4), read(F32, 1), I64, read(I64, 1), read(I64, 1))
    + (made(F32, 4), made(F32, 4), made(I64, 1), made(F32, 2))
)  # fmt: skip


def compiled() -> Any:
    """`convolve_lines`, compiled or loaded."""
    return compile_loop(convolve_lines, _SIGNATURE)


class FlowLayer:
    """Makes some lines of some planes of the flow.

    Parameters
    ----------
    layer : Convolution
    depth, width : int — sides of the volume.
    """

    def __init__(self, layer: Convolution, depth: int, width: int) -> None:
        channels, length = layer.weights.shape[3], rounded_up(width, LANES)
        self._loop = compiled()
        self._depth, self._filters, self._layer = depth, arranged_filters(layer.weights), layer
        self._spaces = Spaces(
            ((3, 3, length + 2, channels), np.float32),
            ((27 * channels // LANES,), np.int64),
            ((OUTPUTS, length), np.float32),
        )

    def make(self, source: np.ndarray, planes: np.ndarray, lines: np.ndarray, out: np.ndarray) -> None:
        """As `convolve_lines`."""
        layer = self._layer
        self._loop(
            source, self._depth, self._filters, layer.bias, layer.rounds, planes, lines, out, *self._spaces.arrays
        )
