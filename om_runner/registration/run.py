# SPDX-License-Identifier: Apache-2.0
"""A run over a locked output folder: kept results, the loop, the comparison, and the tables, which are always written."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

from om_runner.device.offline_model import OfflineModel
from om_runner.device.runtime import Runtime
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
from om_runner.registration.job import Job
from om_runner.registration.loop import BUFFER_SETS, Cohort
from om_runner.registration.progress import progress
from om_runner.registration.timeline import EXECUTE, Timeline
from om_runner.results.resume import Decision, Record, Records, decide, taken_along
from om_runner.results.run_record import Ledger, precision_entry, run_document, utc, write_run
from om_runner.results.tables import CohortResult
from vxm_convert.artifacts.sha256sums import begin_manifest
from vxm_convert.errors import EXIT_OK, EXIT_USER, PrecisionError

if TYPE_CHECKING:
    from om_runner.qc.from_run import Pictures

LOG = logging.getLogger(__name__)

#: number of reasons in the log; the record of each scan has its own
_REASONS_TOLD = 5


def decided(job: Job) -> Tuple[List[Decision], Optional[Dict[str, Any]]]:
    """The decision for each considered scan, and the precision report if it is kept.

    If a new report is needed and too few scans are registered for it, unchanged ones are registered again.
    """
    settings = job.settings
    failed = [row.subject for row in job.old_failures]
    decisions = decide(job.looked_at, job.keys, Records(job.layout), settings.batch.force, failed)
    wanted = len(job.scans) if settings.compare is None else min(settings.compare, len(job.scans))
    taken = set(_taken_over(job, decisions))
    report = kept_report(settings.out, job.model, job.profile, settings.label_set, wanted, taken)
    if report is None:
        missing = wanted - sum(not decision.skip for decision in decisions)
        for place, decision in enumerate(decisions):
            if decision.skip and missing > 0:
                decisions[place] = Decision(
                    decision.scan,
                    "unchanged, but needed for the comparison: there is no precision report with these settings",
                )
                missing -= 1
    return decisions, report


def ledger_of(job: Job, decisions: Sequence[Decision]) -> Ledger:
    """What is known of the cohort besides the scans that are registered now."""
    looked_at = {scan.subject for scan in job.looked_at}
    old = [row for row in job.old_failures if row.subject not in looked_at]
    return Ledger(job.layout, job.scans, _taken_over(job, decisions), old)


class CohortRun:
    """One run; the output folder is locked by the caller.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        decisions, self._report = decided(job)
        self._job = job
        self._started = time.time()
        self._todo = [decision.scan for decision in decisions if not decision.skip]
        self._result = CohortResult()
        self._ledger = ledger_of(job, decisions)
        self._earlier: Dict[str, str] = {}
        self._pictures = _pictures(job)
        self._timing: Optional[Dict[str, Any]] = None
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

    def go(self, runtime_factory: Callable[[OfflineModel, int], Runtime]) -> int:
        """Register, compare, write; returns the exit code.

        Raises
        ------
        VxmError
            If the whole run must stop.
        PrecisionError
            After everything is written, if the comparison is outside the profile.
        """
        settings = self._job.settings
        with CompareStore(settings.out, settings.compare if self._report is None else 0) as store:
            store.put_fixed(self._job.atlas.image)
            if self._todo:
                self._loop(runtime_factory, store)
            else:
                self._begin()
                self._write()
            if self._report is None and store.subjects:
                # The device is already closed: its memory and TensorFlow's never add up.
                self._report = self._compare(store)
                self._write()
        return self._conclude()

    def _loop(self, runtime_factory: Callable[[OfflineModel, int], Runtime], store: CompareStore) -> None:
        job, settings = self._job, self._job.settings
        about = {"simulated": job.model.simulated, "toolchain": job.model.toolchain.describe()}
        begun = time.perf_counter()
        # Nothing of an earlier run is changed before the device has loaded the model.
        with Timeline(settings.batch.trace, about) as timeline, runtime_factory(job.model, settings.device) as runtime:
            runtime.reserve(BUFFER_SETS)
            loaded = time.perf_counter() - begun
            with progress(len(self._todo), "registration") as told:
                cohort = Cohort(job, store, self._noting(told), timeline, self._pictures)
                self._result = cohort.result
                self._begin()
                begun = time.perf_counter()
                try:
                    cohort.run(self._todo, runtime)
                except BaseException:
                    self._end_loop(timeline, begun, loaded)
                    self._say_missing()
                    raise
                self._end_loop(timeline, begun, loaded)

    def _end_loop(self, timeline: Timeline, begun: float, loaded: float) -> None:
        self._timing = _timing(timeline, time.perf_counter() - begun, loaded, self._result.n_run)
        self._write()

    def _begin(self) -> None:
        self._earlier = begin_manifest(self._job.settings.out)
        if self._report is None:
            clear_old_report(self._job.settings.out)
        self._ledger.note_taken_over()

    def _noting(self, told: Callable[[int], object]) -> Callable[[int], None]:
        """Progress that also keeps failures.tsv up to date, so that a killed run leaves it for ``--retry-failed``."""
        written = 0

        def update(n: int) -> None:
            nonlocal written
            if len(self._result.failures) != written:
                written = len(self._result.failures)
                self._ledger.write_failures(self._result)
            told(n)

        return update

    def _compare(self, store: CompareStore) -> Dict[str, Any]:
        job, settings = self._job, self._job.settings
        with progress(len(store.subjects), "comparison") as told:
            request = ReportRequest(
                job.python,
                settings.out,
                job.atlas.seg,
                job.atlas.affine,
                settings.label_set,
                self._result.n_run,
                job.profile,
                settings.reference_cache,
            )
            return write_precision_report(store, job.model, request, told)

    def _write(self) -> None:
        job, settings = self._job, self._job.settings
        whole = self._ledger.whole(self._result)
        self._ledger.write_tables(whole)
        affines = settings.placing.files_of(row.subject for row in whole.rows)
        entries = {
            "inputs": {**whole.inputs, **affines},
            "command": settings.command,
            "started": utc(self._started),
            "device": settings.device,
            "label_set": settings.label_set,
            "label_interpolation": settings.outputs.label_interpolation,
            "geometry": {**vars(settings.placing), **settings.outputs.to_dict()},
            "taken_over": len(self._ledger.taken_over),
            "timing": self._timing,
            "precision": precision_entry(job.python if job.compared else None, self._report if job.compared else None),
        }
        write_run(job.layout, run_document(job.model, job.atlas, whole, **entries))
        drawn = [] if self._pictures is None else self._pictures.finish(whole.failures)
        self._ledger.list_files(whole, self._earlier, drawn)

    def _conclude(self) -> int:
        job, out, report = self._job, self._job.settings.out, self._report
        whole = self._ledger.whole(self._result)
        taken = len(self._ledger.taken_over)
        LOG.info(
            "%d registered%s, %d failed; results in %s (%s)",
            len(whole.rows),
            f" ({taken} of them in earlier runs)" if taken else "",
            len(whole.failures),
            out,
            METRICS_NAME,
        )
        if self._timing is not None and self._result.n_run:
            LOG.info("%s", speed(self._timing, job.model.simulated))
        missing = self._say_missing()
        if report is None and job.compared:
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
        missing = self._ledger.missing(self._result)
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
    """Results that the run keeps: unchanged ones, and those of scans that it does not consider."""
    looked_at = {scan.subject for scan in job.looked_at}
    taken = taken_along([scan for scan in job.scans if scan.subject not in looked_at], job.keys, Records(job.layout))
    taken.update({decision.scan.subject: decision.record for decision in decisions if decision.record is not None})
    return taken


def _pictures(job: Job) -> Optional[Pictures]:
    if "qc" not in job.settings.outputs.outputs:
        return None
    from om_runner.qc.from_run import Pictures

    return Pictures(job.settings.out, job.atlas)


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
