# SPDX-License-Identifier: Apache-2.0
"""Figures of one tensor against another: the ten of Ascend's comparer, overflow, and flips of discontinuous results."""

from __future__ import annotations

import math
from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np

from vxm_convert.ascend.limits import HALF_MAX
from vxm_convert.metrics.tensors import compare_tensors

_CHUNK = 1 << 20


def chunks(*arrays: np.ndarray) -> Iterator[Tuple[np.ndarray, ...]]:
    """Equal parts of equally large arrays as flat float64, so that no copy of a whole tensor is made."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _CHUNK):
        yield tuple(part[start : start + _CHUNK].astype(np.float64) for part in flat)


def figures(test: np.ndarray, reference: np.ndarray) -> Dict[str, Any]:
    """The ten figures under the comparer's names and definitions, ``not_finite`` (pairs with NaN or infinity) and
    ``reason``.

    Unlike the comparer's, ``RelativeEuclideanDistance`` is infinite if such a pair exists, or if the reference is zero
    and the tensor is not: such a tensor must never count as good.
    """
    found = compare_tensors(test, reference)
    bad = found.stats.nan_count + found.stats.inf_count
    made = {**found.ascend.to_dict(), "not_finite": bad, "reason": found.ascend.reason}
    if bad or (found.stats.relative_euclidean is None and found.stats.max_abs > 0):
        made["RelativeEuclideanDistance"] = math.inf
    return made


def overflow(test: np.ndarray) -> str:
    """``NaN``, ``YES`` for a value at or beyond the end of fp16's range, or ``NO``, as in the comparer."""
    if test.dtype.kind != "f":
        return "NO"
    found = "NO"
    for (values,) in chunks(test):
        if np.isnan(values).any():
            return "NaN"
        if (test.dtype == np.float16 and (np.abs(values) >= HALF_MAX).any()) or np.isinf(values).any():
            found = "YES"
    return found


def flips(
    test: np.ndarray, reference: np.ndarray, distance: Optional[Tuple[str, np.ndarray, np.ndarray]]
) -> Tuple[float, Optional[float]]:
    """How a discontinuous result differs.

    Parameters
    ----------
    distance : (kind, a, b) or None — arguments of `boundary_distance`.

    Returns
    -------
    (share of elements that differ, largest distance of such an element's golden input from the boundary that it
    crossed)
    """
    differing = 0
    farthest: Optional[float] = None
    operands = () if distance is None else distance[1:]
    for parts in chunks(test, reference, *operands):
        other = parts[0] != parts[1]
        differing += int(other.sum())
        if distance is not None and other.any():
            far = float(boundary_distance(distance[0], parts[2][other], parts[3][other]).max())
            farthest = far if farthest is None else max(farthest, far)
    return differing / max(test.size, 1), farthest


def boundary_distance(kind: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of inputs from the nearest value at which the result jumps.

    Parameters
    ----------
    kind : str — ``integer`` (Floor, Ceil, Cast), ``half`` (Round, Rint) or ``equal`` (comparisons of `a` with `b`).
    """
    if kind == "equal":
        return np.abs(a - b)
    return np.abs(a - np.rint(a)) if kind == "integer" else np.abs(a - np.floor(a) - 0.5)
