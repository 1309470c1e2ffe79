# SPDX-License-Identifier: Apache-2.0
"""A convolution of 3×3×3 of a volume that is doubled along every axis, with a few channels of full size beside it.

The doubled volume is never made. Along the tiles' axes four of its voxels are ``a₋₁, a₀, a₀, a₁``, for which Bᵀ d is
``a₋₁ − a₀, 2 a₀, 0, a₀ − a₁``: nine of the sixteen points are left (the 2 goes into the filters). Along the first axis
the taps on the same plane are added, as `rewrites/transposed.py` adds them: two are left of three.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np

from vxm_convert.geometry.compiled import compile_loop
from vxm_convert.geometry.kernels import F32, I64, U16, inner, made, read
from vxm_convert.sim.engine.ending.find import Convolution
from vxm_convert.sim.engine.ending.sizes import LANES
from vxm_convert.sim.engine.ending.spaces import Spaces, rounded_up
from vxm_convert.sim.engine.ending.tiles import POINTS, TILES, G, add_two, finish, multiply_three, transformed_filters
from vxm_convert.sim.engine.ending.vectors import (
    NARROW,
    WIDE,
    ZERO,
    Loop,
    emitted,
    load,
    narrowed,
    number,
    plus,
    round_all,
    store,
    widened,
)

#: points of the doubled volume among the sixteen
DOUBLED = np.array([4 * i + j for i in (0, 1, 3) for j in (0, 1, 3)])
_G = np.stack([G[0], 2.0 * G[1], G[3]])
#: weights of the three taps on each of two planes, for an even plane of the result and an odd one
_TAPS = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])


def doubled_filters(weights: np.ndarray) -> np.ndarray:
    """As `convolve_doubled` reads them.

    Parameters
    ----------
    weights : ndarray, shape (3, 3, 3, C, N) — C and N multiples of 16.

    Returns
    -------
    ndarray, shape (2, N / 16, 9 points, 2 planes, C, 16), float32 — first for even planes of the result.
    """
    return np.stack(
        [transformed_filters(np.einsum("pz,zyxcn->pyxcn", taps, weights.astype(np.float64)), _G) for taps in _TAPS]
    )


def _three(builder: Any, before: Any, here: Any, after: Any) -> List[Any]:
    return [builder.fsub(before, here), here, builder.fsub(here, after)]


@emitted
def _transform(b: Any, r0: Any, r1: Any, r2: Any, tiles: Any, step: Any, out: Any, apart: Any) -> None:
    """The nine points of all tiles of a row, sixteen channels of them, rounded to fp16 first.

    `r0` … `r2` are the addresses of three rows of float32; `step` are the bytes from one voxel, or tile of `out`, to the
    next, `apart` those from one point of it to the next.
    """

    def column(offset: Any) -> List[Any]:
        return _three(b, *(widened(b, narrowed(b, load(b, b.add(row, offset)))) for row in (r0, r1, r2)))

    last = b.sub(tiles, number(1))
    with Loop(b, tiles, [ZERO] * 3 + column(number(0))) as turn:
        here = b.mul(turn.index, step)
        inside = b.icmp_signed("<", turn.index, last)
        after = [b.select(inside, v, ZERO) for v in column(b.select(inside, b.add(here, step), number(0)))]
        for i in range(3):
            for j, value in enumerate(_three(b, turn.values[i], turn.values[3 + i], after[i])):
                store(b, value, plus(b, b.add(out, here), apart, 3 * i + j))
        turn.hand_on(list(turn.values[3:]) + after)


@inner
def _doubled_plane(a: Any, k: int, tile: int, kept: Any) -> None:
    """The transformed row of a plane of the small volume, where it exists."""
    depth, height, width, channels = a.shape
    if k < 0 or k >= depth:
        return
    row, into, nothing = a[k, tile].ctypes.data, kept[k % 3].ctypes.data, kept[3].ctypes.data
    above = row - a.strides[1] if tile > 0 else nothing
    below = row + a.strides[1] if tile + 1 < height else nothing
    for c in range(0, channels * 4, WIDE):
        _transform(above + c, row + c, below + c, width, a.strides[2], into + c, kept.strides[1])


@inner
def _beside_plane(x: Any, z: int, tile: int, lines: Any, kept: Any) -> None:
    """The transformed row of a plane of the channels of full size, number by number."""
    depth, height, length = x.shape
    channels = kept.shape[3]
    if z < 0 or z >= depth:
        return
    for r in range(4):
        y = 2 * tile - 1 + r
        inside = 0 <= y < height
        for n in range(length):
            lines[r, channels + n] = x[z, y, n] if inside else 0.0
    round_all(lines.ctypes.data, 4 * lines.shape[1] // LANES)
    for n in range(lines.shape[1]):
        d0, d1, d2, d3 = lines[0, n], lines[1, n], lines[2, n], lines[3, n]
        lines[4, n], lines[5, n], lines[6, n], lines[7, n] = d0 - d2, d1 + d2, d2 - d1, d1 - d3
    slot = z % 3
    for i in range(lines.shape[0] // 2):
        for across in range(length // channels // 2):
            for c in range(channels):
                at = 2 * across * channels + c
                d0, d1 = lines[4 + i, at], lines[4 + i, at + channels]
                d2, d3 = lines[4 + i, at + 2 * channels], lines[4 + i, at + 3 * channels]
                kept[slot, 4 * i, across, c], kept[slot, 4 * i + 1, across, c] = d0 - d2, d1 + d2
                kept[slot, 4 * i + 2, across, c], kept[slot, 4 * i + 3, across, c] = d2 - d1, d1 - d3


@inner
def _beside_products(z: int, depth: int, filters: Any, kept: Any, sums: Any) -> None:
    """The sums of the channels of full size at every point of a row of plane `z`."""
    before = kept[(z - 1) % 3 if z > 0 else 3].ctypes.data
    middle = kept[z % 3].ctypes.data
    after = kept[(z + 1) % 3 if z + 1 < depth else 3].ctypes.data
    for point in range(sums.shape[0]):
        for at in range(0, sums.shape[1], TILES):
            o, into = point * kept.strides[1] + at * kept.strides[2], sums[point, at].ctypes.data
            multiply_three(into, before + o, middle + o, after + o, filters[point].ctypes.data, kept.shape[3])


@inner
def _doubled_products(low: int, depth: int, filters: Any, kept: Any, sums: Any) -> None:
    """Adds those of the planes `low` and `low` + 1 of the small volume."""
    before = kept[low % 3 if low >= 0 else 3].ctypes.data
    after = kept[(low + 1) % 3 if low + 1 < depth else 3].ctypes.data
    for n in range(filters.shape[0]):
        for at in range(0, sums.shape[1], TILES):
            o, into = n * kept.strides[1] + at * kept.strides[2], sums[DOUBLED[n], at].ctypes.data
            add_two(into, before + o, after + o, filters[n].ctypes.data, kept.shape[3])


def convolve_doubled(
    a: Any,
    x: Any,
    filters: Any,
    beside: Any,
    bias: Any,
    slope: Any,
    rounds: int,
    planes: Any,
    tiles: Any,
    out: Any,
    kept: Any,
    kept_beside: Any,
    lines: Any,
    sums: Any,
) -> None:
    """Some rows of some planes of the convolution, its bias and LeakyReLU.

    Parameters
    ----------
    a : ndarray, shape (D / 2, H / 2, W / 2, C), float32 — C a multiple of 16; rounded to fp16 here.
    x : ndarray, shape (D, H, W · S), float32 — the S channels beside, behind those of `a`; rounded to fp16 here.
    filters : ndarray — of `doubled_filters`, for `a`.
    beside : ndarray — of `tiles.transformed_filters`, for `x`.
    bias, slope, rounds, planes, tiles, out, sums : as of `plain.convolve_rows`.
    kept : ndarray, shape (4, 9, M, C), float32 — work space, the fourth all zeros.
    kept_beside : ndarray, shape (4, 16, M, S), float32 — the same for `x`.
    lines : ndarray, shape (8, L), float32 — work space of zeros; L is (W + 2) · S rounded up to 16.
    """
    depth, across = x.shape[0], a.shape[2]
    for tile in range(tiles[0], tiles[1]):
        made_until = (planes[0] + 1) // 2 - 2
        for z in range(planes[0] - 1, planes[1] + 1):
            _beside_plane(x, z, tile, lines, kept_beside)
            if z <= planes[0]:
                continue
            # An even plane 2k of the result is made from planes k − 1 and k, an odd one from k and k + 1.
            low = z // 2 - 1
            while made_until <= low:
                made_until += 1
                _doubled_plane(a, made_until, tile, kept)
            row = out[(z - 1) % out.shape[0], 2 * tile].ctypes.data
            for n in range(beside.shape[0]):
                _beside_products(z - 1, depth, beside[n], kept_beside, sums)
                _doubled_products(low, a.shape[0], filters[(z - 1) % 2, n], kept, sums)
                shift, into = bias.ctypes.data + n * WIDE, row + n * NARROW
                finish(
                    sums.ctypes.data, sums.strides[0], across, shift, slope.ctypes.data, rounds, into, out.strides[2]
                )


_SIGNATURE = (
    (read(F32, 4), read(F32, 3), read(F32, 6), read(F32, 5), read(F32, 1), read(F32, 1), I64)
    + (read(I64, 1), read(I64, 1), made(U16, 4), made(F32, 4), made(F32, 4), made(F32, 2), made(F32, 3))
)  # fmt: skip


def compiled() -> Any:
    """`convolve_doubled`, compiled or loaded."""
    return compile_loop(convolve_doubled, _SIGNATURE)


class DoubledLayer:
    """Makes some rows of some planes of such a convolution.

    Parameters
    ----------
    layer : Convolution — of the doubled channels and those beside them.
    doubled : int — number of the first.
    width : int — last side of the volume.
    """

    def __init__(self, layer: Convolution, doubled: int, width: int) -> None:
        others, tiles = layer.weights.shape[3] - doubled, rounded_up(width // 2, TILES)
        self._loop = compiled()
        self._filters = doubled_filters(layer.weights[:, :, :, :doubled])
        self._beside = transformed_filters(layer.weights[:, :, :, doubled:])
        self._layer, self._slope = layer, np.full(LANES, layer.slope, np.float32)
        self._spaces = Spaces(
            ((4, len(DOUBLED), tiles, doubled), np.float32),
            ((4, POINTS, tiles, others), np.float32),
            ((8, rounded_up((width + 2) * others, LANES)), np.float32),
            ((POINTS, tiles, LANES), np.float32),
        )

    def make(
        self, sources: Tuple[np.ndarray, np.ndarray], planes: np.ndarray, tiles: np.ndarray, out: np.ndarray
    ) -> None:
        """As `convolve_doubled`, from the small volume and the channels beside."""
        small, beside = sources
        sources = small, beside.reshape(beside.shape[:2] + (-1,))
        layer, filters = self._layer, (self._filters, self._beside)
        self._loop(*sources, *filters, layer.bias, self._slope, layer.rounds, planes, tiles, out, *self._spaces.arrays)
