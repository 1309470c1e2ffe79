# SPDX-License-Identifier: Apache-2.0
"""The cohort loop: fills the model's static batch, keeps the device busy, passes each subject on to be finished. A bad
scan becomes a row and does not end the run.
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    ContextManager,
    Generator,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.device.runtime import InFlight, Runtime
from om_runner.inputs.fixed import FixedBatches, batch_of
from om_runner.inputs.placement import load_anywhere
from om_runner.inputs.scans import Scan
from om_runner.precision.store import CompareStore
from om_runner.registration.engine import Engine, Work
from om_runner.registration.finish import Finisher, Ready, TakenOver, compared
from om_runner.registration.job import Job
from om_runner.registration.outcome import ModelOutputs
from om_runner.registration.queues import DeviceThread, HeadStart, WriteBehind, read_ahead
from om_runner.registration.recorder import Recorder
from om_runner.registration.signals import stop_between_scans, wait_for
from om_runner.registration.timeline import D2H, DECODE, EXECUTE, H2D, Timeline
from om_runner.results.columns import MetricsRow
from om_runner.results.products import check_formats
from om_runner.results.subject_log import notes_to
from om_runner.results.turns import Turn, Turns
from om_runner.sharing.claims import Claims
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.errors import AclError, ArtifactError, ImplausibleError, ToolchainError, VolumeError, VxmError
from vxm_convert.memory import give_back
from vxm_convert.text import read_reason

if TYPE_CHECKING:
    from om_runner.qc.from_run import Pictures

LOG = logging.getLogger(__name__)

#: sets of buffers: one is executed while the other is filled and emptied
BUFFER_SETS = 2
#: seconds that the device gets to end its execution after an error or a second signal
_GRACE = 5.0


@dataclass
class _Flight:
    """A batch on the device; `lost` if the device failed with it, which is logged once."""

    batch: List[Ready]
    executed: Future[Any]
    lost: bool = False


class Cohort:
    """Registers scans one batch at a time; `result` is filled while it runs.

    Parameters
    ----------
    job : Job
    store : CompareStore — stores arrays of the subjects to compare.
    recorder : Recorder — notes what becomes of each scan.
    turns : Turns — whose turn a scan is.
    timeline : Timeline — records the times of every stage.
    pictures : Pictures or None — draws each subject while its results are written.
    read : callable — a scan, ready for the device; called by several threads.
    """

    def __init__(
        self,
        job: Job,
        store: CompareStore,
        recorder: Recorder,
        turns: Turns,
        timeline: Timeline,
        pictures: Optional[Pictures],
        read: Callable[[Scan], Ready],
    ) -> None:
        self.job = job
        self.timeline, self._read = timeline, read
        self._store, self._recorder, self._turns = store, recorder, turns
        # A scan that takes several places has their threads for its files.
        threads = min(_places(job), job.settings.batch.threads)
        self._finisher = Finisher(job, timeline, pictures, turns.ours, threads)
        self._held: List[Scan] = []
        self._fixed = FixedBatches(job.contract.model.batch)

    # the loop -----------------------------------------------------------------------------------------------
    def run(self, scans: Sequence[Scan], runtime: Runtime) -> None:
        """Register all scans with an open Runtime; raises ToolchainError if the device itself fails.

        In every case, the batch on the device and the results being written are finished first; only a second Ctrl-C
        drops them.
        """
        todo = list(scans)
        threads = self.job.settings.batch.threads
        with stop_between_scans() as stop, WriteBehind(threads, self._written, _places(self.job)) as behind:
            with _device_thread(runtime) as device:
                while todo:
                    self._held = []
                    with closing(self._batches(todo)) as batches:
                        self._fly(batches, runtime, device, behind, stop)
                    # Nothing of ours is in work while we wait for others: no two processes wait for each other.
                    behind.drain()
                    self._recorder.check_room()
                    todo = self._turns.wait(self._held, self._recorder.elsewhere, stop)

    def _fly(
        self,
        batches: Iterator[List[Ready]],
        runtime: Runtime,
        device: DeviceThread,
        behind: WriteBehind,
        stop: Callable[[], bool],
    ) -> None:
        overlap = runtime.reserve(_buffer_sets(self.job)) >= BUFFER_SETS
        flight: Optional[_Flight] = None
        try:
            for batch in batches:
                self._recorder.check_room()
                if stop():
                    break
                if not overlap:
                    before, flight = flight, None
                    self._land(before, runtime, behind)
                try:
                    staged = self._stage(batch, runtime)
                except ToolchainError:
                    # If the previous batch failed too, its error came first and is the one to report.
                    before, flight = flight, None
                    self._land(before, runtime, behind)
                    raise
                if flight is not None:
                    self._wait(flight)
                if stop():
                    break
                before, flight = flight, _Flight(batch, device.submit(self._execute, batch, staged, runtime))
                self._land(before, runtime, behind)
                before = None
        except Exception:
            self._land_after_error(flight, runtime, behind)
            raise
        self._land(flight, runtime, behind)

    def _batches(self, scans: Sequence[Scan]) -> Generator[List[Ready], None, None]:
        """Batches of loaded scans, in order and of the model's size; the last batch may be smaller."""
        size, readers = self.job.contract.model.batch, max(1, self.job.settings.batch.threads // 2)
        batch: List[Ready] = []
        with closing(read_ahead(scans, self._load, max(size, readers), readers)) as loading:
            for scan, future in loading:
                ready = self._take(scan, future)
                batch += [] if ready is None else [ready]
                if len(batch) == size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _load(self, scan: Scan) -> Union[Ready, Turn]:
        """Called by a reading thread; claims the scan first."""
        turn = self._turns.take(scan.subject)
        if turn is not Turn.OURS:
            return turn
        return self._read(scan)

    def _take(self, scan: Scan, future: Future[Union[Ready, Turn]]) -> Optional[Ready]:
        try:
            ready = future.result()
        except VxmError as exc:
            self._recorder.failed(scan, "read", exc)
            return None
        except OSError as exc:
            self._recorder.failed(scan, "read", unreadable(scan, exc))
            return None
        if not isinstance(ready, Ready):
            if ready is Turn.DONE:
                self._recorder.elsewhere(scan)
            else:
                self._held.append(scan)
            return None
        self._recorder.read(ready.loaded, ready.fixed)
        return ready

    # the device ---------------------------------------------------------------------------------------------
    @contextmanager
    def _on_device(self, batch: List[Ready], stage: str) -> Iterator[None]:
        """Times a stage of a batch; if the device fails in it, all of its scans have failed."""
        try:
            with self.timeline.span(stage, [ready.subject for ready in batch]) as span:
                yield
        except ToolchainError as exc:
            for ready in batch:
                self._recorder.failed(ready.loaded.scan, "run", exc)
            raise
        for ready in batch:
            ready.seconds[stage] = span.wall / len(batch)

    def _stage(self, batch: List[Ready], runtime: Runtime) -> Any:
        with self._on_device(batch, H2D):
            fixed = self._fixed.of([ready.fixed for ready in batch])
            moving = batch_of([ready.loaded.image for ready in batch], self.job.contract.model.batch)
            return runtime.stage({"moving": moving, "fixed": fixed})

    def _execute(self, batch: List[Ready], staged: InFlight, runtime: Runtime) -> Any:
        """Called by the device's thread."""
        subjects = [ready.subject for ready in batch]
        with self.timeline.span(EXECUTE, subjects):
            executed = runtime.execute(staged)
        with self.timeline.span(D2H, subjects):
            return runtime.collect(executed)

    def _wait(self, flight: _Flight) -> Any:
        limit = self.job.settings.batch.device_timeout
        try:
            return wait_for(flight.executed, limit or math.inf)
        except (ToolchainError, FutureTimeout) as error:
            exc = error if isinstance(error, ToolchainError) else hanging(limit)
            if not flight.lost:
                flight.lost = True
                for ready in flight.batch:
                    self._recorder.failed(ready.loaded.scan, "run", exc)
            raise exc from (None if exc is error else error)

    def _land(self, flight: Optional[_Flight], runtime: Runtime, behind: WriteBehind) -> None:
        """Fetch the outputs of a batch and pass them on to be finished."""
        if flight is None:
            return
        collected = self._wait(flight)
        # Until then, the outputs stay where the device has put them.
        behind.make_room()
        with self._on_device(flight.batch, D2H):
            outcome = runtime.fetch(collected)
        self._recorder.result.n_run += len(flight.batch)
        for position, ready in enumerate(flight.batch):
            ready.seconds[EXECUTE] = outcome.device_seconds / len(flight.batch)
            moved, flow = outcome.outputs["moved"][position, ..., 0], outcome.outputs["flow"][position]
            try:
                if self._store.wants_more:
                    self._store.put(ready.subject, *compared(self.job, ready, moved, flow))
            except VxmError as exc:
                self._recorder.failed(ready.loaded.scan, "write", exc)
                continue
            velocity = outcome.outputs.get("velocity")
            outputs = [ModelOutputs(moved, flow, None if velocity is None else velocity[position])]
            # Only the list has them from here on.
            del moved, flow, velocity
            behind.submit(ready, self._finisher.finish, outputs)

    def _land_after_error(self, flight: Optional[_Flight], runtime: Runtime, behind: WriteBehind) -> None:
        """Fetch the batch on the device even after another error; the first error is the one to report."""
        if flight is None or flight.lost:
            return
        try:
            self._land(flight, runtime, behind)
        except VxmError as exc:
            LOG.error("the batch on the device is lost as well: %s", exc)

    # results ------------------------------------------------------------------------------------------------
    def _written(self, ready: Ready, future: Future[MetricsRow]) -> None:
        """Record the result of a subject, in order."""
        wait([future])
        # What it took is free only now.
        give_back()
        try:
            row = future.result()
        except TakenOver:
            self._recorder.elsewhere(ready.loaded.scan)
            self._turns.release(ready.subject)
            return
        except VxmError as exc:
            self._recorder.failed(ready.loaded.scan, "run" if isinstance(exc, ImplausibleError) else "write", exc)
            return
        except OSError as exc:
            self._recorder.failed(ready.loaded.scan, "write", unwritable(exc))
            return
        self._recorder.finished(row)


class LocalEngine(Engine):
    """One device in this process.

    Parameters
    ----------
    factory : callable — the runtime of a model on a device, not yet open.
    """

    def __init__(self, factory: Callable[[OfflineModel, int], Runtime]) -> None:
        self._factory = factory
        self._open: Optional[Tuple[Runtime, HeadStart[Scan, Ready]]] = None

    def opened(self, job: Job, claims: Claims, scans: Sequence[Scan], timeline: Timeline) -> ContextManager[object]:
        return self._opened(job, HeadStart(partial(read_scan, job, timeline=timeline), scans[0]))

    @contextmanager
    def _opened(self, job: Job, head: HeadStart[Scan, Ready]) -> Iterator[None]:
        with self._factory(job.model, job.settings.device) as runtime:
            runtime.reserve(_buffer_sets(job))
            self._open = runtime, head
            try:
                yield
            finally:
                self._open = None

    def run(self, work: Work, scans: Sequence[Scan]) -> None:
        if self._open is None:
            raise RuntimeError("the engine is not open: use it in a with statement")
        runtime, head = self._open
        cohort = Cohort(work.job, work.store, work.recorder, work.turns, work.timeline, work.pictures, head.read)
        cohort.run(scans, runtime)


def _buffer_sets(job: Job) -> int:
    """Of host and device memory, the second one of 0.16 GB at full size; a run of one batch has nothing to overlap."""
    return BUFFER_SETS if len(job.looked_at) > job.contract.model.batch else 1


def _places(job: Job) -> int:
    """Of ``--threads``, those that finishing one scan takes: as many as its results have voxels per voxel of the network's
    grid, since a warp on 256³ voxels and what follows from it are two to three times as large as what the device returns.
    """
    if job.atlas is None or job.settings.outputs.space != "atlas":
        return 1
    sizes = [float(np.prod(grid.shape)) for grid in (job.atlas.file_grid, job.atlas.placed.network)]
    return max(1, round(sizes[0] / sizes[1]))


@contextmanager
def _device_thread(runtime: Runtime) -> Iterator[DeviceThread]:
    """The device's thread. If it does not end after an error or a second signal, the device hangs and is given up."""
    device = DeviceThread()
    grace: Optional[float] = _GRACE
    try:
        yield device
        grace = None
    finally:
        if not device.close(grace):
            LOG.error("the device does not answer and is given up; reset it (npu-smi) before the next run")
            runtime.abandon()


def read_scan(job: Job, scan: Scan, timeline: Timeline) -> Ready:
    """A scan ready for the device; raises VxmError if it cannot be registered."""
    notes: List[str] = []
    job.layout.check(scan)
    with timeline.span(DECODE, [scan.subject]) as span:
        # Warnings about a fixed image belong to no single pair of its own.
        fixed = job.fixed.of(scan)
        with notes_to(notes):
            loaded = load_anywhere(scan, job.contract, fixed, job.settings.placing)
            check_formats(loaded, fixed, job.settings.outputs)
    give_back()
    return Ready(loaded, fixed, notes, {DECODE: span.wall})


def unreadable(scan: Scan, exc: OSError) -> VolumeError:
    """The failure of a scan on a disk or a share that fails."""
    error = VolumeError(f"{exc.filename or scan.path}: cannot be read ({read_reason(exc)})")
    error.__cause__ = exc
    return error


def unwritable(exc: OSError) -> ArtifactError:
    """The failure of results on a disk or a share that fails."""
    error = ArtifactError(f"{exc.filename}: {write_problem(exc)}")
    error.__cause__ = exc
    return error


def hanging(limit: float) -> AclError:
    """The error of an execution that does not end."""
    return AclError(
        f"the device has not finished an execution within {limit:g} s and counts as hanging; reset it (npu-smi) and run "
        "the same command again, or give it more time with --device-timeout",
        "acl.rt.synchronize_stream",
    )
