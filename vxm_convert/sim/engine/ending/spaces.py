# SPDX-License-Identifier: Apache-2.0
"""What the layers of an ending share beside their loops: work space of a thread, ranges, and multiples."""

from __future__ import annotations

import threading
from typing import Any, List, Tuple

import numpy as np


class Spaces(threading.local):
    """Arrays of zeros, each thread its own.

    Parameters
    ----------
    kinds : shape and dtype of each array.
    """

    def __init__(self, *kinds: Tuple[Tuple[int, ...], Any]) -> None:
        self.arrays: List[np.ndarray] = [np.zeros(shape, dtype) for shape, dtype in kinds]


def span(start: int, stop: int) -> np.ndarray:
    """A range as the loops take it."""
    return np.array([start, stop], np.int64)


def rounded_up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
