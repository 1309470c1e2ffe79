# SPDX-License-Identifier: Apache-2.0
"""From settings to a run: opens and checks model, atlas and scans, decides what is to be done, and has it done or
told.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional

from om_runner.bids.request import find_cohort
from om_runner.device.acl_runtime import open_runtime
from om_runner.device.offline_model import OfflineModel, open_model
from om_runner.inputs.placement import load_atlas
from om_runner.precision.reference import check_reference_python, reference_python
from om_runner.registration.run import CohortRun, Job, decided
from om_runner.registration.settings import Settings
from om_runner.results.lock import output_folder
from om_runner.results.previous_run import failed_scans, read_failures
from om_runner.results.resume import Decision, Keys
from om_runner.results.subject_log import collecting
from om_runner.results.tables import FailureRow
from vxm_convert.errors import EXIT_OK, ArtifactError
from vxm_convert.profiles.profile import load_profile
from vxm_convert.scans.affine_search import simpleitk_version

LOG = logging.getLogger(__name__)


def run_session(settings: Settings, runtime_factory: Callable[[OfflineModel, int], Any] = open_runtime) -> int:
    """Register the cohort and report; returns the exit code.

    Raises
    ------
    VxmError
        What stops the run as a whole; single bad scans become rows and exit code 1.
    PrecisionError
        After everything is written, when the comparison found NaN or Inf.
    """
    model = open_model(settings.model, settings.contract, settings.toolchain)
    # A simulated result says so even to those who asked for quiet.
    level = logging.WARNING if model.simulated else logging.INFO
    LOG.log(level, "%s toolchain: %s", model.badge, _one_line(model.toolchain.describe()))
    try:
        return _run_with(model, settings, runtime_factory)
    finally:
        closing = "no Ascend device took part in these results" if model.simulated else "results of a real device"
        LOG.log(level, "%s toolchain: %s", model.badge, closing)


def _run_with(model: OfflineModel, settings: Settings, runtime_factory: Callable[[OfflineModel, int], Any]) -> int:
    job = _prepare(model, settings)
    LOG.info(
        "%d scans in %s, atlas %s, batch %d",
        len(job.scans),
        settings.input,
        settings.atlas.name,
        model.contract.model.batch,
    )
    if settings.batch.dry_run:
        sys.stdout.write(_told(decided(job)[0], model))
        return EXIT_OK
    if job.compared:
        check_reference_python(job.python)
    with output_folder(settings.out), collecting():
        return CohortRun(job).go(runtime_factory)


def _prepare(model: OfflineModel, settings: Settings) -> Job:
    profile = load_profile(settings.profile)
    if settings.placing.affine == "auto":
        # Once and now, not for every scan with the device waiting.
        simpleitk_version()
    python = reference_python(settings.reference_python)
    atlas = load_atlas(settings.atlas, model, settings.placing)
    scans, layout = find_cohort(replace(settings, limit=None), model)
    keys = Keys(model, atlas, settings.label_set, settings.placing, settings.outputs, layout.style)
    failures = _old_failures(settings)
    looked_at = failed_scans(settings.out, scans, failures) if settings.batch.retry_failed else scans
    return Job(
        model, settings, profile, python, atlas, layout, keys, scans, looked_at[: settings.limit], failures or []
    )


def _old_failures(settings: Settings) -> Optional[List[FailureRow]]:
    try:
        return read_failures(settings.out)
    except ArtifactError as exc:
        if settings.batch.retry_failed:
            raise
        LOG.warning("%s", exc)
        return None


def _told(decisions: List[Decision], model: OfflineModel) -> str:
    """What a dry run says."""
    width = max([len(decision.scan.subject) for decision in decisions] + [0])
    lines = [
        f"{'skip' if d.skip else 'register':8s}  {d.scan.subject:{width}s}  {d.scan.path.name}: {d.why}"
        for d in decisions
    ]
    skipped = sum(decision.skip for decision in decisions)
    total = f"{len(decisions) - skipped} to register, {skipped} to skip; nothing was written, no device was opened"
    return "\n".join(lines + [f"{total} ({model.badge} toolchain)"]) + "\n"


def _one_line(described: Dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in described.items())
