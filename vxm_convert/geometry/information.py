# SPDX-License-Identifier: Apache-2.0
"""The loops of a search for an affine, for numba: mutual information by Mattes' estimate, its derivatives, and blurring.
Nothing else.

A point of the fixed image counts for one bin of its own intensity and for four of the moving one, with the weights of a
cubic B-spline (Mattes et al., IEEE TMI 22(1), 2003, as in ITK). Sums run over the points in their order on one thread, so
that the bits depend on nothing but the inputs; several searches run side by side.
"""

from __future__ import annotations

from typing import Any, Dict, Tuple

import numba
import numpy as np

from vxm_convert.geometry.kernels import F32, F64, I64, MATRIX, cell, inner, inside, made, read, slope

#: bins at both ends that stay empty, so that the spline does not leave the histogram
MARGIN = 2
#: place of a point outside the moving image
_OUTSIDE = np.float32(-1.0)


@inner
def _first_bin(at: float, bins: int) -> int:
    """The first of the four bins that a place between bins counts for."""
    return min(max(int(at), MARGIN), bins - MARGIN - 1) - 1


@inner
def _weights(at: float, first: int) -> Tuple[float, float, float, float]:
    """Cubic B-spline of a place between bins, at four bins."""
    x = at - first - 1.0
    y = 1.0 - x
    a, d = y * y * y / 6.0, x * x * x / 6.0
    b = 2.0 / 3.0 - x * x + 0.5 * x * x * x
    return a, b, 1.0 - a - b - d, d


@inner
def _slopes(at: float, first: int) -> Tuple[float, float, float, float]:
    """Derivatives of `_weights` by the place."""
    x = at - first - 1.0
    y = 1.0 - x
    return -0.5 * y * y, -2.0 * x + 1.5 * x * x, 2.0 * y - 1.5 * y * y, 0.5 * x * x


@inner
def _cell_slope(image: Any, x0: int, x1: int, y0: int, y1: int, z0: int, z1: int, w: Any) -> Any:
    """The value in a cell of an image at the fractions `w`, and its three derivatives."""
    p, q, r, s = image[x0, y0, z0], image[x0, y0, z1], image[x0, y1, z0], image[x0, y1, z1]
    e, f, g, h = image[x1, y0, z0], image[x1, y0, z1], image[x1, y1, z0], image[x1, y1, z1]
    return slope(p, q, r, s, e, f, g, h, w)


def counted(
    points: Any,
    own: Any,
    image: Any,
    steep: Any,
    m: Any,
    scale: float,
    shift: float,
    joint: Any,
    places: Any,
    slopes: Any,
) -> None:
    """The joint histogram, into `joint`; every point's place between bins and its derivatives by the voxel, into `places`
    and `slopes`.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float32 — mm.
    own : ndarray, shape (n,), uint8 — bins of the fixed image.
    image : ndarray, shape (X, Y, Z), float32.
    steep : ndarray, of the same shape — the image whose derivatives are taken; if empty, `image`.
    m : ndarray, shape (3, 4) — points to voxels of the image.
    scale, shift : the place between bins is intensity · scale + shift.
    joint : ndarray, shape (bins, bins) — zeros.
    """
    bins, two = joint.shape[1], steep.shape[0] > 0
    for n in range(points.shape[0]):
        a, b, c = points[n, 0], points[n, 1], points[n, 2]
        x = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + m[0, 3]
        y = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + m[1, 3]
        z = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + m[2, 3]
        x0, x1, u = cell(x, image.shape[0])
        y0, y1, v = cell(y, image.shape[1])
        z0, z1, w = cell(z, image.shape[2])
        value, dx, dy, dz = _cell_slope(image, x0, x1, y0, y1, z0, z1, (u, v, w))
        if two:
            _, dx, dy, dz = _cell_slope(steep, x0, x1, y0, y1, z0, z1, (u, v, w))
        at = value * scale + shift
        if not inside(x, y, z, image.shape):
            # Background goes on beyond the scan; a brain that is cut there does not.
            if at >= MARGIN + 1:
                places[n] = _OUTSIDE
                continue
            dx, dy, dz = 0.0, 0.0, 0.0
        first = _first_bin(at, bins)
        p, q, r, s = _weights(at, first)
        row = own[n]
        joint[row, first] += p
        joint[row, first + 1] += q
        joint[row, first + 2] += r
        joint[row, first + 3] += s
        places[n], slopes[n, 0], slopes[n, 1], slopes[n, 2] = at, dx, dy, dz


def pulled(points: Any, own: Any, places: Any, slopes: Any, table: Any, out: Any) -> None:
    """Sum over the points of: derivative of the `table` by the point's voxel, times the point and 1; shape (3, 4), into
    `out`, which must be 0.
    """
    bins = table.shape[1]
    for n in range(points.shape[0]):
        at = np.float64(places[n])
        if at < 0:
            continue
        first = _first_bin(at, bins)
        p, q, r, s = _slopes(at, first)
        row = own[n]
        force = (
            p * table[row, first] + q * table[row, first + 1] + r * table[row, first + 2] + s * table[row, first + 3]
        )
        for d in range(3):
            along = force * slopes[n, d]
            out[d, 0] += along * points[n, 0]
            out[d, 1] += along * points[n, 1]
            out[d, 2] += along * points[n, 2]
            out[d, 3] += along


@inner
def _blurred_rows(image: Any, weights: Any, step: int, out: Any) -> None:
    """`blurred` where the middle axis is the last: along rows in a buffer that continues their borders."""
    radius = weights.shape[0] // 2
    row, line = np.empty(image.shape[1] + 2 * radius, np.float32), np.empty(out.shape[1], np.float32)
    for i in range(out.shape[0]):
        for j in range(row.shape[0]):
            row[j] = image[i, min(max(j - radius, 0), image.shape[1] - 1), 0]
        for j in range(line.shape[0]):
            line[j] = weights[0] * row[j * step]
        for t in range(1, weights.shape[0], 2):
            v, w = weights[t], weights[t + 1]
            if step == 1:
                for j in range(line.shape[0]):
                    line[j] = (line[j] + v * row[j + t]) + w * row[j + t + 1]
            else:
                for j in range(line.shape[0]):
                    line[j] = (line[j] + v * row[j * step + t]) + w * row[j * step + t + 1]
        for j in range(line.shape[0]):
            out[i, j, 0] = line[j]


def blurred(image: Any, weights: Any, step: int, out: Any) -> None:
    """Weighted means along the middle axis, borders continued, of every `step`-th position.

    Parameters
    ----------
    weights : ndarray, odd length.
    """
    if out.shape[2] == 1:
        _blurred_rows(image, weights, step, out)
        return
    radius, last = weights.shape[0] // 2, image.shape[1] - 1
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            line, first = out[i, j], j * step - radius
            one = image[i, min(max(first, 0), last)]
            for k in range(line.shape[0]):
                line[k] = weights[0] * one[k]
            # Two at a time: half the loads and stores of sums.
            for t in range(1, weights.shape[0], 2):
                v, w = weights[t], weights[t + 1]
                one, two = image[i, min(max(first + t, 0), last)], image[i, min(max(first + t + 1, 0), last)]
                for k in range(line.shape[0]):
                    line[k] = (line[k] + v * one[k]) + w * two[k]


_POINTS, _BINS = read(F32, 2), read(numba.uint8, 1)
#: name → (function, types of its arguments), as in `kernels`
KERNELS: Dict[str, Tuple[Any, Tuple[Any, ...]]] = {
    "counted": (
        counted,
        (_POINTS, _BINS, read(F32, 3), read(F32, 3), MATRIX, F64, F64, made(F64, 2), made(F32, 1), made(F32, 2)),
    ),
    "pulled": (pulled, (_POINTS, _BINS, read(F32, 1), read(F32, 2), MATRIX, made(F64, 2))),
    "blurred": (blurred, (read(F32, 3), read(F32, 1), I64, made(F32, 3))),
}
