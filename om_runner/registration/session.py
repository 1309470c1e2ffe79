# SPDX-License-Identifier: Apache-2.0
"""From settings to a run: opens and checks model, atlas and scans, decides what to do, then does or prints it."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Callable, List, Optional, Tuple

from om_runner.bids.options import BidsRequest
from om_runner.bids.request import DatasetRun, dataset_cohort, read_as_dataset
from om_runner.device.acl_runtime import open_runtime
from om_runner.device.offline_model import OfflineModel, open_model
from om_runner.device.runtime import Runtime
from om_runner.inputs.placement import load_atlas
from om_runner.inputs.scans import Scan, discover
from om_runner.precision.reference import check_reference_python, reference_python
from om_runner.registration.dry_run import dry_run
from om_runner.registration.job import Job, Settings
from om_runner.registration.profiling import operators_profiled
from om_runner.registration.run import CohortRun
from om_runner.results.layout import Layout
from om_runner.results.lock import output_folder
from om_runner.results.previous_run import failed_scans, read_failures
from om_runner.results.subject_log import collecting
from om_runner.results.tables import FailureRow
from vxm_convert.artifacts.targets import check_apart, check_subject_folders
from vxm_convert.errors import ArtifactError, VolumeError
from vxm_convert.geometry.compiled import check_engine, set_threads
from vxm_convert.profiles.profile import load_profile
from vxm_convert.scans.affine_search import simpleitk_version

LOG = logging.getLogger(__name__)


def run_session(settings: Settings, runtime_factory: Callable[[OfflineModel, int], Runtime] = open_runtime) -> int:
    """Register the cohort and report; returns the exit code.

    Raises
    ------
    VxmError
        If the whole run must stop; single bad scans become rows and exit code 1.
    PrecisionError
        After everything is written, if the comparison found NaN or Inf.
    """
    model = open_model(settings.model, settings.contract, settings.toolchain)
    # --quiet does not hide that results are simulated.
    level = logging.WARNING if model.simulated else logging.INFO
    LOG.log(level, "%s", model.toolchain.sentence())
    try:
        return _run_with(model, settings, runtime_factory)
    finally:
        LOG.log(level, "%s", model.toolchain.sentence())


def _run_with(model: OfflineModel, settings: Settings, runtime_factory: Callable[[OfflineModel, int], Runtime]) -> int:
    job = _prepare(model, settings)
    LOG.info(
        "%d scans in %s, atlas %s, batch %d",
        len(job.scans),
        settings.input,
        settings.atlas.name,
        model.contract.model.batch,
    )
    if settings.batch.dry_run:
        text, code = dry_run(job)
        sys.stdout.write(text)
        return code
    if job.compared:
        check_reference_python(job.python)
    check_engine()
    set_threads(settings.batch.threads)
    with output_folder(settings.out), collecting():
        if not settings.profile_ops:
            return CohortRun(job).go(runtime_factory)
        with operators_profiled(settings.out, model) as factory:
            return CohortRun(job).go(factory)


def _prepare(model: OfflineModel, settings: Settings) -> Job:
    settings = replace(settings, placing=settings.placing.for_model(model.contract))
    profile = load_profile(settings.profile)
    if settings.placing.affine == "auto":
        # Check once now, not for every scan while the device waits.
        simpleitk_version()
    python = reference_python(settings.reference_python)
    atlas = load_atlas(settings.atlas, model, settings.placing)
    scans, layout = _cohort(model, settings)
    if layout.style == Layout.style:
        read = [path for scan in scans for path in (scan.path, scan.seg_path) if path is not None]
        read += [settings.atlas, model.om_path, model.contract_path]
        check_subject_folders(settings.out, [scan.subject for scan in scans], read)
    failures = _old_failures(settings)
    looked_at = failed_scans(settings.out, scans, failures) if settings.batch.retry_failed else scans
    return Job(model, settings, profile, python, atlas, layout, scans, looked_at[: settings.limit], failures or [])


def _cohort(model: OfflineModel, settings: Settings) -> Tuple[List[Scan], Layout]:
    """The scans of the input and the layout of their results."""
    if not settings.more_inputs and read_as_dataset(settings.bids, settings.input):
        space, affine = settings.outputs.space, settings.placing.affine
        run = DatasetRun(settings.input, settings.atlas, settings.out, settings.bids, space, affine)
        return dataset_cohort(run, model)
    if settings.bids != BidsRequest():
        raise VolumeError("--input: several folders or scans, for which BIDS options have no meaning; give one dataset")
    for source in (settings.input, *settings.more_inputs):
        check_apart(settings.out, source, "--input")
    return discover(settings.input, settings.atlas, more=settings.more_inputs), Layout(settings.out)


def _old_failures(settings: Settings) -> Optional[List[FailureRow]]:
    try:
        return read_failures(settings.out)
    except ArtifactError as exc:
        if settings.batch.retry_failed:
            raise
        LOG.warning("%s", exc)
        return None
