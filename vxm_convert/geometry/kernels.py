# SPDX-License-Identifier: Apache-2.0
"""The host's loops over voxels, for numba: resampling, composition, frames, determinants, inversion. Nothing else.

Every kernel fills the planes of `out`, which start at plane `start` of the whole grid. A plane depends on nothing but
the inputs, so the bits do not depend on the division into slabs or on threads. `compiled` loads and calls the kernels;
this module is imported on first use, because it imports numba.

Positions are float64 and formed in the loop: m = M x (+ u), with a 3 x 4 matrix M of voxels to voxels. An array
without voxels in place of `u` means no displacement.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Tuple, TypeVar

import numba
import numpy as np

#: determinant of derivatives, relative to that of the affine part, below which Newton's step is not taken
_FLAT = 0.05

_Function = TypeVar("_Function", bound=Callable[..., Any])


def inner(function: _Function) -> _Function:
    """For what the kernels call; compiled as part of each of them, and not to be called from Python or C."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    found: _Function = numba.njit(nogil=True, error_model="numpy", **options)(function)
    return found


@inner
def _clamp(value: float, side: int) -> float:
    """To the voxel centres 0 … side − 1; NaN becomes 0."""
    if value >= 0.0:
        return value if value <= side - 1 else side - 1.0
    return 0.0


@inner
def inside(x: float, y: float, z: float, shape: Tuple[int, ...]) -> bool:
    """Whether a position is in the box of the voxels."""
    return x >= -0.5 and y >= -0.5 and z >= -0.5 and x < shape[0] - 0.5 and y < shape[1] - 0.5 and z < shape[2] - 0.5


@inner
def _moved(m: Any, i: int, j: int, k: int, u: Any, n: int) -> Tuple[float, float, float]:
    """M x, plus the displacement of plane `n` of `u` if there is one."""
    x = m[0, 0] * i + m[0, 1] * j + m[0, 3] + m[0, 2] * k
    y = m[1, 0] * i + m[1, 1] * j + m[1, 3] + m[1, 2] * k
    z = m[2, 0] * i + m[2, 1] * j + m[2, 3] + m[2, 2] * k
    if u.shape[0]:
        x += u[n, j, k, 0]
        y += u[n, j, k, 1]
        z += u[n, j, k, 2]
    return x, y, z


@inner
def cell(value: float, side: int) -> Tuple[int, int, float]:
    """The two voxels around a clamped coordinate, and the weight of the second."""
    value = _clamp(value, side)
    low = int(value)
    return low, min(low + 1, side - 1), value - low


def linear(image: Any, m: Any, u: Any, start: int, zero: bool, fill: float, out: Any) -> None:
    """Linear interpolation of `image`, borders continued; outside its box `fill` if `zero`.

    A voxel that is not finite makes the result NaN, but where its weight is 0 (below 1e-5).
    """
    for n in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                x, y, z = _moved(m, start + n, j, k, u, n)
                if zero and not inside(x, y, z, image.shape):
                    out[n, j, k] = fill
                    continue
                x0, x1, a = cell(x, image.shape[0])
                y0, y1, b = cell(y, image.shape[1])
                z0, z1, c = cell(z, image.shape[2])
                a0 = (image[x0, y0, z0] * (1 - c) + image[x0, y0, z1] * c) * (1 - b)
                a0 += (image[x0, y1, z0] * (1 - c) + image[x0, y1, z1] * c) * b
                a1 = (image[x1, y0, z0] * (1 - c) + image[x1, y0, z1] * c) * (1 - b)
                a1 += (image[x1, y1, z0] * (1 - c) + image[x1, y1, z1] * c) * b
                found = a0 * (1 - a) + a1 * a
                out[n, j, k] = (
                    found if math.isfinite(found) else _linear_of_finite(image, x0, x1, a, y0, y1, b, z0, z1, c)
                )


@inner
def _linear_of_finite(
    image: Any, x0: int, x1: int, a: float, y0: int, y1: int, b: float, z0: int, z1: int, c: float
) -> float:
    total, lost = 0.0, 0.0
    for corner in range(8):
        x, wx = (x1, a) if corner & 4 else (x0, 1 - a)
        y, wy = (y1, b) if corner & 2 else (y0, 1 - b)
        z, wz = (z1, c) if corner & 1 else (z0, 1 - c)
        value, weight = image[x, y, z], wx * wy * wz
        if math.isfinite(value):
            total += weight * value
        else:
            lost += weight
    result: float = total if lost <= 1e-5 else np.nan
    return result


def nearest(shape: Tuple[int, int, int], m: Any, u: Any, start: int, zero: bool, out: Any) -> None:
    """Flat index (C order) of the voxel at the rounded position, half to even, clamped to `shape`; −1 outside its box
    if `zero`.
    """
    for n in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                x, y, z = _moved(m, start + n, j, k, u, n)
                if zero and not inside(x, y, z, shape):
                    out[n, j, k] = -1
                    continue
                # Clamped first: a whole number stays itself, and a large one does not overflow.
                x = np.rint(_clamp(x, shape[0]))
                y = np.rint(_clamp(y, shape[1]))
                z = np.rint(_clamp(z, shape[2]))
                out[n, j, k] = (int(x) * shape[1] + int(y)) * shape[2] + int(z)


@inner
def _false() -> bool:
    """False as any other bool: numba compiles callees once more for the constant."""
    return bool(0)


@inner
def _vote(image: Any, x: float, y: float, z: float, found: Any, weight: Any) -> int:
    """The label with the largest linear weight among the eight voxels; of those within 1e-9 of it, the smallest."""
    x0, x1, a = cell(x, image.shape[0])
    y0, y1, b = cell(y, image.shape[1])
    z0, z1, c = cell(z, image.shape[2])
    used = 0
    for corner in range(8):
        px, wx = (x1, a) if corner & 4 else (x0, 1 - a)
        py, wy = (y1, b) if corner & 2 else (y0, 1 - b)
        pz, wz = (z1, c) if corner & 1 else (z0, 1 - c)
        label, at = image[px, py, pz], 0
        while at < used and found[at] != label:
            at += 1
        if at == used:
            found[used], weight[used] = label, 0.0
            used += 1
        weight[at] += wx * wy * wz
    largest = weight[0]
    for at in range(1, used):
        largest = max(largest, weight[at])
    best = -1
    for at in range(used):
        if weight[at] > largest - 1e-9 and (best < 0 or found[at] < found[best]):
            best = at
    winner: int = found[best]
    return winner


def labels(image: Any, m: Any, u: Any, start: int, zero: bool, fill: int, found: Any, weight: Any, out: Any) -> None:
    """The label with the largest linearly interpolated indicator; the smaller label wins a tie (sums within 1e-9).

    Parameters
    ----------
    found, weight : ndarray, shape (8,), int32 and float64 — work space.
    """
    for n in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                x, y, z = _moved(m, start + n, j, k, u, n)
                if zero and not inside(x, y, z, image.shape):
                    out[n, j, k] = fill
                else:
                    out[n, j, k] = _vote(image, x, y, z, found, weight)


@inner
def _at(field: Any, x: float, y: float, z: float, skew: Any, zero: bool) -> Tuple[float, float, float]:
    """The moving voxel of a warp at a fractional fixed voxel.

    Beyond the grid the displacement in space is that of the border c: c + u(c) + skew (x − c), with skew = A_M⁻¹ A_F in
    3 x 4; or, if `zero`, there is none: skew x.
    """
    if zero and not inside(x, y, z, field.shape[:3]):
        return (
            skew[0, 0] * x + skew[0, 1] * y + skew[0, 2] * z + skew[0, 3],
            skew[1, 0] * x + skew[1, 1] * y + skew[1, 2] * z + skew[1, 3],
            skew[2, 0] * x + skew[2, 1] * y + skew[2, 2] * z + skew[2, 3],
        )
    x0, x1, a = cell(x, field.shape[0])
    y0, y1, b = cell(y, field.shape[1])
    z0, z1, c = cell(z, field.shape[2])
    v = (float(field[x0, y0, z0, 0]), float(field[x0, y0, z0, 1]), float(field[x0, y0, z0, 2]))
    # On a voxel of the field, as all are where two grids differ by whole voxels, the other seven weigh nothing.
    if a != 0.0 or b != 0.0 or c != 0.0:
        w00, w01, w10, w11 = (1 - b) * (1 - c), (1 - b) * c, b * (1 - c), b * c
        v = (0.0, 0.0, 0.0)
        for px, w in ((x0, 1 - a), (x1, a)):
            q00, q01, q10, q11 = field[px, y0, z0], field[px, y0, z1], field[px, y1, z0], field[px, y1, z1]
            v = (
                v[0] + w * (w00 * q00[0] + w01 * q01[0] + w10 * q10[0] + w11 * q11[0]),
                v[1] + w * (w00 * q00[1] + w01 * q01[1] + w10 * q10[1] + w11 * q11[1]),
                v[2] + w * (w00 * q00[2] + w01 * q01[2] + w10 * q10[2] + w11 * q11[2]),
            )
    cx, cy, cz = x0 + a, y0 + b, z0 + c
    dx, dy, dz = x - cx, y - cy, z - cz
    if dx == 0.0 and dy == 0.0 and dz == 0.0:
        return cx + v[0], cy + v[1], cz + v[2]
    return (
        cx + v[0] + skew[0, 0] * dx + skew[0, 1] * dy + skew[0, 2] * dz,
        cy + v[1] + skew[1, 0] * dx + skew[1, 1] * dy + skew[1, 2] * dz,
        cz + v[2] + skew[2, 0] * dx + skew[2, 1] * dy + skew[2, 2] * dz,
    )


def compose(before: Any, field: Any, skew: Any, after: Any, zero: bool, start: int, out: Any) -> None:
    """Displacement of: `before` (to a warp's fixed voxels), the warp, `after` (from its moving voxels)."""
    none = field[:0]
    for n in range(out.shape[0]):
        i = start + n
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                x, y, z = _moved(before, i, j, k, none, n)
                x, y, z = _at(field, x, y, z, skew, zero)
                out[n, j, k, 0] = after[0, 0] * x + after[0, 1] * y + after[0, 2] * z + after[0, 3] - i
                out[n, j, k, 1] = after[1, 0] * x + after[1, 1] * y + after[1, 2] * z + after[1, 3] - j
                out[n, j, k, 2] = after[2, 0] * x + after[2, 1] * y + after[2, 2] * z + after[2, 3] - k


def through(before: Any, field: Any, skew: Any, zero: bool, points: Any) -> None:
    """Points (n, 3) in place: `before` (to a warp's fixed voxels), then the warp, to its moving voxels."""
    for n in range(points.shape[0]):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        points[n, 0], points[n, 1], points[n, 2] = _at(
            field,
            before[0, 0] * x + before[0, 1] * y + before[0, 2] * z + before[0, 3],
            before[1, 0] * x + before[1, 1] * y + before[1, 2] * z + before[1, 3],
            before[2, 0] * x + before[2, 1] * y + before[2, 2] * z + before[2, 3],
            skew,
            zero,
        )


def linear_map(field: Any, turn: Any, along: Any, start: int, out: Any) -> None:
    """A field in another frame: turn v + along x, with a 3 x 3 and a 3 x 4 matrix."""
    for n in range(out.shape[0]):
        i = start + n
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                a, b, c = float(field[n, j, k, 0]), float(field[n, j, k, 1]), float(field[n, j, k, 2])
                for d in range(3):
                    base = along[d, 0] * i + along[d, 1] * j + along[d, 2] * k + along[d, 3]
                    out[n, j, k, d] = turn[d, 0] * a + turn[d, 1] * b + turn[d, 2] * c + base


def component(field: Any, turn: Any, along: Any, start: int, out: Any) -> None:
    """One component of `linear_map`, by a row of either matrix, in the order of files: `out` is (planes, Y, X), its planes
    start at `start` of the third axis.
    """
    for j in range(out.shape[1]):
        # A few voxels of the field in all planes before the next few: the field is in another order, and so is read once.
        for first in range(0, out.shape[2], 16):
            for n in range(out.shape[0]):
                k = start + n
                for i in range(first, min(first + 16, out.shape[2])):
                    a, b, c = float(field[i, j, k, 0]), float(field[i, j, k, 1]), float(field[i, j, k, 2])
                    base = along[0] * i + along[1] * j + along[2] * k + along[3]
                    out[n, j, i] = turn[0] * a + turn[1] * b + turn[2] * c + base


@inner
def _volume(a: Any, b: Any, c: Any) -> float:
    """Determinant of three columns."""
    x, y, z = b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]
    volume: float = a[0] * x + a[1] * y + a[2] * z
    return volume


@inner
def _neighbours(at: int, side: int) -> Tuple[int, int, float]:
    """The voxels of a central difference, one-sided at the faces, and the factor to twice the derivative."""
    low, high = max(at - 1, 0), min(at + 1, side - 1)
    return low, high, 2.0 / (high - low)


@inner
def _difference(one: Any, other: Any, factor: float) -> Tuple[float, float, float]:
    """Of two vectors, times `factor`."""
    return (
        (float(one[0]) - float(other[0])) * factor,
        (float(one[1]) - float(other[1])) * factor,
        (float(one[2]) - float(other[2])) * factor,
    )


def determinant(u: Any, scale: float, start: int, out: Any) -> None:
    """Determinant of I + du/dx by central differences, times `scale`."""
    for n in range(out.shape[0]):
        i = start + n
        i0, i1, si = _neighbours(i, u.shape[0])
        for j in range(out.shape[1]):
            j0, j1, sj = _neighbours(j, u.shape[1])
            for k in range(out.shape[2]):
                k0, k1, sk = _neighbours(k, u.shape[2])
                a = _difference(u[i1, j, k], u[i0, j, k], si)
                b = _difference(u[i, j1, k], u[i, j0, k], sj)
                c = _difference(u[i, j, k1], u[i, j, k0], sk)
                twice = _volume((a[0] + 2.0, a[1], a[2]), (b[0], b[1] + 2.0, b[2]), (c[0], c[1], c[2] + 2.0))
                out[n, j, k] = twice * 0.125 * scale


@inner
def slope(q000: Any, q001: Any, q010: Any, q011: Any, q100: Any, q101: Any, q110: Any, q111: Any, w: Any) -> Any:
    """One component in a cell with eight corners at the fractions `w`: its value and its three derivatives."""
    a, b, c = w
    d00, d01, d10, d11 = q100 - q000, q101 - q001, q110 - q010, q111 - q011
    e00, e01, e10, e11 = q000 + a * d00, q001 + a * d01, q010 + a * d10, q011 + a * d11
    f0, f1 = e10 - e00, e11 - e01
    g0, g1 = e00 + b * f0, e01 + b * f1
    h0, h1 = d00 + b * (d10 - d00), d01 + b * (d11 - d01)
    return g0 + c * (g1 - g0), h0 + c * (h1 - h0), f0 + c * (f1 - f0), g1 - g0


@inner
def _linearised(field: Any, skew: Any, x: float, y: float, z: float) -> Any:
    """`_at` with border continued, and its three columns of derivatives."""
    x0, x1, a = cell(x, field.shape[0])
    y0, y1, b = cell(y, field.shape[1])
    z0, z1, c = cell(z, field.shape[2])
    w = (a, b, c)
    p, q, r, s = field[x0, y0, z0], field[x0, y0, z1], field[x0, y1, z0], field[x0, y1, z1]
    e, f, g, h = field[x1, y0, z0], field[x1, y0, z1], field[x1, y1, z0], field[x1, y1, z1]
    vx, xx, xy, xz = slope(p[0], q[0], r[0], s[0], e[0], f[0], g[0], h[0], w)
    vy, yx, yy, yz = slope(p[1], q[1], r[1], s[1], e[1], f[1], g[1], h[1], w)
    vz, zx, zy, zz = slope(p[2], q[2], r[2], s[2], e[2], f[2], g[2], h[2], w)
    cx, cy, cz = x0 + a, y0 + b, z0 + c
    dx, dy, dz = x - cx, y - cy, z - cz
    at = (
        cx + vx + skew[0, 0] * dx + skew[0, 1] * dy + skew[0, 2] * dz,
        cy + vy + skew[1, 0] * dx + skew[1, 1] * dy + skew[1, 2] * dz,
        cz + vz + skew[2, 0] * dx + skew[2, 1] * dy + skew[2, 2] * dz,
    )
    # Beyond the border along an axis, only the skew moves the point along it.
    gx = (1.0 + xx, yx, zx) if dx == 0.0 else (skew[0, 0], skew[1, 0], skew[2, 0])
    gy = (xy, 1.0 + yy, zy) if dy == 0.0 else (skew[0, 1], skew[1, 1], skew[2, 1])
    gz = (xz, yz, 1.0 + zz) if dz == 0.0 else (skew[0, 2], skew[1, 2], skew[2, 2])
    return at, gx, gy, gz


@inner
def _newton(field: Any, skew: Any, p: Any, unit: float) -> Any:
    """The rows of the inverse of the derivatives at p; first of all whether there is one: False if their determinant,
    times `unit`, is too small.
    """
    _, a, b, c = _linearised(field, skew, p[0], p[1], p[2])
    whole = _volume(a, b, c)
    if not whole * unit > _FLAT:
        return False, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    return True, _cross(b, c, whole), _cross(c, a, whole), _cross(a, b, whole)


@inner
def _cross(a: Any, b: Any, over: float) -> Tuple[float, float, float]:
    return ((a[1] * b[2] - a[2] * b[1]) / over, (a[2] * b[0] - a[0] * b[2]) / over, (a[0] * b[1] - a[1] * b[0]) / over)


@inner
def _step(rows: Any, back: Any, r: Any, newton: bool) -> Tuple[float, float, float]:
    """What a residual r asks for: by the `rows` of `_newton` if there are any and they are wanted, else by `back`."""
    good, a, b, c = rows
    if not (good and newton):
        return _times(back, r)
    return (
        a[0] * r[0] + a[1] * r[1] + a[2] * r[2],
        b[0] * r[0] + b[1] * r[1] + b[2] * r[2],
        c[0] * r[0] + c[1] * r[1] + c[2] * r[2],
    )


@inner
def _length_mm(mm: Any, r: Any) -> float:
    x = mm[0, 0] * r[0] + mm[0, 1] * r[1] + mm[0, 2] * r[2]
    y = mm[1, 0] * r[0] + mm[1, 1] * r[1] + mm[1, 2] * r[2]
    z = mm[2, 0] * r[0] + mm[2, 1] * r[1] + mm[2, 2] * r[2]
    return math.sqrt(x * x + y * y + z * z)


@inner
def _times(m: Any, r: Any) -> Tuple[float, float, float]:
    return (
        m[0, 0] * r[0] + m[0, 1] * r[1] + m[0, 2] * r[2],
        m[1, 0] * r[0] + m[1, 1] * r[1] + m[1, 2] * r[2],
        m[2, 0] * r[0] + m[2, 1] * r[1] + m[2, 2] * r[2],
    )


@inner
def _preimage(
    field: Any,
    skew: Any,
    back: Any,
    mm: Any,
    unit: float,
    q: Any,
    p: Any,
    rows: Any,
    newton: bool,
    tolerance: float,
    most: int,
) -> Any:
    """Iterations from p: Newton's step where the map keeps orientation, else the affine one; halved while it does not
    help. `rows` are those of `_newton` at a neighbour, good enough for a first step that most often is the last.
    Returns point, residual in mm, and `rows` for the next neighbour.
    """
    trial, residual, factor, borrowed = p, np.inf, 1.0, newton and rows[0]
    r, step = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    for n in range(most):
        at = _at(field, trial[0], trial[1], trial[2], skew, _false())
        s = (q[0] - at[0], q[1] - at[1], q[2] - at[2])
        found = _length_mm(mm, s)
        helps = found < residual
        if helps:
            p, r, residual = trial, s, found
            if residual <= tolerance:
                break
            factor = min(1.0, 2.0 * factor) if newton else factor
        elif not borrowed:
            factor *= 0.5
            if factor < 1e-3:
                break
        if helps or borrowed:
            if n > 0 or not borrowed:
                borrowed = False
                if newton:
                    rows = _newton(field, skew, p, unit)
            step = _step(rows, back, r, newton)
        trial = (p[0] + factor * step[0], p[1] + factor * step[1], p[2] + factor * step[2])
    return p, residual, rows


@inner
def _flags(p: Any, solved: bool, folded: Any) -> int:
    """1 where `folded` is set at the voxel nearest to p, 2 if not solved, 4 outside its grid."""
    flags = 0 if solved else 2
    if not inside(p[0], p[1], p[2], folded.shape):
        return flags + 4
    x = int(np.rint(_clamp(p[0], folded.shape[0])))
    y = int(np.rint(_clamp(p[1], folded.shape[1])))
    z = int(np.rint(_clamp(p[2], folded.shape[2])))
    return flags + 1 if folded[x, y, z] else flags


def invert(
    field: Any,
    skew: Any,
    back: Any,
    home: Any,
    to_moving: Any,
    mm: Any,
    folded: Any,
    tolerance: float,
    most: int,
    start: int,
    row: Any,
    u: Any,
    residuals: Any,
    mask: Any,
) -> None:
    """Preimage of every voxel of a grid under a warp.

    Searched is its distance e from the affine preimage (`home`, 3 x 4: target to fixed voxels). It starts from the row
    before, to which the last two voxels' differences from that row are continued. What is not solved from there is tried
    again by the damped affine iteration (`back`, 3 x 3) from the affine preimage. `to_moving`: target to moving voxels;
    `mm`: moving voxels to mm. `mask`: 1 where `folded` at the preimage, 2 not solved, 4 outside; there `residuals` are −1.
    `row`, shape (Z, 3), is work space.
    """
    none = field[:0]
    # Determinants are judged by that of the affine part, which may mirror the voxels.
    unit = _volume(_times(back, (1.0, 0.0, 0.0)), _times(back, (0.0, 1.0, 0.0)), _times(back, (0.0, 0.0, 1.0)))
    for n in range(u.shape[0]):
        i = start + n
        row[:] = 0.0
        for j in range(u.shape[1]):
            d, before = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
            rows = (_false(), d, d, d)
            for k in range(u.shape[2]):
                q = _moved(to_moving, i, j, k, none, n)
                first = _moved(home, i, j, k, none, n)
                begin = (
                    first[0] + row[k, 0] + 2 * d[0] - before[0],
                    first[1] + row[k, 1] + 2 * d[1] - before[1],
                    first[2] + row[k, 2] + 2 * d[2] - before[2],
                )
                p, residual = first, np.inf
                for newton in (True, False):
                    found, left, rows = _preimage(field, skew, back, mm, unit, q, begin, rows, newton, tolerance, most)
                    if left < residual:
                        p, residual = found, left
                    if residual <= tolerance:
                        break
                    begin = first
                e = (p[0] - first[0], p[1] - first[1], p[2] - first[2])
                if not residual <= tolerance:
                    e = (0.0, 0.0, 0.0)
                before, d = d, (e[0] - row[k, 0], e[1] - row[k, 1], e[2] - row[k, 2])
                if k == 0:
                    before = d
                row[k, 0], row[k, 1], row[k, 2] = e
                u[n, j, k, 0], u[n, j, k, 1], u[n, j, k, 2] = p[0] - i, p[1] - j, p[2] - k
                mask[n, j, k] = _flags(p, residual <= tolerance, folded)
                residuals[n, j, k] = residual if mask[n, j, k] < 4 else -1.0


def there_and_back(u: Any, between: Any, field: Any, skew: Any, mm: Any, start: int, out: Any) -> None:
    """Distance in mm of a voxel from itself after displacement `u`, `between` (3 x 4, to the fixed voxels of `field`)
    and the warp `field`; −1 where it leaves the grid of `field`.
    """
    for n in range(out.shape[0]):
        i = start + n
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                q = (i + float(u[i, j, k, 0]), j + float(u[i, j, k, 1]), k + float(u[i, j, k, 2]))
                t = _times(between, q)
                x, y, z = t[0] + between[0, 3], t[1] + between[1, 3], t[2] + between[2, 3]
                if not inside(x, y, z, field.shape[:3]):
                    out[n, j, k] = -1.0
                    continue
                p = _at(field, x, y, z, skew, _false())
                out[n, j, k] = _length_mm(mm, (p[0] - i, p[1] - j, p[2] - k))


def spread(values: Any, bits: Any, counts: Any) -> Any:
    """Sum and largest of the values that are at least 0; and how many of them have which upper 16 bits, into `counts`.

    Parameters
    ----------
    values, bits : ndarray, shape (n,), float32, int32 — the same memory, whose bits are in the order of the values.
    counts : ndarray, shape (32768,) — zeros.
    """
    total, largest = 0.0, 0.0
    for n in range(values.shape[0]):
        if values[n] >= 0.0:
            total += values[n]
            largest = max(largest, values[n])
            counts[bits[n] >> 16] += 1
    return total, largest


F32, F64, I32, I64, U16 = numba.float32, numba.float64, numba.int32, numba.int64, numba.uint16


def read(kind: Any, axes: int) -> Any:
    """An array that a kernel only reads: accepts arrays that must not be written, too."""
    return numba.types.Array(kind, axes, "C", readonly=True)


def made(kind: Any, axes: int) -> Any:
    return numba.types.Array(kind, axes, "C")


MATRIX, _FIELD, _PLANES = read(F64, 2), read(F32, 4), made(F32, 3)
_SHAPE = numba.types.UniTuple(I64, 3)
BOOL = numba.boolean
#: name → (function, types of its arguments); one signature each: every further one costs seconds of compilation
KERNELS: Dict[str, Tuple[Any, Tuple[Any, ...]]] = {
    "linear": (linear, (read(F32, 3), MATRIX, _FIELD, I64, BOOL, F64, _PLANES)),
    "nearest": (nearest, (_SHAPE, MATRIX, _FIELD, I64, BOOL, made(I64, 3))),
    "labels": (labels, (read(I32, 3), MATRIX, _FIELD, I64, BOOL, I64, made(I32, 1), made(F64, 1), made(I32, 3))),
    "compose": (compose, (MATRIX, _FIELD, MATRIX, MATRIX, BOOL, I64, made(F32, 4))),
    "through": (through, (MATRIX, _FIELD, MATRIX, BOOL, made(F64, 2))),
    "linear_map": (linear_map, (_FIELD, MATRIX, MATRIX, I64, made(F32, 4))),
    "component": (component, (_FIELD, read(F64, 1), read(F64, 1), I64, _PLANES)),
    "determinant": (determinant, (_FIELD, F64, I64, _PLANES)),
    "invert": (
        invert,
        (_FIELD, MATRIX, MATRIX, MATRIX, MATRIX, MATRIX, read(numba.uint8, 3), F64, I64, I64)
        + (made(F64, 2), made(F32, 4), _PLANES, made(numba.uint8, 3)),
    ),
    "spread": (spread, (read(F32, 1), read(I32, 1), made(I64, 1))),
    "there_and_back": (there_and_back, (_FIELD, MATRIX, _FIELD, MATRIX, MATRIX, I64, _PLANES)),
}
