# SPDX-License-Identifier: Apache-2.0
"""From the model's outputs for one scan to its files, its row of the table, its log and its record; called by writing
threads.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from om_runner.inputs.fixed import warn_of_numbering
from om_runner.inputs.scans import LoadedScan
from om_runner.names import LOG_NAME
from om_runner.qc.measures import table_warnings
from om_runner.registration.job import Job
from om_runner.registration.outcome import ModelOutputs, products_of
from om_runner.registration.timeline import EXECUTE, PRODUCTS, STAGES, WRITE, Timeline
from om_runner.results.columns import MetricsRow
from om_runner.results.failures import FailureRecords
from om_runner.results.products import Registered
from om_runner.results.resume import Records
from om_runner.results.subject_log import log_text, notes_to, warnings_in
from om_runner.results.writer import Writer, provenance_of
from vxm_convert.artifacts.files import write_text
from vxm_convert.memory import give_back
from vxm_convert.metrics.labels import label_set

if TYPE_CHECKING:
    from om_runner.qc.from_run import Drawing, Pictures

LOG = logging.getLogger(__name__)


class TakenOver(Exception):
    """A claim was lost: the scan is another process's."""


@dataclass
class Ready:
    """A scan in work, with its fixed image, its warnings and its wall seconds so far, per stage."""

    loaded: LoadedScan
    fixed: LoadedScan
    notes: List[str]
    seconds: Dict[str, float]

    @property
    def subject(self) -> str:
        return self.loaded.scan.subject


class Finisher:
    """Makes and writes a subject's results; several threads may use it at the same time.

    Parameters
    ----------
    job : Job
    timeline : Timeline — records the time of making and writing.
    pictures : Pictures or None — draws each subject while its results are written.
    ours : callable — whether this process still holds the claim on a subject.
    threads : int — for the files of one subject.
    """

    def __init__(
        self,
        job: Job,
        timeline: Timeline,
        pictures: Optional[Pictures] = None,
        ours: Callable[[str], bool] = lambda subject: True,
        threads: int = 1,
    ) -> None:
        self._job, self._timeline, self._pictures, self._threads = job, timeline, pictures, threads
        self._outputs, self._label_set = job.settings.outputs, job.settings.label_set
        self._labels = label_set(self._label_set)
        if job.atlas is not None:
            warn_of_numbering(job.atlas, self._label_set)
        self._records, self._failures = Records(job.layout), FailureRecords(job.layout.out)
        self._ours = ours

    def finish(self, ready: Ready, outputs: List[ModelOutputs]) -> MetricsRow:
        """All results of a subject, and its record.

        Parameters
        ----------
        outputs : list of one ModelOutputs — taken from it, so that they are let go while the results are made.

        Raises
        ------
        ImplausibleError
            What the model returned cannot be a registration of this scan.
        TakenOver
            Another process took this process for dead and has the subject now.
        VxmError
            If the results cannot be used or written; no files of this subject are left behind.
        """
        with notes_to(ready.notes):
            with self._timeline.span(PRODUCTS, [ready.subject]) as span:
                done, figures = self._products(ready, outputs)
            ready.seconds[PRODUCTS] = span.wall
            give_back()
            made = [done]
            del done
            return self._write(ready, made, figures)

    def _products(self, ready: Ready, outputs: List[ModelOutputs]) -> Tuple[Registered, Dict[str, Any]]:
        job = self._job
        steps = job.contract.model.integration_steps
        done, figures = products_of(ready.loaded, ready.fixed, outputs, self._outputs, job.profile, self._labels, steps)
        for text in table_warnings(figures):
            LOG.warning("%s: %s", ready.subject, text)
        return done, figures

    def _write(self, ready: Ready, made: List[Registered], figures: Dict[str, Any]) -> MetricsRow:
        """`made` is emptied, so that what the pictures do not show can be let go."""
        loaded, job, done = ready.loaded, self._job, made.pop()
        inverse = [] if done.inverse is None else [done.inverse]
        # The writer has the only one, and lets go of it.
        done = replace(done, inverse=None)
        agrees = bool(np.allclose(loaded.affine, ready.fixed.affine, atol=1e-3))
        provenance = provenance_of(job.model, ready.fixed, job.atlas is None).of(
            {"moving": loaded.sha256}, subject=ready.subject, moving_header_agrees=agrees
        )
        if not self._ours(ready.subject):
            raise TakenOver(ready.subject)
        self._records.forget(ready.subject)
        with self._timeline.span(WRITE, [ready.subject]) as span:
            place = self._with_log(job.layout.place(loaded.scan), ready, figures)
            writer = Writer(self._outputs, ready.fixed, self._label_set, self._threads)
            drawings: List[Drawing] = []
            draw = [] if self._pictures is None else [partial(self._draw, self._pictures, drawings, ready, done)]
            written = writer.write(place, loaded, done, provenance, inverse, draw)
            span.elsewhere = written.cpu
        ready.seconds[WRITE] = span.wall
        row = MetricsRow(
            subject=ready.subject,
            label_set=self._label_set,
            device_seconds=ready.seconds[EXECUTE],
            total_seconds=sum(ready.seconds.values()),
            intensity=loaded.intensity,
            toolchain=job.badge,
            source=loaded.scan.path.name,
            fixed=ready.fixed.scan.called or ready.fixed.scan.path.name,
            warnings=warnings_in(ready.notes, ready.subject, (loaded.scan.path, loaded.scan.seg_path)),
            **figures,
            **written.figures,
        )
        drawn: List[str] = []
        if self._pictures is not None:
            with self._timeline.span(PRODUCTS, [ready.subject]) as span:
                drawn, row = self._pictures.add(drawings.pop(), row, provenance)
            row = replace(row, total_seconds=row.total_seconds + span.wall)
            seconds = {**ready.seconds, "pictures": span.wall}
            log = job.layout.path_of(ready.subject, LOG_NAME)
            write_text(log, self._log(ready, figures, seconds, row.warnings))
        job.layout.note(row)
        self._failures.forget(ready.subject)
        digests = ((one.sha256, one.seg_sha256) for one in (loaded, ready.fixed))
        self._records.write(job.keys.of(loaded.scan, *digests), row, drawn)
        return row

    def _draw(self, pictures: Pictures, drawings: List[Drawing], ready: Ready, done: Registered) -> None:
        with self._timeline.span(PRODUCTS, [ready.subject]):
            drawings.append(pictures.drawing(ready.loaded, ready.fixed, done, self._label_set))

    @contextmanager
    def _with_log(self, place: ContextManager[Path], ready: Ready, figures: Dict[str, Any]) -> Iterator[Path]:
        """The subject's folder; adds the log after all other files."""
        begun = time.perf_counter()
        with place as folder:
            yield folder
            # What is left to do is a rename.
            seconds = {**ready.seconds, WRITE: time.perf_counter() - begun}
            write_text(folder / LOG_NAME, self._log(ready, figures, seconds))

    def _log(
        self, ready: Ready, figures: Dict[str, Any], seconds: Dict[str, float], warnings: Sequence[str] = ()
    ) -> str:
        job = self._job
        head = {
            "subject": ready.subject,
            "scan": f"{ready.loaded.scan.path} sha256 {ready.loaded.sha256}",
            "atlas" if job.atlas else "fixed": f"{ready.fixed.scan.path} sha256 {ready.fixed.sha256}",
            "model": f"sha256 {job.contract.hashes['om']}",
            "toolchain": f"{job.badge.upper()} {job.model.toolchain.describe()['version']}",
            "intensities": ready.loaded.intensity,
        }
        known = ", ".join(f"{name} {value:.6g}" for name, value in figures.items() if isinstance(value, (int, float)))
        # The pictures' own warnings are the last of the row's.
        said = warnings_in(ready.notes, ready.subject, (ready.loaded.scan.path, ready.loaded.scan.seg_path))
        notes = ready.notes + [f"WARNING: {text}" for text in warnings if text not in said]
        ordered = {stage: seconds[stage] for stage in (*STAGES, "pictures") if stage in seconds}
        ordered["all stages"] = sum(ordered.values())
        return log_text(head, notes, ordered, f"registered: {known}")


def compared(job: Job, ready: Ready, moved: np.ndarray, flow: np.ndarray) -> Tuple[Optional[np.ndarray], ...]:
    """The arrays of a scan for the comparison, in the order of `CompareStore.put`."""
    arrays = (ready.loaded.image, ready.loaded.seg, moved, flow)
    return arrays if job.atlas is not None else (*arrays, ready.fixed.image, ready.fixed.seg)


def describe(row: MetricsRow) -> str:
    """One line for the log."""
    known = row.dice_before is not None and row.dice_after is not None
    score = (
        f"Dice ({row.label_set}, {row.n_labels} labels) {row.dice_before:.3f} -> {row.dice_after:.3f}"
        if known
        else "no Dice (a segmentation is missing)"
    )
    return (
        f"{row.subject}: {score}, folding {100 * row.folding_fraction:.3f} %, longest displacement "
        f"{row.flow_max_voxel:.2f} voxel, "
        f"device {row.device_seconds:.2f} s, total {row.total_seconds:.2f} s ({row.toolchain})"
    )
