# SPDX-License-Identifier: Apache-2.0
"""The client of a cluster: hands chunks of scans to workers, a bounded number at a time, and takes what comes back."""

from __future__ import annotations

import itertools
import logging
import queue
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Sequence

from om_runner.cluster import task
from om_runner.cluster.connect import dashboard_of, local_cluster, running_cluster
from om_runner.cluster.fleet import Fleet
from om_runner.cluster.muster import muster, send_away
from om_runner.cluster.order import (
    BACK,
    DEVICE,
    ELSEWHERE,
    FAILED,
    HELD,
    RESOURCE,
    STOPPED,
    Chunk,
    Order,
    Outcome,
    Report,
)
from om_runner.cluster.plan import Plan
from om_runner.cluster.watch import Watch
from om_runner.inputs.scans import Scan
from om_runner.names import STATE_FOLDER
from om_runner.registration.engine import Engine, Work
from om_runner.registration.job import Job
from om_runner.registration.recorder import FULL_IN_A_ROW, no_room, without_room
from om_runner.registration.signals import stop_between_scans
from om_runner.registration.timeline import Timeline
from om_runner.results.cohort_record import known
from om_runner.sharing.claims import Claims
from om_runner.sharing.leftovers import clear_leftovers
from om_runner.sharing.owners import OWNERS_FOLDER
from vxm_convert.artifacts.temporaries import process_token
from vxm_convert.errors import AclError, ToolchainError, VxmError

LOG = logging.getLogger(__name__)

#: seconds between two looks at the cluster, and without scheduler or without workers until the run ends
_LOOK, _WITHOUT_SCHEDULER, _WITHOUT_WORKERS = 1.0, 20.0, 120.0
#: chunks at a time for every one that workers can have in work
_AHEAD = 2


class ClusterEngine(Engine):
    """Many devices, each with a worker.

    Parameters
    ----------
    devices : devices of this host, or None for those of a running cluster.
    scheduler : address of a running scheduler, or None.
    """

    def __init__(self, devices: Optional[Sequence[int]], scheduler: Optional[str] = None) -> None:
        self._devices, self._scheduler = devices, scheduler
        self._client: Any = None
        #: of the run that goes on
        self._order: Order
        self._fleet = Fleet()
        self._lost_scheduler = False
        self._done: queue.Queue[Any] = queue.Queue()
        self._numbers = itertools.count()

    # the cluster --------------------------------------------------------------------------------------------
    def opened(self, job: Job, claims: Claims, scans: Sequence[Scan], timeline: Timeline) -> ContextManager[object]:
        return self._opened(job, claims)

    @contextmanager
    def _opened(self, job: Job, claims: Claims) -> Iterator[None]:
        slots = 4 if job.settings.batch.threads > 2 else 2
        self._order = Order(
            session=uuid.uuid4().hex,
            settings=job.settings,
            key=job.keys.of_run,
            versions=task.versions(),
            devices=None if self._devices is None else tuple(self._devices),
            witness=str((job.layout.out / STATE_FOLDER / OWNERS_FOLDER / process_token()).absolute()),
            slots=slots,
            trace=job.settings.batch.trace is not None,
        )
        try:
            with self._connected(slots) as self._client:
                try:
                    muster(self._client, self._order, self._fleet, self._where(), len(self._devices or ()) or 1)
                    dashboard = dashboard_of(self._client)
                    if dashboard is not None:
                        LOG.info("dashboard: %s", dashboard)
                    yield
                finally:
                    self._tell(task.release)
        finally:
            # Workers of this host have ended now, with what they had in work after a second Ctrl-C.
            clear_leftovers(job.layout.out, claims.owners, claims, said=False)

    def _connected(self, slots: int) -> ContextManager[Any]:
        if self._scheduler is not None:
            return running_cluster(self._scheduler)
        return local_cluster(self._devices or (0,), slots)

    def _where(self) -> str:
        return self._scheduler or "this host"

    def _tell(self, function: Any) -> None:
        """Call a function of `task` with the name of this run on every worker."""
        if self._lost_scheduler:
            return
        try:
            self._client.run(function, self._order.session)
        except Exception as exc:  # noqa: BLE001 -- a worker that has gone need not be told
            LOG.debug("a worker could not be told to %s (%r)", function.__name__, exc)

    def devices(self, wall: float) -> List[Dict[str, Any]]:
        return self._fleet.rows(wall)

    # the scans ----------------------------------------------------------------------------------------------
    def run(self, work: Work, scans: Sequence[Scan]) -> None:
        plan = Plan(scans, work.job.contract.model.batch)
        flying: Dict[Any, List[Scan]] = {}
        looked, draining = time.monotonic(), False
        with stop_between_scans() as stop, Watch(self._client) as watch:
            try:
                while flying or (plan.more and not stop()):
                    work.recorder.check_room()
                    if stop() and not draining:
                        draining = True
                        self._tell(task.drain)
                    while plan.ready and not stop() and len(flying) < self._window():
                        chunk = plan.next()
                        flying[self._submit(work, chunk)] = chunk
                    try:
                        future = self._done.get(timeout=_LOOK / 4)
                    except queue.Empty:
                        future = None
                    if future in flying:
                        self._take(work, plan, flying.pop(future), future)
                    if time.monotonic() - looked > _LOOK:
                        looked = time.monotonic()
                        self._look(plan, watch)
            except BaseException:
                self._cancel(list(flying))
                raise

    def _cancel(self, flying: List[Any]) -> None:
        """Take back what has not begun; what a worker has in work ends there."""
        if self._lost_scheduler or not flying:
            return
        try:
            self._client.cancel(flying)
        except Exception as exc:  # noqa: BLE001 -- the error that ended the run is the one to report
            LOG.debug("tasks could not be taken back (%r)", exc)

    def _window(self) -> int:
        """Chunks that may be on their way: enough that no worker waits, few enough to be given to others."""
        return max(1, len(self._fleet.living) * self._order.slots * _AHEAD)

    def _submit(self, work: Work, scans: List[Scan]) -> Any:
        order = self._order
        keep: Dict[str, str] = {}
        for scan in scans:
            number = next(self._numbers)
            if work.store.wants_more:
                keep[scan.subject] = str(Path(work.store.folder).absolute() / f"incoming-{number}")
        before = {scan.subject: work.turns.before(scan.subject) for scan in scans}
        chunk = Chunk(tuple(known(scans)), tuple(self._fleet.gone), keep, before)
        # Of this run alone: Dask takes tasks of several clients with one key for one task.
        key = f"register-{scans[0].subject}-{order.session}-{next(self._numbers)}"
        share = {RESOURCE: 1 / order.slots}
        future = self._client.submit(task.register, order, chunk, key=key, pure=False, resources=share)
        future.add_done_callback(self._done.put)
        future.chunk = chunk
        return future

    def _take(self, work: Work, plan: Plan, scans: List[Scan], future: Any) -> None:
        if future.status != "finished":
            self._lost(plan, scans, future)
            return
        report: Report = future.result()
        future.release()
        self._fleet.reported(report)
        lane = f"device {report.device} on {report.host}" + (", SIMULATED" if work.job.model.simulated else "")
        work.timeline.add(lane, report.sums, report.events)
        work.recorder.result.n_run += report.executed
        for line in report.said:
            LOG.warning("%s", line.partition(": ")[2])
        by_name = {scan.subject: scan for scan in scans}
        for outcome in report.outcomes:
            self._note(work, plan, by_name[outcome.subject], outcome, report.worker, future.chunk.keep)
        lost = [outcome for outcome in report.outcomes if outcome.kind in (DEVICE, BACK)]
        if lost:
            self._retire(report, lost[0].why)
        self._check_room(work, report)

    def _note(self, work: Work, plan: Plan, scan: Scan, outcome: Outcome, worker: str, keep: Dict[str, str]) -> None:
        recorder = work.recorder
        if outcome.row is not None:
            if work.store.wants_more and scan.subject in keep:
                work.store.adopt(scan.subject, keep[scan.subject])
            for text in outcome.row.warnings:
                LOG.warning("%s: %s", scan.subject, text)
            recorder.finished(outcome.row)
        elif outcome.kind == ELSEWHERE:
            recorder.elsewhere(scan)
        elif outcome.kind == HELD:
            plan.later(scan)
        elif outcome.full and plan.again(scan, worker):
            plan.later(scan)
        elif outcome.kind in (BACK, STOPPED) or (outcome.kind == DEVICE and plan.again(scan, worker)):
            plan.back(scan)
        else:
            reason = without_room(outcome.why) if outcome.full else VxmError(outcome.why)
            recorder.failed(scan, outcome.stage, reason, recorded=outcome.kind == FAILED and not outcome.full)

    def _check_room(self, work: Work, report: Report) -> None:
        """Send a worker away that has no room for results; raises ArtifactError if none of them has."""
        why = next((outcome.why for outcome in report.outcomes if outcome.full), None)
        if why is None:
            return
        if self._fleet.all_full >= FULL_IN_A_ROW:
            raise no_room(work.job.layout.out, self._fleet.all_full, why)
        if not self._fleet.all_full and self._fleet.full(report.worker) >= FULL_IN_A_ROW:
            self._retire(report, why, "has no room for results")

    def _retire(self, report: Report, why: str, what: str = "is lost") -> None:
        """A worker gets no more scans."""
        if report.worker not in self._fleet.living:
            return
        what = f"{what}, its scans go to others" if report.opened else "gets no scans"
        send_away(
            self._client, self._fleet, report.worker, f"device {report.device} on {report.host} {what}: {why}", why
        )

    def _lost(self, plan: Plan, scans: List[Scan], future: Any) -> None:
        """A task that did not return: its workers died, or the scheduler is lost."""
        error = future.exception() if future.status == "error" else None
        if error is not None and type(error).__name__ != "KilledWorker":
            raise error
        for scan in scans:
            plan.back(scan)

    def _look(self, plan: Plan, watch: Watch) -> None:
        """Whether the scheduler and workers are still there; who came and who went."""
        plan.look_again()
        if watch.silence > _WITHOUT_SCHEDULER or self._client.status == "closed":
            self._lost_scheduler = True
            raise ToolchainError(
                f"{self._where()}: the Dask scheduler is lost; finished scans are kept; start scheduler and workers "
                "again and run the same command, which takes over everything"
            )
        self._fleet.present(set(watch.workers))
        if self._fleet.living:
            return
        if self._devices is not None and len(self._fleet.reasons) >= len(self._devices):
            raise AclError(f"all devices are lost: {self._fleet.reasons[-1]}")
        alone = self._fleet.without_workers(time.monotonic())
        if not alone:
            LOG.warning("%s: no worker is left; waiting %.0f s for one", self._where(), _WITHOUT_WORKERS)
        if alone > _WITHOUT_WORKERS:
            raise ToolchainError(
                f"{self._where()}: no worker is left; finished scans are kept; start workers again and run the same "
                "command, which takes over everything"
            )
