# SPDX-License-Identifier: Apache-2.0
"""One run from settings to files: model, atlas, cohort, comparison, tables, run.json. Tables are written however the run ends."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import nibabel as nib
import numpy as np

from om_runner.batch import Cohort, CohortPlan, CohortResult
from om_runner.model import OfflineModel, open_model
from om_runner.outputs import Provenance
from om_runner.placing import BY_HEADERS, PlacingOptions, load_anywhere, load_atlas_anywhere
from om_runner.precision import PRECISION_FOLDER, clear_old_report, failure_message, write_precision_report
from om_runner.products import OutputOptions
from om_runner.reference import check_reference_python, reference_python
from om_runner.scans import LoadedScan, Scan, discover
from om_runner.store import CompareStore
from om_runner.tables import write_failures, write_metrics
from vxm_convert import __version__
from vxm_convert.acceptance import VERDICT_FAILED
from vxm_convert.artifacts import check_output_folder, sha256_of, write_json
from vxm_convert.errors import EXIT_OK, EXIT_USER, PrecisionError, VolumeError
from vxm_convert.manifest import begin_manifest, files_below, finish_manifest
from vxm_convert.profiles import DEFAULT_PROFILE, load_profile
from vxm_convert.scanfiles import find_segmentation
from vxm_convert.verification import RUN_NAME

LOG = logging.getLogger(__name__)

METRICS_NAME = "metrics.tsv"
FAILURES_NAME = "failures.tsv"
RUN_SCHEMA = 1
_BAR_COLUMNS = 80


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
    compared = settings.compare is None or settings.compare > 0
    profile = load_profile(settings.profile)
    python = reference_python(settings.reference_python)
    if compared:
        check_reference_python(python)
    atlas = load_atlas(settings.atlas, model, settings.placing)
    scans = discover(settings.input, settings.atlas, settings.limit)
    LOG.info("%d scans in %s, atlas %s, batch %d", len(scans), settings.input, settings.atlas.name, model.contract.model.batch)
    started = time.time()
    report = None
    with _output_folder(settings.out), CompareStore(settings.out, settings.compare) as store:
        store.put_fixed(atlas.image)
        # Nothing of an earlier run is touched before the device has taken the model.
        with runtime_factory(model, settings.device) as runtime, _progress_bar(len(scans), "registered") as progress:
            cohort = Cohort(_plan(model, settings, atlas), store, progress)
            earlier = begin_manifest(settings.out)
            clear_old_report(settings.out)
            try:
                cohort.run(scans, runtime)
            finally:
                _write_tables(settings, model, atlas, cohort.result, started, python if compared else None, None)
                _list_files(settings.out, cohort.result, earlier)
        if compared and store.subjects:
            # The device is closed by now: its memory and TensorFlow's never add up.
            with _progress_bar(len(store.subjects), "compared") as compared_progress:
                report = write_precision_report(
                    store,
                    model,
                    python,
                    settings.out,
                    atlas.seg,
                    atlas.affine,
                    settings.label_set,
                    cohort.result.n_run,
                    compared_progress,
                    settings.reference_cache,
                    profile=profile,
                )
            _write_tables(settings, model, atlas, cohort.result, started, python, report)
            _list_files(settings.out, cohort.result, earlier)
    return _conclude(settings, cohort.result, report)


def load_atlas(path: Path, model: OfflineModel, placing: PlacingOptions = BY_HEADERS) -> LoadedScan:
    """The fixed image on the network grid, checked like a scan, with a segmentation from the same .npz or a file beside it."""
    path = Path(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such atlas; pass the fixed image with --atlas")
    atlas = load_atlas_anywhere(Scan("atlas", path, find_segmentation(path)), model.contract, placing)
    if atlas.seg is None:
        LOG.warning("%s: no segmentation of the atlas (array `seg` or a file %s_seg), so no Dice", path, path.name.split(".")[0])
    return atlas


def _plan(model: OfflineModel, settings: Settings, atlas: LoadedScan) -> CohortPlan:
    details = {
        "simulated": model.simulated,
        "fixed": settings.atlas.name,
        "precision": model.contract.precision.name,
    }
    made_from = {"om": model.contract.hashes["om"], "atlas": atlas.sha256}
    return CohortPlan(
        contract=model.contract,
        atlas=atlas,
        out=settings.out,
        label_set=settings.label_set,
        toolchain_badge="simulated" if model.simulated else "real",
        provenance=Provenance(made_from, model.toolchain.describe(), details),
        load=lambda scan: load_anywhere(scan, model.contract, atlas, settings.placing),
        outputs=settings.outputs,
    )


def _write_tables(
    settings: Settings,
    model: OfflineModel,
    atlas: LoadedScan,
    result: CohortResult,
    started: float,
    python: Optional[str],
    report: Optional[Dict[str, Any]],
) -> None:
    write_metrics(settings.out / METRICS_NAME, result.rows)
    write_failures(settings.out / FAILURES_NAME, result.failures)
    precision = {
        "reference_python": python,
        "compared": 0 if report is None else report["n_samples"],
        "verdict": None if report is None else report["verdict"],
        "profile": None if report is None else {key: report["profile"][key] for key in ("name", "sha256")},
    }
    if report is not None:
        precision["tensorflow"] = report["reference"]["tensorflow"]
    write_json(
        settings.out / RUN_NAME,
        {
            "schema": RUN_SCHEMA,
            "command": settings.command,
            "started": _utc(started),
            "finished": _utc(time.time()),
            "toolchain": model.toolchain.describe(),
            "simulated": model.simulated,
            "device": settings.device,
            "versions": {
                "vxm_convert": __version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "nibabel": nib.__version__,
            },
            "model": {
                "path": os.path.abspath(str(model.om_path)),
                "sha256": model.contract.hashes["om"],
                "contract": os.path.abspath(str(model.contract_path)),
                "contract_sha256": sha256_of(model.contract_path),
            },
            "exported_with": dict(model.contract.tools),
            "export_hashes": dict(model.contract.hashes),
            "atlas": {"path": os.path.abspath(str(settings.atlas)), "sha256": atlas.sha256, "intensity": atlas.intensity},
            "inputs": result.inputs,
            "label_set": settings.label_set,
            "label_interpolation": settings.outputs.label_interpolation,
            "geometry": {**vars(settings.placing), **settings.outputs.to_dict()},
            "registered": len(result.rows),
            "failed": len(result.failures),
            "precision": precision,
        },
    )


def _list_files(out: Path, result: CohortResult, earlier: Dict[str, str]) -> None:
    """The hash of everything that this run and `earlier` ones left, so that `vxm_convert verify` finds any damaged file."""
    made = files_below(out, PRECISION_FOLDER, *(row.subject for row in result.rows))
    finish_manifest(out, made + [METRICS_NAME, FAILURES_NAME, RUN_NAME], earlier)


def _conclude(settings: Settings, result: CohortResult, report: Optional[Dict[str, Any]]) -> int:
    LOG.info("%d registered, %d failed; results in %s (%s)", len(result.rows), len(result.failures), settings.out, METRICS_NAME)
    if report is not None:
        LOG.info("precision report over n = %d scans: %s", report["n_samples"], settings.out / PRECISION_FOLDER / "report.html")
        if report["verdict"] == VERDICT_FAILED:
            raise PrecisionError(failure_message(settings.out / PRECISION_FOLDER, report))
    if result.failures:
        LOG.error("%d scans failed, reasons in %s", len(result.failures), settings.out / FAILURES_NAME)
        return EXIT_USER
    return EXIT_OK


@contextmanager
def _output_folder(out: Path) -> Iterator[None]:
    """Made and proved writable; gone again when a run that made it put nothing there."""
    existed = out.exists()
    check_output_folder(out)
    try:
        yield
    finally:
        if not existed and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def _progress_bar(total: int, unit: str) -> Iterator[Callable[[int], Any]]:
    """A bar on a terminal, nothing elsewhere (log lines tell the same); log lines do not tear it."""
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    # Some pseudo-terminals report a size of 0x0, on which tqdm draws nothing: both sizes are given.
    width = min(shutil.get_terminal_size().columns or _BAR_COLUMNS, _BAR_COLUMNS)
    with logging_redirect_tqdm(), tqdm(total=total, unit=" scan", desc=unit, ncols=width, nrows=2) as bar:
        yield bar.update


def _one_line(described: Dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in described.items())


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
