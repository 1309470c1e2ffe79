# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM stop between two scans; a second one stops immediately."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from types import FrameType
from typing import Any, Callable, Dict, Iterator, Optional

LOG = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: seconds between two looks at what is waited for
_LOOK = 0.5


@contextmanager
def stop_between_scans() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether to stop; after a stop the context ends with KeyboardInterrupt.

    Outside the main thread, where signals do not arrive, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before: Dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    # Ignored signals stay ignored (nohup, a background job); None is a handler in C, which could not be restored.
    taken = [number for number in _SIGNALS if before[number] not in (signal.SIG_IGN, None)]
    asked = threading.Event()

    def ask(number: int, frame: Optional[FrameType]) -> None:
        asked.set()
        _put_back()
        LOG.warning(
            "stopping after the batch on the device and the results being written; send the signal again to stop "
            "immediately"
        )

    def _put_back() -> None:
        for each in taken:
            signal.signal(each, before[each])

    for number in taken:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        _put_back()
    if asked.is_set():
        raise KeyboardInterrupt


def wait_for(future: Future[Any], seconds: float = math.inf) -> Any:
    """The result of a future, for the main thread.

    A signal may reach another thread, and Python runs its handler in the main thread only, which a long wait keeps from
    it: this one wakes up every half second.

    Raises
    ------
    concurrent.futures.TimeoutError
        After `seconds`; and whatever the future raises.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return future.result(max(0.0, min(_LOOK, end - time.monotonic())))
        except FutureTimeout:
            if future.done() or time.monotonic() >= end:
                raise
