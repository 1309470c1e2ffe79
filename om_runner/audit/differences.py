# SPDX-License-Identifier: Apache-2.0
"""Differences between two results that should be equal: bit by bit, in steps of fp16, and in the figures of a profile."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Difference between a scan's result and its first one.

    Parameters
    ----------
    moved_values, flow_values : int — number of values whose bits differ, out of `moved_size` and `flow_size`.
    flow_is_fp16 : bool — every value of both flows is an fp16 number.
    fp16_steps : float or None — largest difference of the flow in steps between neighbouring fp16 numbers; None if no
        finite values differ.
    """

    moved_values: int
    moved_size: int
    flow_values: int
    flow_size: int
    flow_is_fp16: bool
    fp16_steps: Optional[float]

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)

    def explain(self, other_model: bool) -> str:
        """Explains the source of the difference, as far as the numbers show it.

        Parameters
        ----------
        other_model : bool — the result comes from another model of the same network, which may add in another order.
        """
        share = f"{self.flow_values} of {self.flow_size} flow values differ"
        if not self.flow_values:
            return (
                f"the flow is bit-equal, {self.moved_values} of {self.moved_size} values of the moved image differ: "
                "the warp is the cause"
            )
        if self.fp16_steps is None:
            return f"{share}, none of them finite on both sides"
        steps = f"by at most {self.fp16_steps:.3g} fp16 steps"
        if not other_model:
            return (
                f"{share}, {steps}; same model, same scan: the device adds in varying order, or leaves damaged values"
            )
        if self.flow_is_fp16:
            return (
                f"{share}, {steps}, and all of them are fp16 numbers: sums of products in another order differ in the "
                "last bits of fp32, and a sum near the middle of two fp16 numbers may round to the other one"
            )
        return (
            f"{share}, {steps}; the flow itself is fp32: sums in another order differ in their last bits, and flip "
            "fp16 roundings of earlier layers"
        )


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """NaN equals itself here, and 0.0 differs from -0.0."""
    return bool(np.array_equal(_bits(first), _bits(second)))


def measure(moved: np.ndarray, flow: np.ndarray, first_moved: np.ndarray, first_flow: np.ndarray) -> Difference:
    """Differences of a result from the first one; shapes (X, Y, Z) and (X, Y, Z, 3), float32."""
    differs = _bits(flow) != _bits(first_flow)
    mine, theirs = flow[differs], np.asarray(first_flow)[differs]
    good = np.isfinite(mine) & np.isfinite(theirs)
    steps = None
    if good.any():
        larger = np.maximum(np.abs(mine[good]), np.abs(theirs[good])).astype(np.float16)
        steps = float(
            np.max(np.abs(mine[good].astype(np.float64) - theirs[good]) / np.spacing(larger).astype(np.float64))
        )
    return Difference(
        moved_values=int(np.count_nonzero(_bits(moved) != _bits(first_moved))),
        moved_size=int(moved.size),
        flow_values=int(np.count_nonzero(differs)),
        flow_size=int(flow.size),
        flow_is_fp16=_is_fp16(flow) and _is_fp16(first_flow),
        fp16_steps=steps,
    )


def digest(*arrays: np.ndarray) -> List[str]:
    """sha256 of each array's bytes in C order."""
    return [hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).reshape(-1)).hexdigest() for array in arrays]


def _bits(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    return array.view(np.dtype(f"u{array.dtype.itemsize}"))


def _is_fp16(array: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(np.asarray(array).astype(np.float16).astype(np.float32), array))
