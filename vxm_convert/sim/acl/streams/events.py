# SPDX-License-Identifier: Apache-2.0
"""Events: marks in a stream that clients can wait for, with the time between two of them."""

from __future__ import annotations

import threading
import time

from vxm_convert.sim.acl.base.args import CONTEXT, call
from vxm_convert.sim.acl.base.state import SIM, AclFailure
from vxm_convert.sim.acl.streams.stream import COMPLETE, NOT_READY, Stream, stream_of


class Event:
    """A mark in a stream; `seconds` is the time at which the stream reached the latest record."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.recorded = False
        self.seconds = 0.0

    def record(self, stream: Stream) -> None:
        reached = self.reached = threading.Event()
        self.recorded = True

        def reach() -> None:
            self.seconds = time.perf_counter()
            reached.set()

        stream.submit(reach)


def _event(handle: int) -> Event:
    return SIM.thing(handle, Event, 107017)


@call("rt.create_event", gives=(0,), needs=CONTEXT)
def create_event() -> int:
    return SIM.new_handle(Event())


@call("rt.destroy_event", "K", needs=CONTEXT)
def destroy_event(handle: int) -> None:
    _event(handle)
    SIM.drop_handle(handle)


@call("rt.record_event", "KK", needs=CONTEXT)
def record_event(handle: int, stream: int) -> None:
    _event(handle).record(stream_of(stream))


@call("rt.synchronize_event", "K", needs=CONTEXT)
def synchronize_event(handle: int) -> None:
    event = _event(handle)
    if event.recorded:
        event.reached.wait()


@call("rt.query_event", "K", gives=(NOT_READY,), needs=CONTEXT)
def query_event(handle: int) -> int:
    event = _event(handle)
    return COMPLETE if event.reached.is_set() or not event.recorded else NOT_READY


@call("rt.stream_wait_event", "KK", needs=CONTEXT)
def stream_wait_event(stream: int, handle: int) -> None:
    event = _event(handle)
    if event.recorded:
        stream_of(stream).submit(event.reached.wait)


@call("rt.event_elapsed_time", "KK", gives=(0.0,), needs=CONTEXT)
def event_elapsed_time(start: int, end: int) -> float:
    """Milliseconds between two events that were reached."""
    first, last = _event(start), _event(end)
    if not (first.reached.is_set() and last.reached.is_set()):
        raise AclFailure(107000, "an event is not reached yet: record both and synchronize first")
    return (last.seconds - first.seconds) * 1000.0
