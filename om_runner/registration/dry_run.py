# SPDX-License-Identifier: Apache-2.0
"""``--dry-run``: what a run would do with each scan, and which it would refuse by header, intensities and segmentation.
Reads the scans as a run does; opens no device, searches no affine, writes nothing.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from om_runner.inputs.placement import judge_anywhere
from om_runner.inputs.scans import Scan
from om_runner.registration.job import Job
from om_runner.registration.queues import read_ahead
from om_runner.registration.run import decided
from om_runner.results.cohort_record import known
from om_runner.results.collect import view_of
from om_runner.results.products import check_formats
from om_runner.results.resume import Decision
from vxm_convert.errors import EXIT_OK, EXIT_USER, VxmError
from vxm_convert.text import line_of

#: of the column of subjects
_WIDEST = 40


def dry_run(job: Job) -> Tuple[str, int]:
    """The text of a dry run, and the exit code of the run that it foresees."""
    decisions, _ = decided(job)
    todo = [decision.scan for decision in decisions if not decision.skip]
    refused = _refused(job, todo)
    text = _text(job, decisions, refused)
    considered, shard = {scan.subject for scan in job.looked_at}, job.settings.batch.shard is not None
    others = view_of(job.layout, [scan for scan in known(job.scans) if scan.subject not in considered], job.keys.of_run)
    cohort = {scan.subject for scan in job.scans}
    failed = any(row.subject in cohort - considered for row in job.old_failures)
    return text, EXIT_USER if refused or failed or (others.missing and not shard) else EXIT_OK


def _refused(job: Job, scans: Sequence[Scan]) -> Dict[str, str]:
    """Subject → the reason for which a run would refuse it."""

    def judge(scan: Scan) -> Optional[str]:
        try:
            job.layout.check(scan)
            fixed = job.fixed.of(scan)
            loaded = judge_anywhere(scan, job.contract, fixed, job.settings.placing)
            if loaded is not None:
                check_formats(loaded, fixed, job.settings.outputs)
        except VxmError as exc:
            return str(exc)
        return None

    threads = max(1, job.settings.batch.threads // 2)
    judged = ((scan.subject, future.result()) for scan, future in read_ahead(scans, judge, threads, threads))
    return {subject: why for subject, why in judged if why is not None}


def _text(job: Job, decisions: Sequence[Decision], refused: Dict[str, str]) -> str:
    width = min(max([len(decision.scan.subject) for decision in decisions] + [0]), _WIDEST)
    lines: List[str] = []
    for decision in decisions:
        scan = decision.scan
        word = "skip" if decision.skip else "refuse" if scan.subject in refused else "register"
        why = refused.get(scan.subject, f"{scan.path.name}: {decision.why}")
        lines.append(f"{word:8s}  {scan.subject:{width}s}  {line_of(why)}")
    skipped = sum(decision.skip for decision in decisions)
    numbers = [f"{len(decisions) - skipped - len(refused)} to register", f"{skipped} to skip"]
    numbers += [f"{len(refused)} would be refused"] if refused else []
    done = "nothing was written, no device was opened" + (
        ", no affine was searched" if job.settings.placing.affine == "auto" else ""
    )
    return "\n".join(lines + [f"{', '.join(numbers)}; {done} ({job.model.badge} toolchain)"]) + "\n"
