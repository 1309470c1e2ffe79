# SPDX-License-Identifier: Apache-2.0
"""A run into an output folder: kept results, the loop, the comparison, and the tables, which are always written."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from om_runner.inputs.fixed import by_fixed
from om_runner.inputs.placement import network_home
from om_runner.names import FAILURES_NAME, METRICS_NAME, PRECISION_FOLDER, REPORT_PAGE
from om_runner.precision.acceptance import VERDICT_FAILED
from om_runner.precision.report import (
    ReportRequest,
    clear_old_report,
    failure_message,
    kept_report,
    write_precision_report,
)
from om_runner.precision.store import CompareStore
from om_runner.registration.engine import Engine, Work
from om_runner.registration.job import Job
from om_runner.registration.progress import progress
from om_runner.registration.recorder import Recorder, note_failure
from om_runner.registration.timeline import EXECUTE, Timeline
from om_runner.results.cohort_record import CohortRecord, known
from om_runner.results.collect import View, list_files, view_of, write_tables
from om_runner.results.columns import CohortResult
from om_runner.results.failures import FailureRecords
from om_runner.results.resume import Decision, Record, Records, decide, matches_run
from om_runner.results.run_record import precision_entry, run_document, run_head, utc, write_run
from om_runner.results.turns import Turns
from om_runner.sharing.claims import TABLES, Claims
from om_runner.sharing.owners import about_this_process
from vxm_convert.artifacts.sha256sums import begin_manifest
from vxm_convert.errors import EXIT_OK, EXIT_USER, PrecisionError, VxmError

if TYPE_CHECKING:
    from om_runner.qc.from_run import Pictures

LOG = logging.getLogger(__name__)

#: number of reasons in the log; the record of each scan has its own
_REASONS_TOLD = 5
#: a name that no subject has, for the claim on the precision report
_REPORT_CLAIM = PRECISION_FOLDER


def decided(job: Job) -> Tuple[List[Decision], Optional[Dict[str, Any]]]:
    """The decision for each considered scan, and the precision report if it is kept.

    If a new report is needed and too few scans are registered for it, unchanged ones are registered again.
    """
    settings = job.settings
    failed = [row.subject for row in job.old_failures]
    decisions = decide(job.looked_at, job.keys, Records(job.layout), settings.batch.force, failed)
    wanted = len(job.scans) if settings.compare is None else min(settings.compare, len(job.scans))
    taken = _kept(job, decisions)
    report = kept_report(settings.out, job.model, job.profile, settings.label_set, wanted, taken)
    if report is None:
        missing = wanted - sum(not decision.skip for decision in decisions)
        for place, decision in enumerate(decisions):
            if decision.skip and missing > 0:
                why = "unchanged, but needed for the comparison: there is no precision report with these settings"
                decisions[place] = Decision(decision.scan, why, seen=decision.seen)
                missing -= 1
    return decisions, report


class CohortRun:
    """One run into an output folder, which other processes may use at the same time.

    Parameters
    ----------
    job : Job
    claims : Claims — of the output folder; the caller closes them.
    """

    def __init__(self, job: Job, claims: Claims) -> None:
        records, failures = Records(job.layout), FailureRecords(job.layout.out)
        #: before the decisions: a record that appears from now on is another process's
        self._turns = Turns(claims, records, failures, job.looked_at)
        decisions, self._report = decided(job)
        self._job, self._claims = job, claims
        self._started = time.time()
        self._todo = by_fixed([decision.scan for decision in decisions if not decision.skip])
        self._taken = _taken_over(job, decisions)
        # As they were looked at: a record that has appeared since is another process's result.
        self._stale = {decision.scan.subject: decision.seen for decision in decisions if not decision.skip}
        self._result = CohortResult()
        self._common = CohortRecord(job.layout.out)
        self._pictures = _pictures(job)
        self._timing: Optional[Dict[str, Any]] = None
        self._devices: List[Dict[str, Any]] = []
        self._report_elsewhere = False
        self._seen: Optional[View] = None
        self._announce(decisions)

    def _announce(self, decisions: Sequence[Decision]) -> None:
        skipped = len(decisions) - len(self._todo)
        LOG.info(
            "%d to register, %d unchanged since an earlier run and skipped (--force registers them again)",
            len(self._todo),
            skipped,
        )
        told = [d for d in decisions if not d.skip and d.why != "no finished result"]
        for decision in told[:_REASONS_TOLD]:
            LOG.info("%s: registered again, %s", decision.scan.subject, decision.why)
        if len(told) > _REASONS_TOLD:
            LOG.info("and %d more; --dry-run lists all", len(told) - _REASONS_TOLD)

    def go(self, engine: Engine) -> int:
        """Register, compare, write; returns the exit code.

        Raises
        ------
        VxmError
            If the whole run must stop, or the settings are not those of the results in the folder.
        PrecisionError
            After everything is written, if the comparison is outside the profile.
        """
        settings = self._job.settings
        self._check_settings()
        wanted = settings.compare if self._report is None and self._may_compare() else 0
        with CompareStore(settings.out, wanted) as store:
            if self._job.atlas is not None:
                store.put_fixed(self._job.atlas.image)
            if self._todo:
                self._loop(engine, store)
            else:
                self._begin()
                self._write()
            if self._report is None and store.subjects:
                # The device is already closed: its memory and TensorFlow's never add up.
                self._report = self._compare(store)
                self._write()
            self._claims.release(_REPORT_CLAIM)
        return self._conclude()

    def _check_settings(self) -> None:
        """Refuse to mix results of two settings, or to replace some while another process makes others."""
        job, others = self._job, self._claims.owners.in_use()
        if job.settings.batch.force and not others:
            return
        failed = FailureRecords(job.layout.out).everything()

        def in_use(key: Mapping[str, Any]) -> bool:
            found = (r for r in Records(job.layout).everything() if r.row.subject not in failed)
            return others or any(matches_run(record, key) for record in found)

        self._common.check(
            job.keys.of_run,
            in_use,
            "choose another --out, or the same settings"
            + ("; another process is writing there" if others else ", or --force to register everything again"),
        )

    def _may_compare(self) -> bool:
        """Whether the comparison is this process's task: of several that start together, the first one's."""
        if not self._job.compared:
            return False
        held = self._claims.take(_REPORT_CLAIM)
        if held is not None:
            self._report_elsewhere = True
            LOG.info("the precision report is made by another run (%s)", held.by)
        return held is None

    def _loop(self, engine: Engine, store: CompareStore) -> None:
        job = self._job
        about = {"simulated": job.model.simulated, "toolchain": job.model.toolchain.describe()}
        begun = time.perf_counter()
        # Nothing of an earlier run is changed before the device has loaded the model.
        with ExitStack() as stack:
            timeline = stack.enter_context(Timeline(job.settings.batch.trace, about))
            stack.enter_context(engine.opened(job, self._claims, self._todo, timeline))
            loaded = time.perf_counter() - begun
            with progress(len(self._todo), "registration") as told:
                recorder = Recorder(job, told, self._turns.release)
                self._result = recorder.result
                self._begin()
                begun = time.perf_counter()
                work = Work(job, store, recorder, self._turns, timeline, self._pictures)
                try:
                    engine.run(work, self._todo)
                except BaseException:
                    self._end_loop(engine, timeline, begun, loaded, failed=True)
                    raise
                self._end_loop(engine, timeline, begun, loaded)

    def _end_loop(self, engine: Engine, timeline: Timeline, begun: float, loaded: float, failed: bool = False) -> None:
        wall = time.perf_counter() - begun
        self._timing = _timing(timeline, wall, loaded, self._result.n_run)
        self._devices = engine.devices(wall)
        if self._devices:
            # Busy is a share of the time of all devices.
            self._timing["device_busy"] /= len(self._devices)
        try:
            self._write()
        except (VxmError, OSError) as exc:
            if not failed:
                raise
            # The error that ended the loop is the one to report.
            LOG.debug("the tables could not be written: %s", exc)
            return
        if failed:
            self._say_missing()

    def _begin(self) -> None:
        job = self._job
        self._common.check(
            job.keys.of_run,
            lambda key: self._claims.owners.in_use(),
            "another process has just begun to write there; choose another --out, or the same settings",
        )
        begin_manifest(job.settings.out)
        if self._report is None and not self._report_elsewhere:
            clear_old_report(job.settings.out)
        self._common.write(job.keys.of_run, run_head(job.model, job.atlas, dataset=job.settings.input), job.scans)
        failures = FailureRecords(job.layout.out)
        for subject, record in self._taken.items():
            job.layout.note(record.row)
            failures.forget(subject)
        for row in [] if failures.exist else job.old_failures:
            note_failure(job, failures, row)

    def _compare(self, store: CompareStore) -> Dict[str, Any]:
        job, settings, atlas = self._job, self._job.settings, self._job.atlas
        with progress(len(store.subjects), "comparison") as told:
            request = ReportRequest(
                job.python,
                settings.out,
                None if atlas is None else atlas.seg,
                network_home(job.contract).affine if atlas is None else atlas.affine,
                settings.label_set,
                self._result.n_run,
                job.profile,
                settings.reference_cache,
            )
            return write_precision_report(store, job.model, request, told)

    def _view(self) -> View:
        stale = {subject: digest for subject, digest in self._stale.items() if digest is not None}
        return view_of(self._job.layout, known(self._job.scans), self._job.keys.of_run, stale)

    def _write(self) -> None:
        """Make all tables from the records, those of other processes included.

        By one process at a time: tables of a process that looked earlier and wrote later would lack scans.
        """
        with self._claims.alone(TABLES):
            self._write_alone()

    def _write_alone(self) -> None:
        job, settings = self._job, self._job.settings
        # Read once: the summary says what the tables say.
        view = self._seen = self._view()
        write_tables(job.layout, view)
        own = {
            "command": settings.command,
            "started": utc(self._started),
            "finished": utc(time.time()),
            "device": settings.device,
            "registered": self._result.n_done,
            "failed": len(self._result.failures),
            "timing": self._timing,
            "devices": self._devices,
        }
        if self._result.n_run or self._result.failures:
            self._common.add_process({**about_this_process(), **own})
        affines = settings.placing.files_of(row.subject for row in view.rows)
        entries = {
            **{name: own[name] for name in ("command", "started", "device", "timing", "devices")},
            "label_set": settings.label_set,
            "label_interpolation": settings.outputs.label_interpolation,
            "geometry": {**vars(settings.placing), **settings.outputs.to_dict()},
            "taken_over": len(view.rows) - self._result.n_done,
            "precision": precision_entry(job.python if job.compared else None, self._report if job.compared else None),
            "processes": self._common.processes(),
        }
        inputs = {**view.inputs, **self._result.inputs, **affines}
        write_run(job.layout, run_document(run_head(job.model, job.atlas), view, inputs, **entries))
        drawn = [] if self._pictures is None else self._pictures.finish(view.failures)
        list_files(job.layout, view, drawn)

    def _conclude(self) -> int:
        job, out, report = self._job, self._job.settings.out, self._report
        whole = self._seen or self._view()
        taken = len(whole.rows) - self._result.n_done
        LOG.info(
            "%d registered%s, %d failed; results in %s (%s)",
            len(whole.rows),
            f" ({taken} of them in other runs)" if taken else "",
            len(whole.failures),
            out,
            METRICS_NAME,
        )
        if self._timing is not None and self._result.n_run:
            LOG.info("%s", speed(self._timing, job.model.simulated))
            for row in self._devices:
                LOG.info(
                    "device %d on %s: %d scans, %d failed, busy %.0f %%",
                    row["device"],
                    row["host"],
                    row["scans"],
                    row["failed"],
                    100 * row["busy"],
                )
        missing = self._say_missing()
        if report is None and job.compared and not self._report_elsewhere:
            LOG.warning("no precision report: no registered scan could be compared")
        if report is not None and job.compared:
            LOG.info(
                "precision report over n = %d scans: %s", report["n_samples"], out / PRECISION_FOLDER / REPORT_PAGE
            )
            if report["verdict"] == VERDICT_FAILED:
                damaged = {row.subject for row in self._result.failures if row.stage == "run"}
                raise PrecisionError(failure_message(out / PRECISION_FOLDER, report, damaged))
        if whole.failures:
            LOG.error("%d scans failed, reasons in %s", len(whole.failures), out / FAILURES_NAME)
        return EXIT_USER if missing or whole.failures else EXIT_OK

    def _say_missing(self) -> bool:
        """Whether scans of the input have neither a result nor a row of failures.tsv; they are named."""
        mine = None if self._job.settings.batch.shard is None else {scan.subject for scan in self._job.looked_at}
        missing = [subject for subject in (self._seen or self._view()).missing if mine is None or subject in mine]
        if missing:
            names = ", ".join(missing[:_REASONS_TOLD]) + (" …" if len(missing) > _REASONS_TOLD else "")
            LOG.error(
                "%d of %d scans are still missing, neither registered nor failed: %s; run the command again without "
                "--limit and --retry-failed",
                len(missing),
                len(self._job.scans),
                names,
            )
        return bool(missing)


def _taken_over(job: Job, decisions: Sequence[Decision]) -> Dict[str, Record]:
    """Results of scans that this run considers and does not register again."""
    return {decision.scan.subject: decision.record for decision in decisions if decision.record is not None}


def _kept(job: Job, decisions: Sequence[Decision]) -> Set[str]:
    """Subjects whose results this run keeps: also those of scans that it does not consider."""
    looked_at, records = {scan.subject for scan in job.looked_at}, Records(job.layout)
    others = {scan.subject: records.read(scan.subject) for scan in job.scans if scan.subject not in looked_at}
    kept = {subject for subject, record in others.items() if record and matches_run(record, job.keys.of_run)}
    return kept | set(_taken_over(job, decisions))


def _pictures(job: Job) -> Optional[Pictures]:
    if "qc" not in job.settings.outputs.outputs:
        return None
    from om_runner.qc.from_run import Pictures

    return Pictures(job.settings.out)


def _timing(timeline: Timeline, wall: float, loaded: float, n_run: int) -> Dict[str, Any]:
    """Seconds of a run, for run.json: `wall` from the first scan read to the last result written; loading the model is
    listed separately.
    """
    device = timeline.sums[EXECUTE]
    return {
        "scans": n_run,
        "wall_seconds": wall,
        "scans_per_second": n_run / wall,
        "device_seconds": device.wall,
        "device_busy": device.wall / wall,
        "host_cpu_seconds": timeline.host_cpu,
        "model_load_seconds": loaded,
        "first_execution_seconds": timeline.first_execution,
        "stages": {
            stage: {"wall_seconds": span.wall, "cpu_seconds": span.cpu} for stage, span in timeline.sums.items()
        },
    }


def speed(timing: Dict[str, Any], simulated: bool) -> str:
    """The summary's line about time."""
    device = "SIMULATED device" if simulated else "device"
    return (
        f"{timing['scans']} scans in {timing['wall_seconds']:.2f} s, {timing['scans_per_second']:.3g} scans/s end to "
        f"end; {device} {timing['device_seconds'] / timing['scans']:.3f} s per scan, busy "
        f"{100 * timing['device_busy']:.0f} % of that time; not included: model loaded in "
        f"{timing['model_load_seconds']:.2f} s, first execution {timing['first_execution_seconds'] or 0:.3f} s"
    )
