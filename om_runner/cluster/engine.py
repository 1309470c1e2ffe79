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
from om_runner.cluster.connect import dashboard_of, local_cluster, running_cluster, workers_of
from om_runner.cluster.fleet import Fleet
from om_runner.cluster.order import BACK, DEVICE, DONE, ELSEWHERE, FAILED, HELD, RESOURCE, Chunk, Order, Report
from om_runner.cluster.plan import Plan
from om_runner.cluster.watch import Watch
from om_runner.inputs.scans import Scan
from om_runner.names import STATE_FOLDER
from om_runner.registration.engine import Engine, Work
from om_runner.registration.job import Job
from om_runner.registration.recorder import without_room
from om_runner.registration.signals import stop_between_scans
from om_runner.results.cohort_record import known
from om_runner.sharing.claims import Claims
from om_runner.sharing.leftovers import clear_leftovers
from om_runner.sharing.owners import OWNERS_FOLDER
from vxm_convert.artifacts.temporaries import process_token
from vxm_convert.errors import AclError, ToolchainError, VxmError

LOG = logging.getLogger(__name__)

#: seconds between two looks at the cluster, and without scheduler or without workers until the run ends
_LOOK, _WITHOUT_SCHEDULER, _WITHOUT_WORKERS = 1.0, 20.0, 120.0
_FIRST_WORKER = 120.0
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
        self._order: Optional[Order] = None
        self._fleet = Fleet()
        self._lost_scheduler = False
        self._done: queue.Queue[Any] = queue.Queue()
        self._numbers = itertools.count()

    # the cluster --------------------------------------------------------------------------------------------
    def opened(self, job: Job, claims: Claims) -> ContextManager[object]:
        return self._opened(job, claims)

    @contextmanager
    def _opened(self, job: Job, claims: Claims) -> Iterator[None]:
        slots = 4 if job.settings.batch.threads > 2 else 2
        with self._connected(slots) as client:
            self._client = client
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
                self._check_workers()
                yield
            finally:
                self._release()
                clear_leftovers(job.layout.out, claims.owners, claims, said=False)

    def _connected(self, slots: int) -> ContextManager[Any]:
        if self._scheduler is not None:
            return running_cluster(self._scheduler)
        return local_cluster(self._devices or (0,), slots)

    def _check_workers(self) -> None:
        """Wait for the first worker; refuse a cluster in which one differs."""
        expected = 1 if self._devices is None else len(self._devices)
        end = time.monotonic() + _FIRST_WORKER
        while len(workers_of(self._client)) < expected:
            if time.monotonic() > end:
                raise ToolchainError(
                    f"{self._where()}: no worker has the resource {RESOURCE}; start some with `python -m om_runner worker "
                    f"--scheduler {self._where()} --device N`"
                )
            time.sleep(0.1)
        found = self._client.run(task.check, self._order, workers=[address for address, _ in workers_of(self._client)])
        wrong = [
            f"{address} on {about['host']}: {'; '.join(about['differences'])}"
            for address, about in sorted(found.items())
            if about["differences"]
        ]
        if wrong:
            raise ToolchainError(
                f"{len(wrong)} of {len(found)} workers differ from this client: {' | '.join(wrong)}; give all of them the "
                "same software and files, or stop these"
            )
        for address, about in found.items():
            self._fleet.joined(address, about["token"])
        LOG.info("%d workers, all with the same versions, model and atlas", len(found))
        self._prepare(found)
        dashboard = dashboard_of(self._client)
        if dashboard is not None:
            LOG.info("dashboard: %s", dashboard)

    def _prepare(self, found: Dict[str, Any]) -> None:
        """Load the model on all devices at the same time; those that refuse it get no scans."""
        answers = self._client.run(task.prepare, self._order, workers=list(found))
        refused = {address: why for address, why in sorted(answers.items()) if why is not None}
        if len(refused) == len(answers):
            raise AclError(next(iter(refused.values())))
        for address, why in refused.items():
            self._send_away(address, f"the device of {address} on {found[address]['host']} gets no scans: {why}", why)

    def _where(self) -> str:
        return self._scheduler or "this host"

    def _release(self) -> None:
        if self._lost_scheduler:
            return
        try:
            self._client.run(task.release, self._order.session if self._order else "")
        except Exception as exc:  # noqa: BLE001 -- a worker that has gone needs no release
            LOG.debug("a worker could not be told to release its device (%s)", exc)

    def devices(self, wall: float) -> List[Dict[str, Any]]:
        return self._fleet.rows(wall)

    # the scans ----------------------------------------------------------------------------------------------
    def run(self, work: Work, scans: Sequence[Scan]) -> None:
        plan = Plan(scans, work.job.contract.model.batch)
        flying: Dict[Any, List[Scan]] = {}
        looked = time.monotonic()
        with stop_between_scans() as stop, Watch(self._client) as watch:
            try:
                while flying or (plan.more and not stop()):
                    work.recorder.check_room()
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
        slots = self._order.slots if self._order else 1
        return max(1, len(self._fleet.living) * slots * _AHEAD)

    def _submit(self, work: Work, scans: List[Scan]) -> Any:
        order = self._order
        keep: Dict[str, str] = {}
        for scan in scans:
            number = next(self._numbers)
            if work.store.wants_more:
                keep[scan.subject] = str(Path(work.store.folder).absolute() / f"incoming-{number}")
        chunk = Chunk(tuple(known(scans)), tuple(self._fleet.gone), keep)
        share = {RESOURCE: 1 / order.slots} if order else {}
        key = f"register-{scans[0].subject}-{next(self._numbers)}"
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
            self._note(work, plan, by_name[outcome.subject], outcome, future.chunk.keep)
        lost = [outcome for outcome in report.outcomes if outcome.kind in (DEVICE, BACK)]
        if lost:
            self._retire(report, lost[0].why)

    def _note(self, work: Work, plan: Plan, scan: Scan, outcome: Any, keep: Dict[str, str]) -> None:
        recorder = work.recorder
        if outcome.kind == DONE:
            if work.store.wants_more and scan.subject in keep:
                work.store.adopt(scan.subject, keep[scan.subject])
            for text in outcome.row.warnings:
                LOG.warning("%s: %s", scan.subject, text)
            recorder.finished(outcome.row)
        elif outcome.kind == FAILED:
            reason = without_room(outcome.why) if outcome.full else VxmError(outcome.why)
            recorder.failed(scan, outcome.stage, reason, recorded=True)
        elif outcome.kind == ELSEWHERE:
            recorder.elsewhere(scan)
        elif outcome.kind == HELD:
            plan.later(scan)
        elif outcome.kind == BACK or plan.again(scan):
            plan.back(scan)
        else:
            recorder.failed(scan, "run", AclError(outcome.why))

    def _retire(self, report: Report, why: str) -> None:
        """The device of a worker is lost: it gets no more scans."""
        if report.worker not in self._fleet.living:
            return
        where = f"device {report.device} on {report.host}"
        self._send_away(report.worker, f"{where} is lost, its scans go to others: {why}", why)

    def _send_away(self, address: str, message: str, why: str) -> None:
        LOG.error("%s", message)
        self._fleet.lost(address, why)
        self._client.retire_workers(workers=[address], close_workers=True)

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
        if self._fleet.without_workers(time.monotonic()) > _WITHOUT_WORKERS:
            raise ToolchainError(
                f"{self._where()}: no worker is left; finished scans are kept; start workers again and run the same "
                "command, which takes over everything"
            )
