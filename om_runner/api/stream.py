# SPDX-License-Identifier: Apache-2.0
"""Scans through one open runtime as a generator: while the device works on a batch, the next scans are read and the
last results are made; results come in the order of the scans.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Callable, Deque, Generator, Generic, Iterable, Iterator, List, Optional, Tuple, TypeVar, Union

from om_runner.device.runtime import RunResult, Runtime
from om_runner.inputs.fixed import FixedBatches, batch_of
from om_runner.inputs.scans import LoadedScan
from om_runner.registration.outcome import ModelOutputs
from om_runner.registration.queues import read_ahead
from vxm_convert.errors import VxmError


@dataclass(frozen=True)
class Loaded:
    """A scan and its fixed image."""

    scan: LoadedScan
    fixed: LoadedScan


T = TypeVar("T")
R = TypeVar("R")
#: sets of buffers: one is executed while the other is filled and emptied
BUFFER_SETS = 2


class Stream(Generic[T, R]):
    """Registers items with an open runtime.

    Parameters
    ----------
    runtime : Runtime — open.
    load : callable — item → Loaded; called by reading threads, raises VxmError for a bad scan.
    make : callable — (item, Loaded, ModelOutputs, device seconds) → result; called by finishing threads.
    threads : int — that finish results; half as many read.
    """

    def __init__(
        self,
        runtime: Runtime,
        load: Callable[[T], Loaded],
        make: Callable[[T, Loaded, ModelOutputs, float], R],
        threads: int,
    ) -> None:
        self._runtime, self._load, self._make, self._threads = runtime, load, make, threads
        self._size = runtime.contract.model.batch
        self._fixed = FixedBatches(self._size)
        self._overlap = runtime.reserve(BUFFER_SETS) >= BUFFER_SETS

    def run(self, items: Iterable[T]) -> Generator[Tuple[T, Union[R, VxmError]], None, None]:
        """(item, result) in order; in place of the result of a bad scan, its error.

        Raises
        ------
        ToolchainError
            If the device itself fails.
        """
        ready: Deque[Tuple[T, Future[R]]] = deque()
        with ThreadPoolExecutor(1, "device") as device, ThreadPoolExecutor(self._threads, "finish") as pool:
            try:
                with closing(self._executed(items, device)) as batches:
                    for batch, outcome in batches:
                        ready.extend(self._finishing(pool, batch, outcome))
                        while len(ready) > self._threads + self._size:
                            item, future = ready.popleft()
                            yield _done(item, future)
                while ready:
                    item, future = ready.popleft()
                    yield _done(item, future)
            finally:
                for _, future in ready:
                    future.cancel()

    def _executed(self, items: Iterable[T], device: ThreadPoolExecutor) -> Any:
        """Batches with the outputs of their run; bad scans come with their error, in their place."""
        flights: Deque[Tuple[List[Any], Optional[Future[Any]]]] = deque()
        try:
            with closing(self._batches(items)) as batches:
                for batch in batches:
                    while flights and not self._overlap:
                        yield self._landed(*flights.popleft())
                    flights.append((batch, self._submitted(batch, device)))
                    while len(flights) > 1:
                        yield self._landed(*flights.popleft())
            while flights:
                yield self._landed(*flights.popleft())
        finally:
            # The caller has stopped, or another batch has failed: the buffers of these must become free.
            for left in flights:
                with suppress(VxmError):
                    self._landed(*left)

    def _submitted(self, batch: List[Any], device: ThreadPoolExecutor) -> Optional[Future[Any]]:
        """The execution of a batch, or None if none of its scans could be read."""
        good = [loaded for _, loaded in batch if isinstance(loaded, Loaded)]
        if not good:
            return None
        fixed = self._fixed.of([loaded.fixed for loaded in good])
        moving = batch_of([loaded.scan.image for loaded in good], self._size)
        staged = self._runtime.stage({"moving": moving, "fixed": fixed})
        return device.submit(lambda: self._runtime.collect(self._runtime.execute(staged)))

    def _landed(self, batch: List[Any], executed: Optional[Future[Any]]) -> Tuple[List[Any], Optional[RunResult]]:
        return batch, None if executed is None else self._runtime.fetch(executed.result())

    def _batches(self, items: Iterable[T]) -> Any:
        """Lists of (item, Loaded or VxmError) with at most as many scans as the model takes at once."""
        size, readers = self._size, max(1, self._threads // 2)
        batch: List[Tuple[T, Union[Loaded, VxmError]]] = []
        with closing(read_ahead(items, self._load, max(size, readers), readers)) as loading:
            for item, future in loading:
                batch.append(_done(item, future))
                if sum(isinstance(loaded, Loaded) for _, loaded in batch) == size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _finishing(
        self, pool: ThreadPoolExecutor, batch: List[Any], outcome: Optional[RunResult]
    ) -> Iterator[Tuple[T, Future[R]]]:
        position, good = 0, sum(isinstance(loaded, Loaded) for _, loaded in batch)
        for item, loaded in batch:
            if not isinstance(loaded, Loaded) or outcome is None:
                failed: Future[R] = Future()
                failed.set_exception(loaded)
                yield item, failed
                continue
            arrays, velocity = outcome.outputs, outcome.outputs.get("velocity")
            model = ModelOutputs(
                arrays["moved"][position, ..., 0],
                arrays["flow"][position],
                None if velocity is None else velocity[position],
            )
            yield item, pool.submit(self._make, item, loaded, model, outcome.device_seconds / good)
            position += 1


def _done(item: Any, future: Future[Any]) -> Any:
    """(item, result), or (item, error) for an error that the user can fix."""
    try:
        return item, future.result()
    except VxmError as exc:
        return item, exc
