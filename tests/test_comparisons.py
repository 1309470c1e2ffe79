# SPDX-License-Identifier: Apache-2.0
"""What a failing comparison costs."""

from __future__ import annotations

import os
from typing import Any

import pytest

_CONTENT = os.urandom(300000)


@pytest.mark.parametrize("wrap", [bytes, lambda content: {"file": content}, lambda content: [1, (content,)]])
def test_large_values_that_differ_are_told_at_once(wrap: Any) -> None:
    with pytest.raises(AssertionError, match="large values differ: [0-9a-f]{40}, [0-9a-f]{40}"):
        assert wrap(_CONTENT) == wrap(_CONTENT[:-1])


def test_small_ones_are_shown() -> None:
    with pytest.raises(AssertionError, match="At index 2 diff|index 2"):
        assert [1, 2, 3] == [1, 2, 4]
