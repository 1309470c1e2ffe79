# SPDX-License-Identifier: Apache-2.0
"""The 910's fp16 conversion: to nearest even, subnormals kept, saturation instead of infinity, NaN becomes zero.

Source: vendor documentation of the saturation mode that the 910 has as its only overflow mode, and the open
`TagFp16` conversion of GE for weights; gathered in docs/precision.md.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

from vxm_convert.ascend.limits import HALF_MAX


def to_half(values: np.ndarray) -> np.ndarray:
    """float32 or wider, any shape → float16 as the device stores it."""
    finite = np.nan_to_num(np.asarray(values), nan=0.0, posinf=HALF_MAX, neginf=-HALF_MAX)
    return np.clip(finite, -HALF_MAX, HALF_MAX).astype(np.float16)


def round_to_half(values: np.ndarray) -> np.ndarray:
    """`to_half`, returned as float32: every value is on the fp16 grid."""
    return to_half(values).astype(np.float32)


def rounding_constants() -> Tuple[float, float]:
    """(factor, floor) of the arithmetic rounding that `lowering` puts into the executable graph.

    With ``m = factor · sign(x) · max(|x|, floor)``, ``s = x + m`` and ``y = s − (s − x)``, all in fp32, y is x rounded
    to fp16. For normal numbers this is Veltkamp's splitting with 13 bits cut off (Dekker 1971, eq. 5.6). At and
    below ``floor = 1.5·2⁻¹⁴`` m is 0.75, whose fp32 neighbours are 2⁻²⁴ apart: the spacing of fp16 subnormals.
    """
    return 8192.0, 1.5 * 2.0**-14
