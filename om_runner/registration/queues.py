# SPDX-License-Identifier: Apache-2.0
"""Threads around the device: scans read ahead, results made and written afterwards, both bounded and in order.

While the device executes one set of buffers, the main thread copies into and out of the other one, readers decode the
next scans and writers finish the last ones. Nothing here depends on scans.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import Any, Callable, Deque, Generator, Generic, Iterable, Optional, Tuple, Type, TypeVar

T = TypeVar("T")
L = TypeVar("L")


def read_ahead(
    scans: Iterable[T], load: Callable[[T], L], ahead: int, threads: int = 1
) -> Generator[Tuple[T, Future[L]], None, None]:
    """Scans in order with their loading; `ahead` of them are read or being read beyond the current one."""
    with ThreadPoolExecutor(threads, "decode") as pool:
        todo = iter(scans)
        waiting = deque((scan, pool.submit(load, scan)) for scan in islice(todo, ahead))
        try:
            while waiting:
                scan, future = waiting.popleft()
                following = next(todo, None)
                if following is not None:
                    waiting.append((following, pool.submit(load, following)))
                yield scan, future
        finally:
            for _, future in waiting:
                future.cancel()


class HeadStart(Generic[T, L]):
    """Reads scans; the first one is begun at once, in a thread of its own, while the device loads the model.

    Parameters
    ----------
    load : callable — what `read` returns for a scan; called by the thread, and by callers of `read`.
    """

    def __init__(self, load: Callable[[T], L], first: T) -> None:
        self._load, self._first = load, first
        pool = ThreadPoolExecutor(1, "decode")
        self._begun: Optional[Future[L]] = pool.submit(load, first)
        pool.shutdown(wait=False)

    def read(self, scan: T) -> L:
        """The scan, or the error of reading it."""
        begun = self._begun
        if scan is not self._first or begun is None:
            return self._load(scan)
        # Memory is the caller's from here on.
        self._begun = None
        return begun.result()


class WriteBehind:
    """A pool that finishes items; a context manager that exits when all are finished.

    Parameters
    ----------
    threads : int — items in work at the same time; one more may wait.
    done : callable — called with item and future, in the order of `submit`, in the submitting thread.
    places : int — of the threads that each item takes; if more than one, no item waits.
    """

    def __init__(self, threads: int, done: Callable[[Any, Future[Any]], None], places: int = 1) -> None:
        threads = max(1, threads // places)
        self._most = threads + (places == 1)
        self._done = done
        self._pool = ThreadPoolExecutor(threads, "write")
        self._waiting: Deque[Tuple[Any, Future[Any]]] = deque()

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        try:
            if kind is not None and not issubclass(kind, Exception):
                # Immediate stop: items in work are finished, waiting ones are dropped.
                self._waiting = deque(entry for entry in self._waiting if not entry[1].cancel())
            self.drain()
        finally:
            self._pool.shutdown()

    def make_room(self) -> None:
        """Wait while too many items are unfinished, so that memory is bounded."""
        while len(self._waiting) >= self._most:
            self._reap()

    def submit(self, item: Any, job: Callable[..., Any], *args: object) -> None:
        """Let a thread call ``job(item, *args)``, when there is room."""
        self.make_room()
        self._waiting.append((item, self._pool.submit(job, item, *args)))
        while self._waiting and self._waiting[0][1].done():
            self._reap()

    def drain(self) -> None:
        """Wait until everything submitted is finished."""
        while self._waiting:
            self._reap()

    def _reap(self) -> None:
        item, future = self._waiting.popleft()
        self._done(item, future)


class DeviceThread:
    """One thread for the device's work. It is a daemon: a device that hangs keeps neither the run nor the process."""

    def __init__(self) -> None:
        self._todo: SimpleQueue[Optional[Callable[[], None]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[..., T], *args: object) -> Future[T]:
        """Let the thread call ``job(*args)``."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(job(*args))
            except BaseException as exc:
                future.set_exception(exc)

        self._todo.put(call)
        return future

    def close(self, grace: Optional[float]) -> bool:
        """End the thread after its present job; False if that takes longer than `grace` seconds."""
        self._todo.put(None)
        self._thread.join(grace)
        return not self._thread.is_alive()

    def _work(self) -> None:
        for call in iter(self._todo.get, None):
            call()
