# SPDX-License-Identifier: Apache-2.0
"""From settings to a run: opens and checks model, atlas and scans, decides what to do, then does or prints it."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Tuple

from om_runner.bids.options import BidsRequest
from om_runner.bids.request import DatasetRun, dataset_cohort, dataset_layout, read_as_dataset
from om_runner.device.acl_runtime import open_runtime
from om_runner.device.offline_model import OfflineModel, open_model
from om_runner.device.runtime import Runtime
from om_runner.inputs.lists import without_lists
from om_runner.inputs.pairs import read_pairs
from om_runner.inputs.placement import load_atlas
from om_runner.inputs.scans import LoadedScan, Scan, discover
from om_runner.inputs.series import frame_by_frame
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
from vxm_convert.toolchain.first_compilation import compile_beside

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
    LOG.info("%s, batch %d", _described(job), model.contract.model.batch)
    if settings.batch.dry_run:
        text, code = dry_run(job)
        sys.stdout.write(text)
        return code
    if job.compared:
        check_reference_python(job.python)
    check_engine()
    set_threads(settings.batch.threads)
    compile_beside(settings.batch.threads, model.simulated)
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
    atlas = _atlas(model, settings)
    scans, layout = _cohort(model, settings)
    if layout.style == Layout.style:
        read = {path: None for scan in scans for path in _files(scan)}
        others = [path for path in (settings.atlas, model.om_path, model.contract_path) if path is not None]
        check_subject_folders(settings.out, [scan.subject for scan in scans], [*read, *others])
    failures = _old_failures(settings)
    looked_at = scans if settings.batch.shard is None else settings.batch.shard.of(scans)
    if settings.batch.retry_failed:
        looked_at = failed_scans(settings.out, looked_at, failures)
    return Job(model, settings, profile, python, atlas, layout, scans, looked_at[: settings.limit], failures or [])


def worker_job(model: OfflineModel, settings: Settings) -> Job:
    """The job of a process that gets its scans one by one from another."""
    profile = load_profile(settings.profile)
    atlas = _atlas(model, settings)
    dataset = _dataset_run(settings)
    layout = Layout(settings.out) if dataset is None else dataset_layout(dataset, model)
    return Job(model, settings, profile, "", atlas, layout, [], [], [])


def _atlas(model: OfflineModel, settings: Settings) -> Optional[LoadedScan]:
    return None if settings.atlas is None else load_atlas(settings.atlas, model, settings.placing)


def _described(job: Job) -> str:
    """What is registered to what."""
    settings = job.settings
    if settings.atlas is None:
        fixed = {(scan.fixed.path, scan.fixed.seg_path) for scan in job.scans if scan.fixed is not None}
        return f"{len(job.scans)} pairs in {settings.input}, {len(fixed)} fixed images"
    where = "the folders and files given" if settings.more_inputs else settings.input
    return f"{len(job.scans)} scans in {where}, atlas {settings.atlas.name}"


def _cohort(model: OfflineModel, settings: Settings) -> Tuple[List[Scan], Layout]:
    """The scans of the input and the layout of their results."""
    if settings.atlas is None:
        return read_pairs(settings.input), Layout(settings.out)
    dataset = _dataset_run(settings)
    if dataset is not None and settings.placing.series is not None:
        raise VolumeError(
            "--series: results of a BIDS dataset have no names for frames; name the files themselves with --input"
        )
    if dataset is not None:
        return dataset_cohort(dataset, model)
    if settings.bids != BidsRequest():
        raise VolumeError("--input: several folders or scans, for which BIDS options have no meaning; give one dataset")
    for source in without_lists((settings.input, *settings.more_inputs)):
        check_apart(settings.out, source, "--input")
    scans = discover(settings.input, settings.atlas, more=settings.more_inputs)
    return scans if settings.placing.series is None else frame_by_frame(scans), Layout(settings.out)


def _files(scan: Scan) -> Iterator[Path]:
    for one in (scan, scan.fixed):
        if one is not None:
            yield from filter(None, (one.path, one.seg_path))


def _dataset_run(settings: Settings) -> Optional[DatasetRun]:
    """The request of a run over a BIDS dataset, if the input is one."""
    if settings.atlas is None or settings.more_inputs or not read_as_dataset(settings.bids, settings.input):
        return None
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
