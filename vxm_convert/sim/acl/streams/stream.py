# SPDX-License-Identifier: Apache-2.0
"""Streams: a queue of work and a worker thread each. The submitter decides what the work is."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from typing import Any, Callable, Deque, Optional

from vxm_convert.sim.acl.base.args import CONTEXT, call
from vxm_convert.sim.acl.base.state import SIM, AclFailure, DeviceContext, log

COMPLETE, NOT_READY = 0, 1
#: Seconds that the exit of the process waits for the running task of a stream.
_LAST_TASK_SECONDS = 5.0
_streams: Any = weakref.WeakSet()


class Stream:
    """Work in order of submission, done by a separate thread that starts with the first task.

    Parameters
    ----------
    context : Context — the context it was created in.
    """

    def __init__(self, context: DeviceContext) -> None:
        self.context = context
        self.subscriber: Any = None
        self.closing = False
        self._tasks: Deque[Callable[[], Any]] = deque()
        self._condition = threading.Condition()
        self._submitted = 0
        self._done = 0
        self._failure: Optional[AclFailure] = None
        self._worker: Optional[threading.Thread] = None
        _streams.add(self)

    def submit(self, task: Callable[[], object]) -> None:
        """Queue a task; the next `synchronize` reports its exception."""
        with self._condition:
            if self.closing:
                raise AclFailure(107017, "the stream is being destroyed")
            self._tasks.append(task)
            self._submitted += 1
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="simulated-acl-stream", daemon=True)
                self._worker.start()
            self._condition.notify_all()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._tasks and not self.closing:
                    self._condition.wait()
                if not self._tasks:
                    return
                task = self._tasks.popleft()
            failure = _failure_of(task)
            del task
            with self._condition:
                self._failure = self._failure or failure
                self._done += 1
                self._condition.notify_all()

    @property
    def idle(self) -> bool:
        with self._condition:
            return self._done == self._submitted

    def wait(self, timeout_s: Optional[float] = None) -> bool:
        """Wait for everything submitted so far; False if that takes longer than `timeout_s`."""
        with self._condition:
            target = self._submitted
            return self._condition.wait_for(lambda: self._done >= target, timeout_s)

    def synchronize(self, timeout_s: Optional[float] = None) -> None:
        """As `wait`, then raise the exception of a failed task; AclFailure(507046) on timeout."""
        if not self.wait(timeout_s):
            raise AclFailure(507046, f"the stream is still busy after {timeout_s} s")
        if self.subscriber is not None:
            self.subscriber.let_run()
        with self._condition:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise AclFailure(failure.code, failure.message)

    def abandon(self) -> None:
        """Drop queued tasks and wait for the running one, for a limited time."""
        with self._condition:
            self._submitted -= len(self._tasks)
            self._tasks.clear()
        self.wait(_LAST_TASK_SECONDS)

    def close(self) -> None:
        """Finish queued tasks and end the worker."""
        with self._condition:
            self.closing = True
            self._condition.notify_all()
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join()


@atexit.register
def _abandon_all() -> None:
    """A program may exit with work on its streams; Python would abort if it stopped a worker inside the engine."""
    for stream in list(_streams):
        stream.abandon()


def _failure_of(task: Callable[[], object]) -> Optional[AclFailure]:
    try:
        task()
    except AclFailure as failure:
        return failure
    except Exception as exc:  # a worker must keep running; the client gets the error at synchronisation
        log.exception("simulated device: a task of a stream raised")
        return AclFailure(507000, f"{type(exc).__name__}: {exc}")
    return None


def stream_of(handle: int) -> Stream:
    """The stream behind a handle, 0 being the default stream; it must belong to the current context."""
    context = SIM.context()
    if handle == 0:
        default: Stream = context.default_stream
        return default
    stream = SIM.thing(handle, Stream, 107017)
    if stream.context is not context:
        raise AclFailure(107003, "the stream belongs to another context than the thread's current one")
    return stream


@call("rt.create_stream", gives=(0,), needs=CONTEXT)
def create_stream() -> int:
    stream = Stream(SIM.context())
    stream.context.streams.append(stream)
    return SIM.new_handle(stream)


@call("rt.destroy_stream", "K", needs=CONTEXT)
def destroy_stream(handle: int) -> None:
    if handle == 0:
        raise AclFailure(100000, "the default stream cannot be destroyed")
    stream = stream_of(handle)
    stream.close()
    stream.context.streams.remove(stream)
    SIM.drop_handle(handle)


@call("rt.synchronize_stream", "K", needs=CONTEXT)
def synchronize_stream(handle: int) -> None:
    stream_of(handle).synchronize()


@call("rt.synchronize_stream_with_timeout", "Ki", needs=CONTEXT)
def synchronize_stream_with_timeout(handle: int, timeout_ms: int) -> None:
    """-1 waits without limit."""
    if timeout_ms < -1:
        raise AclFailure(107000, f"timeout {timeout_ms} ms, expected -1 or more")
    stream_of(handle).synchronize(None if timeout_ms == -1 else timeout_ms / 1000.0)


@call("rt.stream_query", "K", gives=(NOT_READY,), needs=CONTEXT)
def stream_query(handle: int) -> int:
    return COMPLETE if stream_of(handle).idle else NOT_READY
