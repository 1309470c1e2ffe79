# SPDX-License-Identifier: Apache-2.0
"""From settings to a run: opens and checks model, atlas and scans, decides what is to be done, and has it done or told."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from om_runner.batch_args import BatchOptions
from om_runner.bids.cohort import find_cohort
from om_runner.bids.options import BidsRequest
from om_runner.cohortrun import CohortRun, Job, decided
from om_runner.earlier import failed_scans, read_failures
from om_runner.model import OfflineModel, open_model
from om_runner.placing import BY_HEADERS, PlacingOptions, load_atlas_anywhere
from om_runner.products import OutputOptions
from om_runner.reference import check_reference_python, reference_python
from om_runner.resume import Decision, Keys
from om_runner.runlock import output_folder
from om_runner.scans import LoadedScan, Scan
from om_runner.subjectlog import collecting
from om_runner.tables import FailureRow
from vxm_convert.errors import EXIT_OK, ArtifactError, VolumeError
from vxm_convert.geometry.affine_search import simpleitk_version
from vxm_convert.profiles import DEFAULT_PROFILE, load_profile
from vxm_convert.scanfiles import find_segmentation

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """A parsed command line; `compare` is how many subjects to compare, None for all."""

    input: Path
    atlas: Path
    model: Path
    contract: Optional[Path]
    out: Path
    compare: Optional[int]
    label_set: str
    toolchain: Optional[str]
    device: int
    reference_python: Optional[str]
    limit: Optional[int]
    command: List[str]
    reference_cache: Optional[Path] = None
    #: name or file of the acceptance profile
    profile: str = DEFAULT_PROFILE
    placing: PlacingOptions = BY_HEADERS
    outputs: OutputOptions = OutputOptions()
    batch: BatchOptions = BatchOptions()
    #: BIDS dataset in, derivative out
    bids: BidsRequest = BidsRequest()


def open_runtime(model: OfflineModel, device: int) -> Any:
    """The pyACL runtime of the model's toolchain, as an unopened context manager."""
    from om_runner.acl_runtime import AclRuntime

    return AclRuntime(model.toolchain.load_acl(), model.om_path, model.contract, device)


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
    LOG.info("%d scans in %s, atlas %s, batch %d", len(job.scans), settings.input, settings.atlas.name, model.contract.model.batch)
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
    return Job(model, settings, profile, python, atlas, layout, keys, scans, looked_at[: settings.limit], failures or [])


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
    lines = [f"{'skip' if d.skip else 'register':8s}  {d.scan.subject:{width}s}  {d.scan.path.name}: {d.why}" for d in decisions]
    skipped = sum(decision.skip for decision in decisions)
    total = f"{len(decisions) - skipped} to register, {skipped} to skip; nothing was written, no device was opened"
    return "\n".join(lines + [f"{total} ({model.badge} toolchain)"]) + "\n"


def load_atlas(path: Path, model: OfflineModel, placing: PlacingOptions = BY_HEADERS) -> LoadedScan:
    """The fixed image on the network grid, checked like a scan, with a segmentation from the same .npz or a file beside it."""
    path = Path(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such atlas; pass the fixed image with --atlas")
    atlas = load_atlas_anywhere(Scan("atlas", path, find_segmentation(path)), model.contract, placing)
    if atlas.seg is None:
        LOG.warning("%s: no segmentation of the atlas (array `seg` or a file %s_seg), so no Dice", path, path.name.split(".")[0])
    return atlas


def _one_line(described: Dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in described.items())
