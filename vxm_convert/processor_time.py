# SPDX-License-Identifier: Apache-2.0
"""Processor time of a thread, and of the threads that worked for it while it waited."""

from __future__ import annotations

import threading
import time
from typing import Callable, Tuple, TypeVar

T = TypeVar("T")
_others = threading.local()


def thread_seconds() -> float:
    """Processor seconds of this thread so far, and those that `add_others` added to it; differences count."""
    return time.thread_time() + float(getattr(_others, "seconds", 0.0))


def add_others(seconds: float) -> None:
    """Add processor seconds of threads that this one has waited for."""
    _others.seconds = getattr(_others, "seconds", 0.0) + seconds


def timed(work: Callable[..., T]) -> Callable[..., Tuple[T, float]]:
    """`work` for another thread: what it returns, with the processor seconds for `add_others`."""

    def run(*args: object) -> Tuple[T, float]:
        begun = thread_seconds()
        value = work(*args)
        return value, thread_seconds() - begun

    return run
