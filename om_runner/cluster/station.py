# SPDX-License-Identifier: Apache-2.0
"""A worker's place of work: the model on its device, loaded once, with the atlas on it; several scans in work at a time,
one of them on the device.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

from om_runner.cluster.gate import Gate
from om_runner.cluster.order import BACK, DEVICE, DONE, ELSEWHERE, FAILED, HELD, Chunk, Order, Outcome
from om_runner.device.offline_model import OfflineModel
from om_runner.device.runtime import RunResult, Runtime
from om_runner.inputs.fixed import FixedBatches, batch_of
from om_runner.inputs.scans import Scan
from om_runner.names import STATE_FOLDER
from om_runner.precision.store import save_arrays
from om_runner.registration.finish import Finisher, Ready, TakenOver, compared
from om_runner.registration.job import Job
from om_runner.registration.loop import BUFFER_SETS, hanging, read_scan, unreadable, unwritable
from om_runner.registration.outcome import ModelOutputs
from om_runner.registration.queues import DeviceThread
from om_runner.registration.recorder import disk_full, note_failure
from om_runner.registration.timeline import D2H, EXECUTE, H2D, Timeline
from om_runner.results.cohort_record import scans_from
from om_runner.results.columns import FailureRow
from om_runner.results.failures import FailureRecords
from om_runner.results.resume import Records
from om_runner.results.turns import Turns
from om_runner.sharing.claims import Claims
from om_runner.sharing.owners import Owners
from vxm_convert.errors import ImplausibleError, ToolchainError, VxmError

LOG = logging.getLogger(__name__)

#: a scan with which so many workers died is given up
MOST_DEATHS = 2
_GRACE = 5.0
#: seconds without a scan after which another run may have the device
_IDLE = 5.0


class Station:
    """Everything that a worker keeps between scans; several threads call `register`.

    Parameters
    ----------
    order : Order
    job : Job — read and checked on this worker.
    runtime : Runtime — not yet open.
    """

    def __init__(self, order: Order, job: Job, runtime: Runtime) -> None:
        self.job, self.order = job, order
        self.broken: Optional[str] = None
        #: threads that have a scan in work
        self.working = 0
        self._used = time.monotonic()
        self._owners = Owners(job.layout.out / STATE_FOLDER)
        self._claims = Claims(self._owners, order.session)
        self._records, self._failures = Records(job.layout), FailureRecords(job.layout.out)
        self._gate = Gate()
        self._fixed = FixedBatches(job.contract.model.batch)
        self._fixed_scans: Dict[Tuple[Optional[str], ...], Scan] = {}
        begun = time.perf_counter()
        self._runtime = runtime
        runtime.open()
        self._sets = threading.Semaphore(max(1, runtime.reserve(BUFFER_SETS)))
        self.loaded = time.perf_counter() - begun
        self._device = DeviceThread()
        #: for copies: the runtime allows one thread beside the one that executes
        self._copying = threading.Lock()

    def close(self) -> None:
        """Release the device; a hanging one is given up."""
        if self._device.close(_GRACE):
            self._runtime.close()
        else:
            self._runtime.abandon()
        self._claims.close()

    def in_use(self) -> bool:
        """Whether the run may still need the device: it has scans in work, or had until just now and its client lives."""
        if self.working:
            return True
        return time.monotonic() - self._used < _IDLE and not self._owners.is_gone(Path(self.order.witness).name)

    def register(self, chunk: Chunk, timeline: Timeline) -> Tuple[List[Outcome], int]:
        """Register the scans of a chunk; returns what became of each, and how many the model has run."""
        self._owners.declare_gone(chunk.gone)
        self._owners.join()
        try:
            # A scan with which a worker has died runs alone: a second death would be its doing.
            suspects = [scan for scan in chunk.scans if self._claims.deaths_so_far(scan.subject)]
            if not suspects:
                with self._gate.together():
                    return self._register(chunk, timeline)
            outcomes: List[Outcome] = []
            executed = 0
            for scan in chunk.scans:
                with self._gate.alone():
                    done, ran = self._register(replace(chunk, scans=(scan,)), timeline)
                    outcomes, executed = outcomes + done, executed + ran
            return outcomes, executed
        finally:
            self._used = time.monotonic()
            self._owners.leave()

    def _register(self, chunk: Chunk, timeline: Timeline) -> Tuple[List[Outcome], int]:
        scans = scans_from(chunk.scans, self._fixed_scans)
        turns = Turns(self._claims, self._records, self._failures, scans, chunk.before)
        outcomes: List[Outcome] = []
        batch: List[Ready] = []
        ran = 0
        try:
            for scan in scans:
                ready = self._load(scan, turns, timeline)
                if isinstance(ready, Ready):
                    batch.append(ready)
                else:
                    outcomes.append(ready)
            if batch:
                result, ran = self._run(batch, timeline), len(batch)
                outcomes += [self._finish(n, ready, result, chunk, turns, timeline) for n, ready in enumerate(batch)]
        except ToolchainError as exc:
            self.broken = self.broken or str(exc)
            done = {outcome.subject for outcome in outcomes}
            kind = DEVICE if batch and not isinstance(exc, _Broken) else BACK
            outcomes += [Outcome(s.subject, kind, stage="run", why=str(exc)) for s in scans if s.subject not in done]
        finally:
            for scan in scans:
                self._claims.release(scan.subject)
        return outcomes, ran

    def _load(self, scan: Scan, turns: Turns, timeline: Timeline) -> Union[Ready, Outcome]:
        """The scan ready for the device, or what became of it."""
        held = self._claims.take(scan.subject)
        if held is not None:
            return Outcome(scan.subject, HELD, why=held.owner)
        if turns.done(scan.subject):
            return Outcome(scan.subject, ELSEWHERE)
        deaths = self._claims.deaths(scan.subject)
        if deaths >= MOST_DEATHS:
            return self._failed(scan, "run", f"{deaths} workers died while they registered it; it is not tried again")
        if self.broken is not None:
            raise _Broken(self.broken)
        try:
            return read_scan(self.job, scan, timeline)
        except VxmError as exc:
            return self._failed(scan, "read", exc)
        except OSError as exc:
            return self._failed(scan, "read", unreadable(scan, exc))

    def _failed(self, scan: Scan, stage: str, reason: object) -> Outcome:
        row = FailureRow(scan.subject, str(scan.path), stage, str(reason))
        if disk_full(reason if isinstance(reason, Exception) else None):
            # No record: this worker may be sent away before it reports, and another one is to try the scan.
            return Outcome(scan.subject, FAILED, stage=stage, why=str(reason), full=True)
        full = False
        try:
            note_failure(self.job, self._failures, row)
        except (VxmError, OSError) as exc:
            LOG.debug("%s: the failure could not be recorded (%s)", scan.subject, exc)
            full = disk_full(exc)
        return Outcome(scan.subject, FAILED, stage=stage, why=str(reason), full=full)

    # the device ---------------------------------------------------------------------------------------------
    def _run(self, batch: List[Ready], timeline: Timeline) -> RunResult:
        subjects = [ready.subject for ready in batch]
        with self._sets:
            self._check_sound()
            with self._timed(H2D, batch, timeline), self._copying:
                fixed = self._fixed.of([ready.fixed for ready in batch])
                moving = batch_of([ready.loaded.image for ready in batch], self.job.contract.model.batch)
                staged = self._runtime.stage({"moving": moving, "fixed": fixed})
            limit = self.job.settings.batch.device_timeout
            executed = self._device.submit(self._execute, staged, subjects, timeline)
            try:
                collected = executed.result(self._patience(limit))
            except FutureTimeout as exc:
                raise hanging(limit) from exc
            with self._timed(D2H, batch, timeline), self._copying:
                result = self._runtime.fetch(collected)
        for ready in batch:
            ready.seconds[EXECUTE] = result.device_seconds / len(batch)
        return result

    def _patience(self, limit: float) -> Optional[float]:
        """Another batch may be executed before this one: twice the time of one execution."""
        return BUFFER_SETS * limit if limit else None

    def _execute(self, staged: Any, subjects: List[str], timeline: Timeline) -> Any:
        self._check_sound()
        with timeline.span(EXECUTE, subjects):
            executed = self._runtime.execute(staged)
        with timeline.span(D2H, subjects):
            return self._runtime.collect(executed)

    def _check_sound(self) -> None:
        if self.broken is not None:
            raise _Broken(self.broken)

    @contextmanager
    def _timed(self, stage: str, batch: List[Ready], timeline: Timeline) -> Iterator[None]:
        with timeline.span(stage, [ready.subject for ready in batch]) as span:
            yield
        for ready in batch:
            ready.seconds[stage] = ready.seconds.get(stage, 0.0) + span.wall / len(batch)

    # results ------------------------------------------------------------------------------------------------
    def _finish(
        self, n: int, ready: Ready, result: RunResult, chunk: Chunk, turns: Turns, timeline: Timeline
    ) -> Outcome:
        moved, flow = result.outputs["moved"][n, ..., 0], result.outputs["flow"][n]
        velocity = result.outputs.get("velocity")
        finisher = Finisher(self.job, timeline, self._pictures(), turns.ours)
        try:
            stem = chunk.keep.get(ready.subject)
            if stem is not None:
                save_arrays(Path(stem), *compared(self.job, ready, moved, flow))
            row = finisher.finish(ready, [ModelOutputs(moved, flow, None if velocity is None else velocity[n])])
        except TakenOver:
            return Outcome(ready.subject, ELSEWHERE)
        except VxmError as exc:
            return self._failed(ready.loaded.scan, "run" if isinstance(exc, ImplausibleError) else "write", exc)
        except OSError as exc:
            return self._failed(ready.loaded.scan, "write", unwritable(exc))
        return Outcome(ready.subject, DONE, row=row)

    def _pictures(self) -> Any:
        if "qc" not in self.job.settings.outputs.outputs:
            return None
        from om_runner.qc.from_run import Pictures

        return Pictures(self.job.settings.out)


class _Broken(ToolchainError):
    """The device of this worker was lost with another scan."""


RuntimeFactory = Callable[[OfflineModel, int], Runtime]
