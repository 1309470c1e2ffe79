# SPDX-License-Identifier: Apache-2.0
"""Callbacks: a stream passes a function to a host thread, which runs it when it requests work."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from vxm_convert.sim.acl.base.args import CONTEXT, INIT, call
from vxm_convert.sim.acl.base.state import SIM, AclFailure, log
from vxm_convert.sim.acl.streams.stream import stream_of

#: Interval in seconds at which a stream held by a callback checks whether it is being destroyed.
_BLOCKING_CHECK_S = 0.05
#: Longest time that a synchronisation leaves to a thread with callbacks, and longest absence of that thread from
#: process_report at which it is still expected back.
_TURN_S, _ABSENCE_S = 2.0, 0.2
#: A thread without a subscription is refused at once; programs call in a loop until they have one.
_REFUSAL_S = 0.001

Waiting = Tuple[Callable[[Any], Any], Any, threading.Event]


class Reports:
    """Callbacks that wait for a subscribed host thread."""

    def __init__(self, thread_id: int) -> None:
        self.thread_id = thread_id
        self.streams = 0
        self.condition = threading.Condition()
        self.waiting: Deque[Waiting] = deque()
        self._running = 0
        self._inside = False
        self._left = time.monotonic()

    def put(self, function: Callable[[object], object], argument: object, done: threading.Event) -> None:
        with self.condition:
            self.waiting.append((function, argument, done))
            self.condition.notify_all()

    def change_streams(self, difference: int) -> None:
        with self.condition:
            self.streams += difference
            self._left = time.monotonic()
            self.condition.notify_all()

    def take(self, timeout_s: Optional[float]) -> List[Waiting]:
        """Every callback that is there, at least one; raises AclFailure 107012 without subscription, 507012 on timeout."""
        with self.condition:
            self._inside = True
            try:
                arrived = self.condition.wait_for(lambda: bool(self.waiting) or not self.streams, timeout_s)
                if not self.waiting and not self.streams:
                    raise AclFailure(107012, "no stream is subscribed for this thread")
                if not arrived:
                    raise AclFailure(507012, f"no callback within {timeout_s} s")
                taken = list(self.waiting)
                self.waiting.clear()
                self._running += len(taken)
                return taken
            finally:
                self._leave()

    def finish(self) -> None:
        with self.condition:
            self._running -= 1
            self._leave()
            self.condition.notify_all()

    def _leave(self) -> None:
        self._inside, self._left = False, time.monotonic()

    def let_run(self) -> None:
        """Leave the callbacks to their thread, if it is at work or waiting for them.

        A synchronisation does not wait for callbacks that do not hold the stream; but on a device their thread has in
        practice run when it returns, and programs free memory on that assumption.
        """
        if threading.get_ident() == self.thread_id:
            return
        end = time.monotonic() + _TURN_S
        with self.condition:
            while self.waiting or self._running:
                now = time.monotonic()
                absent = not self._inside and not self._running and now - self._left > _ABSENCE_S
                if absent or now > end:
                    return
                self.condition.wait(0.01)


_reports: Dict[int, Reports] = {}


def _reports_of(thread_id: int) -> Reports:
    with SIM.lock:
        if thread_id not in _reports:
            _reports[thread_id] = Reports(thread_id)
        return _reports[thread_id]


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
    """Run every callback of the streams subscribed for the calling thread that is there, at least one; -1 waits without
    limit.
    """
    if timeout_ms < -1 or timeout_ms == 0:
        raise AclFailure(107000, f"timeout {timeout_ms} ms, expected -1 or at least 1")
    with SIM.lock:
        reports = _reports.get(threading.get_ident())
    if reports is None:
        time.sleep(_REFUSAL_S)
        raise AclFailure(107012, "no stream is subscribed for this thread")
    for function, argument, done in reports.take(None if timeout_ms == -1 else timeout_ms / 1000.0):
        try:
            function(argument)
        except Exception:  # as in the C extension: printed, and the thread goes on
            log.exception("simulated device: a callback raised")
        finally:
            done.set()
            reports.finish()
