# SPDX-License-Identifier: Apache-2.0
"""A convolution of 3×3×3 of a volume with sixteen channels or a multiple, by Winograd's tiles.

Two rows of the result (one of tiles) are made plane after plane: three planes of transformed input are kept, and each
is made once.
"""

from __future__ import annotations

from typing import Any, List

import numpy as np

from vxm_convert.geometry.compiled import compile_loop
from vxm_convert.geometry.kernels import F32, I64, U16, made, read
from vxm_convert.sim.engine.ending.find import Convolution
from vxm_convert.sim.engine.ending.sizes import LANES
from vxm_convert.sim.engine.ending.spaces import Spaces, rounded_up
from vxm_convert.sim.engine.ending.tiles import POINTS, TILES, differences, finish, multiply_three, transformed_filters
from vxm_convert.sim.engine.ending.vectors import NARROW, WIDE, ZERO, Loop, emitted, load_halves, number, plus, store


@emitted
def _transform(b: Any, r0: Any, r1: Any, r2: Any, r3: Any, tiles: Any, step: Any, out: Any, apart: Any) -> None:
    """Bᵀ d B of all tiles of a row, sixteen channels of them.

    `r0` … `r3` are the addresses of four rows of fp16, `step` the bytes from one voxel to the next, half of those from
    one tile of `out` to the next; `apart` those from one point of it to the next. Voxels beside a row are zeros.
    """

    def column(offset: Any) -> List[Any]:
        return differences(b, [load_halves(b, b.add(row, offset)) for row in (r0, r1, r2, r3)])

    last = b.sub(tiles, number(1))
    with Loop(b, tiles, [ZERO] * 4 + column(number(0))) as turn:
        odd = plus(b, step, turn.index, 2, step)
        inside = b.icmp_signed("<", turn.index, last)
        behind = column(b.select(inside, b.add(odd, step), number(0)))
        columns = [turn.values[:4], turn.values[4:], column(odd), [b.select(inside, value, ZERO) for value in behind]]
        tile = plus(b, out, turn.index, 2, step)
        for i in range(4):
            for j, value in enumerate(differences(b, [column[i] for column in columns])):
                store(b, value, plus(b, tile, apart, 4 * i + j))
        turn.hand_on(columns[2] + columns[3])


def convolve_rows(
    x: Any,
    depth: int,
    filters: Any,
    bias: Any,
    slope: Any,
    rounds: int,
    planes: Any,
    tiles: Any,
    out: Any,
    kept: Any,
    sums: Any,
) -> None:
    """Some rows of some planes of the convolution, its bias and LeakyReLU.

    Parameters
    ----------
    x : ndarray, shape (P, H, W, C), uint16 — bits of fp16, H and W even; plane z is at ``z mod P``.
    depth : planes of the volume.
    filters : ndarray — of `transformed_filters`.
    bias : ndarray, shape (N,), float32.
    slope : ndarray, shape (16,), float32 — the same number sixteen times.
    rounds : whether the sum is rounded to fp16 before LeakyReLU.
    planes, tiles : ndarray, shape (2,), int64 — first plane and row of tiles, and those after the last.
    out : ndarray, shape (Q, H, W, N), uint16 — bits of fp16; plane z is at ``z mod Q``.
    kept : ndarray, shape (4, 16, M, C), float32 — work space; M is W / 2 rounded up to `TILES`, the fourth all zeros.
    sums : ndarray, shape (16, M, 16), float32 — work space.
    """
    circle, height, width, channels = x.shape
    step, apart = x.strides[2], kept.strides[1]
    nothing, across = kept[3].ctypes.data, width // 2
    for tile in range(tiles[0], tiles[1]):
        for z in range(planes[0] - 1, planes[1] + 1):
            if 0 <= z < depth:
                row, into = x[z % circle].ctypes.data + 2 * tile * x.strides[1], kept[z % 3].ctypes.data
                above = row - x.strides[1] if tile > 0 else nothing
                below = row + 2 * x.strides[1] if 2 * tile + 2 < height else nothing
                for block in range(channels // LANES):
                    c, w = block * NARROW, block * WIDE
                    _transform(above + c, row + c, row + x.strides[1] + c, below + c, across, step, into + w, apart)
            if z <= planes[0]:
                continue
            before = kept[(z - 2) % 3 if z > 1 else 3].ctypes.data
            middle = kept[(z - 1) % 3].ctypes.data
            after = kept[z % 3 if z < depth else 3].ctypes.data
            row = out[(z - 1) % out.shape[0], 2 * tile].ctypes.data
            for n in range(filters.shape[0]):
                for point in range(POINTS):
                    weights, into = filters[n, point].ctypes.data, sums[point].ctypes.data
                    for at in range(0, sums.shape[1], TILES):
                        o = point * apart + at * kept.strides[2]
                        multiply_three(into + at * WIDE, before + o, middle + o, after + o, weights, channels)
                shift, into = bias.ctypes.data + n * WIDE, row + n * NARROW
                finish(
                    sums.ctypes.data, sums.strides[0], across, shift, slope.ctypes.data, rounds, into, out.strides[2]
                )


_SIGNATURE = (
    (read(U16, 4), I64, read(F32, 5), read(F32, 1), read(F32, 1), I64, read(I64, 1), read(I64, 1))
    + (made(U16, 4), made(F32, 4), made(F32, 3))
)  # fmt: skip


def compiled() -> Any:
    """`convolve_rows`, compiled or loaded."""
    return compile_loop(convolve_rows, _SIGNATURE)


class PlainLayer:
    """Makes some rows of some planes of such a convolution.

    Parameters
    ----------
    layer : Convolution
    depth, width : int — sides of the volume.
    """

    def __init__(self, layer: Convolution, depth: int, width: int) -> None:
        channels, tiles = layer.weights.shape[3], rounded_up(width // 2, TILES)
        self._loop = compiled()
        self._depth, self._filters, self._layer = depth, transformed_filters(layer.weights), layer
        self._slope = np.full(LANES, layer.slope, np.float32)
        self._spaces = Spaces(((4, POINTS, tiles, channels), np.float32), ((POINTS, tiles, LANES), np.float32))

    def make(self, source: np.ndarray, planes: np.ndarray, tiles: np.ndarray, out: np.ndarray) -> None:
        """As `convolve_rows`."""
        layer = self._layer
        self._loop(
            source,
            self._depth,
            self._filters,
            layer.bias,
            self._slope,
            layer.rounds,
            planes,
            tiles,
            out,
            *self._spaces.arrays,
        )
