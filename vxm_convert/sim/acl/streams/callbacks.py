# SPDX-License-Identifier: Apache-2.0
"""Callbacks: a stream passes a function to a host thread, which runs it when it requests work."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Callable, Deque, Dict, Optional, Tuple

from vxm_convert.sim.acl.base.args import CONTEXT, INIT, call
from vxm_convert.sim.acl.base.state import SIM, AclFailure, log
from vxm_convert.sim.acl.streams.stream import stream_of

#: Interval in seconds at which a stream held by a callback checks whether it is being destroyed.
_BLOCKING_CHECK_S = 0.05


class Reports:
    """Callbacks that wait for the subscribed host thread."""

    def __init__(self) -> None:
        self.streams = 0
        self.condition = threading.Condition()
        self.waiting: Deque[Tuple[Callable[[Any], Any], Any, threading.Event]] = deque()

    def put(self, function: Callable[[object], object], argument: object, done: threading.Event) -> None:
        with self.condition:
            self.waiting.append((function, argument, done))
            self.condition.notify_all()

    def change_streams(self, difference: int) -> None:
        with self.condition:
            self.streams += difference
            self.condition.notify_all()

    def take(self, timeout_s: Optional[float]) -> Tuple[Callable[[object], object], object, threading.Event]:
        with self.condition:
            if not self.condition.wait_for(lambda: bool(self.waiting), timeout_s):
                if not self.streams:
                    raise AclFailure(100035, "no stream is subscribed for this thread")
                raise AclFailure(100036, f"no callback within {timeout_s} s")
            return self.waiting.popleft()


_reports: Dict[int, Reports] = {}


def _reports_of(thread_id: int) -> Reports:
    with SIM.lock:
        return _reports.setdefault(thread_id, Reports())


@call("rt.subscribe_report", "KK", needs=CONTEXT)
def subscribe_report(thread_id: int, stream: int) -> None:
    queue = stream_of(stream)
    if queue.subscriber is not None:
        raise AclFailure(100033, "the stream has a subscriber already")
    queue.subscriber = _reports_of(thread_id)
    queue.subscriber.change_streams(1)


@call("rt.unsubscribe_report", "KK", needs=CONTEXT)
def unsubscribe_report(thread_id: int, stream: int) -> None:
    queue = stream_of(stream)
    reports = _reports_of(thread_id)
    if queue.subscriber is not reports:
        raise AclFailure(100034, "the stream is not subscribed for that thread")
    queue.subscriber = None
    reports.change_streams(-1)
    if not reports.streams:
        with SIM.lock:
            _reports.pop(thread_id, None)


@call("rt.launch_callback", "OOIK", needs=CONTEXT)
def launch_callback(function: Callable[[object], object], argument: object, block_type: int, stream: int) -> None:
    """Block type 1 holds the stream until the host thread has run the callback, 0 does not."""
    if not callable(function):
        raise TypeError("acl.rt.launch_callback args parse failed: the first argument must be callable")
    queue = stream_of(stream)
    reports = queue.subscriber
    if reports is None:
        raise AclFailure(100034, "the stream has no subscriber: call acl.rt.subscribe_report first")

    def hand_over() -> None:
        done = threading.Event()
        reports.put(function, argument, done)
        while block_type == 1 and not queue.closing and not done.wait(_BLOCKING_CHECK_S):
            pass

    queue.submit(hand_over)


@call("rt.process_report", "i", needs=INIT)
def process_report(timeout_ms: int) -> None:
    """Run one callback of a stream subscribed for the calling thread; -1 waits without limit."""
    if timeout_ms < -1 or timeout_ms == 0:
        raise AclFailure(107000, f"timeout {timeout_ms} ms, expected -1 or at least 1")
    reports = _reports_of(threading.get_ident())
    function, argument, done = reports.take(None if timeout_ms == -1 else timeout_ms / 1000.0)
    try:
        function(argument)
    except Exception:  # as in the C extension: printed, and the thread goes on
        log.exception("simulated device: a callback raised")
    finally:
        done.set()
