# SPDX-License-Identifier: Apache-2.0
"""From settings to a run: opens and checks model, atlas and scans, decides what to do, then does or prints it."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Callable, List, Optional, Tuple

from om_runner.bids.options import BidsRequest
from om_runner.bids.request import DatasetRun, dataset_cohort, dataset_layout, read_as_dataset
from om_runner.device.acl_runtime import open_runtime
from om_runner.device.offline_model import OfflineModel, open_model
from om_runner.device.runtime import Runtime
from om_runner.inputs.placement import load_atlas
from om_runner.inputs.scans import Scan, discover
from om_runner.precision.reference import check_reference_python, reference_python
from om_runner.registration.dry_run import dry_run
from om_runner.registration.engine import Engine
from om_runner.registration.job import Job, Settings
from om_runner.registration.loop import LocalEngine
from om_runner.registration.profiling import operators_profiled
from om_runner.registration.run import CohortRun
from om_runner.results.columns import FailureRow
from om_runner.results.failures import FailureRecords
from om_runner.results.layout import Layout
from om_runner.results.previous_run import failed_scans, read_failures
from om_runner.results.subject_log import collecting
from om_runner.sharing.folder import output_folder
from vxm_convert.affine.affine_search import check_search
from vxm_convert.artifacts.targets import check_apart, check_subject_folders
from vxm_convert.errors import ArtifactError, VolumeError
from vxm_convert.geometry.compiled import check_engine, set_threads
from vxm_convert.profiles.profile import load_profile

LOG = logging.getLogger(__name__)


def run_session(
    settings: Settings,
    runtime_factory: Callable[[OfflineModel, int], Runtime] = open_runtime,
    engine: Optional[Engine] = None,
) -> int:
    """Register the cohort and report; returns the exit code.

    Parameters
    ----------
    runtime_factory : opens the model on one device of this process.
    engine : Engine or None — carries the scans to other processes instead.

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
        return _run_with(model, settings, engine or LocalEngine(runtime_factory))
    finally:
        LOG.log(level, "%s", model.toolchain.sentence())


def _run_with(model: OfflineModel, settings: Settings, engine: Engine) -> int:
    job = _prepare(model, settings)
    LOG.info(
        "%d scans in %s, atlas %s, batch %d",
        len(job.scans),
        "the folders and files given" if settings.more_inputs else settings.input,
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
    with output_folder(settings.out) as claims, collecting():
        if not settings.profile_ops:
            return CohortRun(job, claims).go(engine)
        if not isinstance(engine, LocalEngine):
            raise VolumeError("--profile-ops: times the operators of one device; give --device instead of several")
        with operators_profiled(settings.out, model) as factory:
            return CohortRun(job, claims).go(LocalEngine(factory))


def _prepare(model: OfflineModel, settings: Settings) -> Job:
    settings = replace(settings, placing=settings.placing.for_model(model.contract))
    profile = load_profile(settings.profile)
    if settings.placing.affine == "auto":
        # Check once now, not for every scan while the device waits.
        check_search(model.contract.model.volume_shape)
    python = reference_python(settings.reference_python)
    atlas = load_atlas(settings.atlas, model, settings.placing)
    scans, layout = _cohort(model, settings)
    if layout.style == Layout.style:
        read = [path for scan in scans for path in (scan.path, scan.seg_path) if path is not None]
        read += [settings.atlas, model.om_path, model.contract_path]
        check_subject_folders(settings.out, [scan.subject for scan in scans], read)
    failures = _old_failures(settings)
    looked_at = scans if settings.batch.shard is None else settings.batch.shard.of(scans)
    if settings.batch.retry_failed:
        looked_at = failed_scans(settings.out, looked_at, failures)
    return Job(model, settings, profile, python, atlas, layout, scans, looked_at[: settings.limit], failures or [])


def worker_job(model: OfflineModel, settings: Settings) -> Job:
    """The job of a process that gets its scans one by one from another."""
    profile = load_profile(settings.profile)
    atlas = load_atlas(settings.atlas, model, settings.placing)
    layout = dataset_layout(_dataset_run(settings), model) if _is_dataset(settings) else Layout(settings.out)
    return Job(model, settings, profile, "", atlas, layout, [], [], [])


def _cohort(model: OfflineModel, settings: Settings) -> Tuple[List[Scan], Layout]:
    """The scans of the input and the layout of their results."""
    if _is_dataset(settings):
        return dataset_cohort(_dataset_run(settings), model)
    if settings.bids != BidsRequest():
        raise VolumeError("--input: several folders or scans, for which BIDS options have no meaning; give one dataset")
    for source in (settings.input, *settings.more_inputs):
        check_apart(settings.out, source, "--input")
    return discover(settings.input, settings.atlas, more=settings.more_inputs), Layout(settings.out)


def _is_dataset(settings: Settings) -> bool:
    return not settings.more_inputs and read_as_dataset(settings.bids, settings.input)


def _dataset_run(settings: Settings) -> DatasetRun:
    space, affine = settings.outputs.space, settings.placing.affine
    return DatasetRun(settings.input, settings.atlas, settings.out, settings.bids, space, affine)


def _old_failures(settings: Settings) -> Optional[List[FailureRow]]:
    records = FailureRecords(settings.out)
    if records.exist:
        return list(records.everything().values())
    try:
        return read_failures(settings.out)
    except ArtifactError as exc:
        if settings.batch.retry_failed:
            raise
        LOG.warning("%s", exc)
        return None
