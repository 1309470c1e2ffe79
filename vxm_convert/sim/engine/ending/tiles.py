# SPDX-License-Identifier: Apache-2.0
"""Convolutions of 3×3×3 with 4/9 of the products: Winograd's F(2×2, 3×3) along the last two axes, sums along the first.

Source: Winograd 1980; Lavin and Gray 2016 (arXiv:1509.09308), section 4.1, whose matrices Bᵀ, G and Aᵀ these are. A
tile is 2×2 voxels of the result and comes from 4×4 of the input, at 16 points:

    Y = Aᵀ [ Σ over planes and channels (G g Gᵀ) ⊙ (Bᵀ d B) ] A

Operands are on the fp16 grid, so that sums of two of them, and the filters' sums of up to nine, are nearly always exact
in fp32; products and sums round as those of any order of summation in fp32 do.

This file has what every such convolution shares: the products, and the way from their sums to fp16 results.
"""

from __future__ import annotations

from typing import Any, List

import numpy as np

from vxm_convert.sim.engine.ending.sizes import LANES
from vxm_convert.sim.engine.ending.vectors import (
    FLOAT,
    WIDE,
    ZERO,
    Loop,
    emitted,
    leaked,
    load,
    multiply_add,
    narrowed,
    number,
    plus,
    spread,
    store,
    widened,
)

#: tiles whose sums stay in registers: with a vector of filters and one of input, 16 of the 32 of AVX-512
TILES = 14
POINTS = 16
G = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])


def transformed_filters(weights: np.ndarray, g: np.ndarray = G) -> np.ndarray:
    """G g Gᵀ in blocks of sixteen outputs.

    Parameters
    ----------
    weights : ndarray, shape (P planes, 3, 3, C, N) — N a multiple of 16.
    g : ndarray, shape (n, 3).

    Returns
    -------
    ndarray, shape (N / 16, n² points, P, C, 16), float32.
    """
    planes, _, _, channels, outputs = weights.shape
    turned = np.einsum("iy,jx,zyxcn->ijzcn", g, g, weights.astype(np.float64)).astype(np.float32)
    blocks = turned.reshape(len(g) ** 2, planes, channels, outputs // LANES, LANES)
    return np.ascontiguousarray(blocks.transpose(3, 0, 1, 2, 4))


def differences(builder: Any, d: List[Any]) -> List[Any]:
    """Bᵀ d of four vectors."""
    return [builder.fsub(d[0], d[2]), builder.fadd(d[1], d[2]), builder.fsub(d[2], d[1]), builder.fsub(d[1], d[3])]


def _pair(builder: Any, m: List[Any]) -> List[Any]:
    """Aᵀ m of four vectors."""
    return [builder.fadd(m[0], builder.fadd(m[1], m[2])), builder.fsub(builder.fsub(m[1], m[2]), m[3])]


def _products(b: Any, sums: List[Any], plane: Any, filters: Any, channels: Any) -> List[Any]:
    """The sums, plus the products of one plane."""
    row = b.mul(channels, number(4))
    tiles = [plus(b, plane, row, tile) for tile in range(TILES)]
    with Loop(b, channels, sums) as turn:
        weight, offset = load(b, plus(b, filters, turn.index, WIDE)), b.mul(turn.index, number(4))
        values = [spread(b, load(b, b.add(tile, offset), FLOAT)) for tile in tiles]
        turn.hand_on([multiply_add(b, value, weight, total) for value, total in zip(values, turn.values)])
    return list(turn.result)


def _keep(b: Any, out: Any, sums: List[Any]) -> None:
    for tile, total in enumerate(sums):
        store(b, total, plus(b, out, WIDE, tile))


@emitted
def multiply_three(b: Any, out: Any, plane0: Any, plane1: Any, plane2: Any, filters: Any, channels: Any) -> None:
    """Sums over three planes and their channels, of `TILES` tiles at one point: sixteen outputs of each into `out`.

    A tile of a plane has `channels` numbers; `filters` are (3, channels, 16).
    """
    sums = [ZERO] * TILES
    for index, plane in enumerate((plane0, plane1, plane2)):
        sums = _products(b, sums, plane, plus(b, filters, channels, WIDE * index), channels)
    _keep(b, out, sums)


@emitted
def add_two(b: Any, out: Any, plane0: Any, plane1: Any, filters: Any, channels: Any) -> None:
    """Those of two planes, added to `out`; `filters` are (2, channels, 16)."""
    sums = [load(b, plus(b, out, WIDE, tile)) for tile in range(TILES)]
    for index, plane in enumerate((plane0, plane1)):
        sums = _products(b, sums, plane, plus(b, filters, channels, WIDE * index), channels)
    _keep(b, out, sums)


@emitted
def finish(
    b: Any, points: Any, apart: Any, tiles: Any, bias: Any, slope: Any, rounds: Any, out: Any, step: Any
) -> None:
    """Aᵀ m A, plus bias, through LeakyReLU, as fp16: sixteen channels of two rows of `out`, one behind the other.

    `apart` are the bytes from one point to the next, `step` those from one voxel of `out` to the next; with `rounds`
    the sum is rounded to fp16 before LeakyReLU, too.
    """
    bias, slope, rounds = load(b, bias), load(b, slope), b.icmp_signed("!=", rounds, number(0))
    with Loop(b, tiles) as turn:
        tile = plus(b, points, turn.index, WIDE)
        m = [load(b, plus(b, tile, apart, point)) for point in range(POINTS)]
        columns = [_pair(b, m[j::4]) for j in range(4)]
        voxel = plus(b, out, turn.index, 2, step)
        for i in range(2):
            for j, value in enumerate(_pair(b, [column[i] for column in columns])):
                value = b.fadd(value, bias)
                value = leaked(b, b.select(rounds, widened(b, narrowed(b, value)), value), slope)
                store(b, narrowed(b, value), plus(b, plus(b, voxel, step, j), tiles, 2 * i, step))
