# SPDX-License-Identifier: Apache-2.0
"""Damaged copies through a reader, counted, with the undamaged bytes as the control."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Tuple, Type, Union

Errors = Union[Type[Exception], Tuple[Type[Exception], ...]]


def outcomes(read: Callable[[bytes], Any], good: bytes, damaged: Iterable[bytes], errors: Errors) -> Tuple[int, int]:
    """How many damaged copies `read` takes and how many it refuses with `errors`; any other exception is raised.

    `good` is read first, so that a reader that refuses everything fails the test.
    """
    read(good)
    counts = [0, 0]
    for copy in damaged:
        try:
            read(copy)
            counts[0] += 1
        except errors:
            counts[1] += 1
    return counts[0], counts[1]
