# SPDX-License-Identifier: Apache-2.0
"""The cohort loop: fills the model's static batch, keeps the device busy, passes each subject on to be finished. A bad
scan becomes a row and does not end the run.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Generator, Iterator, List, Optional, Sequence

import numpy as np

from om_runner.device.runtime import InFlight, Runtime
from om_runner.inputs.placement import load_anywhere
from om_runner.inputs.scans import Scan
from om_runner.precision.store import CompareStore
from om_runner.registration.finish import Finisher, Ready, describe
from om_runner.registration.job import Job
from om_runner.registration.queues import WriteBehind, read_ahead
from om_runner.registration.signals import stop_between_scans
from om_runner.registration.timeline import D2H, DECODE, EXECUTE, H2D, Timeline
from om_runner.results.products import check_formats
from om_runner.results.subject_log import notes_to
from om_runner.results.tables import CohortResult, FailureRow, MetricsRow
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.errors import ArtifactError, ImplausibleError, ToolchainError, VolumeError, VxmError
from vxm_convert.text import read_reason

if TYPE_CHECKING:
    from om_runner.qc.from_run import Pictures

LOG = logging.getLogger(__name__)

#: sets of buffers: one is executed while the other is filled and emptied
BUFFER_SETS = 2


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
    progress : callable — called with 1 after every scan, finished or failed.
    timeline : Timeline — records the times of every stage.
    pictures : Pictures or None — draws each subject after its results are written.
    """

    def __init__(
        self,
        job: Job,
        store: CompareStore,
        progress: Callable[[int], object],
        timeline: Timeline,
        pictures: Optional[Pictures] = None,
    ) -> None:
        self.job = job
        self.result = CohortResult()
        self.timeline = timeline
        self._store = store
        self._progress = progress
        self._finisher = Finisher(job, timeline, pictures)
        batch = job.contract.model.batch
        # One array for the whole run, so that the runtime leaves it on the device.
        self._fixed = np.repeat(job.atlas.image[np.newaxis, ..., np.newaxis], batch, axis=0)

    # the loop -----------------------------------------------------------------------------------------------
    def run(self, scans: Sequence[Scan], runtime: Runtime) -> None:
        """Register all scans with an open Runtime; raises ToolchainError if the device itself fails.

        In every case, the batch on the device and the results being written are finished first; only a second Ctrl-C
        drops them.
        """
        with stop_between_scans() as stop, WriteBehind(self.job.settings.batch.threads, self._written) as behind:
            with ThreadPoolExecutor(1, "device") as device, closing(self._batches(scans)) as batches:
                self._fly(batches, runtime, device, behind, stop)

    def _fly(
        self,
        batches: Iterator[List[Ready]],
        runtime: Runtime,
        device: ThreadPoolExecutor,
        behind: WriteBehind,
        stop: Callable[[], bool],
    ) -> None:
        overlap = runtime.reserve(BUFFER_SETS) >= BUFFER_SETS
        flight: Optional[_Flight] = None
        try:
            for batch in batches:
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

    def _load(self, scan: Scan) -> Ready:
        """Called by a reading thread."""
        notes: List[str] = []
        self.job.layout.check(scan)
        with notes_to(notes), self.timeline.span(DECODE, [scan.subject]) as span:
            loaded = load_anywhere(scan, self.job.contract, self.job.atlas, self.job.settings.placing)
            check_formats(loaded, self.job.atlas, self.job.settings.outputs)
        return Ready(loaded, notes, {DECODE: span.wall})

    def _take(self, scan: Scan, future: Future[Ready]) -> Optional[Ready]:
        try:
            ready = future.result()
        except VxmError as exc:
            self._fail(scan, "read", exc)
            return None
        except OSError as exc:
            self._fail(scan, "read", VolumeError(f"{exc.filename or scan.path}: cannot be read ({read_reason(exc)})"))
            return None
        self.result.inputs[os.path.abspath(str(scan.path))] = ready.loaded.sha256
        if ready.loaded.seg_sha256 is not None:
            self.result.inputs[os.path.abspath(str(scan.seg_path))] = ready.loaded.seg_sha256
        return ready

    def _fail(self, scan: Scan, stage: str, reason: Exception) -> None:
        LOG.error("%s: %s failed: %s", scan.subject, stage, reason)
        self.result.failures.append(FailureRow(scan.subject, str(scan.path), stage, str(reason)))
        self._progress(1)

    # the device ---------------------------------------------------------------------------------------------
    @contextmanager
    def _on_device(self, batch: List[Ready], stage: str) -> Iterator[None]:
        """Times a stage of a batch; if the device fails in it, all of its scans have failed."""
        try:
            with self.timeline.span(stage, [ready.subject for ready in batch]) as span:
                yield
        except ToolchainError as exc:
            for ready in batch:
                self._fail(ready.loaded.scan, "run", exc)
            raise
        for ready in batch:
            ready.seconds[stage] = span.wall / len(batch)

    def _stage(self, batch: List[Ready], runtime: Runtime) -> Any:
        with self._on_device(batch, H2D):
            return runtime.stage({"moving": self._moving(batch), "fixed": self._fixed})

    def _execute(self, batch: List[Ready], staged: InFlight, runtime: Runtime) -> Any:
        """Called by the device's thread."""
        subjects = [ready.subject for ready in batch]
        with self.timeline.span(EXECUTE, subjects):
            executed = runtime.execute(staged)
        with self.timeline.span(D2H, subjects):
            return runtime.collect(executed)

    def _wait(self, flight: _Flight) -> Any:
        try:
            return flight.executed.result()
        except ToolchainError as exc:
            if not flight.lost:
                flight.lost = True
                for ready in flight.batch:
                    self._fail(ready.loaded.scan, "run", exc)
            raise

    def _land(self, flight: Optional[_Flight], runtime: Runtime, behind: WriteBehind) -> None:
        """Fetch the outputs of a batch and pass them on to be finished."""
        if flight is None:
            return
        collected = self._wait(flight)
        with self._on_device(flight.batch, D2H):
            outcome = runtime.fetch(collected)
        self.result.n_run += len(flight.batch)
        for position, ready in enumerate(flight.batch):
            ready.seconds[EXECUTE] = outcome.device_seconds / len(flight.batch)
            moved, flow = outcome.outputs["moved"][position, ..., 0], outcome.outputs["flow"][position]
            try:
                if self._store.wants_more:
                    self._store.put(ready.subject, ready.loaded.image, ready.loaded.seg, moved, flow)
            except VxmError as exc:
                self._fail(ready.loaded.scan, "write", exc)
                continue
            velocity = outcome.outputs.get("velocity")
            behind.submit(ready, self._finisher.finish, moved, flow, None if velocity is None else velocity[position])

    def _land_after_error(self, flight: Optional[_Flight], runtime: Runtime, behind: WriteBehind) -> None:
        """Fetch the batch on the device even after another error; the first error is the one to report."""
        if flight is None or flight.lost:
            return
        try:
            self._land(flight, runtime, behind)
        except VxmError as exc:
            LOG.error("the batch on the device is lost as well: %s", exc)

    def _moving(self, batch: List[Ready]) -> np.ndarray:
        """(B, X, Y, Z, 1) float32; unused positions repeat the last scan and are cut from the result."""
        moving = np.empty(self.job.contract.model.image_shape, dtype=np.float32)
        for position in range(moving.shape[0]):
            moving[position, ..., 0] = batch[min(position, len(batch) - 1)].loaded.image
        return moving

    # results ------------------------------------------------------------------------------------------------
    def _written(self, ready: Ready, future: Future[MetricsRow]) -> None:
        """Record the result of a subject, in order."""
        try:
            row = future.result()
        except VxmError as exc:
            self._fail(ready.loaded.scan, "run" if isinstance(exc, ImplausibleError) else "write", exc)
            return
        except OSError as exc:
            self._fail(ready.loaded.scan, "write", ArtifactError(f"{exc.filename}: {write_problem(exc)}"))
            return
        self.result.rows.append(row)
        self.job.layout.note(row)
        LOG.info("%s", describe(row))
        self._progress(1)
