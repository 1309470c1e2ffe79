# SPDX-License-Identifier: Apache-2.0
"""Freed memory goes back to the system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vxm_convert.memory import give_back


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 2**20


def test_what_lies_below_something_in_use_is_given_back():
    if not give_back():
        pytest.skip("this C library keeps what is freed")
    before = resident_mb()
    # Small enough for the heap, whatever threshold the library has come to; every 64th stays in use.
    blocks = [np.ones(12500) for _ in range(2000)]
    assert resident_mb() > before + 150
    blocks = blocks[::64]
    assert give_back() and resident_mb() < before + 40
