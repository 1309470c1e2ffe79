# SPDX-License-Identifier: Apache-2.0
"""OUT/precision: compares the stored subjects and writes report.json, report.csv, report.html and junit.xml."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import AbstractSet, Any, Callable, Dict, List, Mapping, Optional, Sequence, Set

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.names import PRECISION_FOLDER, REPORT_CSV, REPORT_JSON, REPORT_JUNIT, REPORT_NAMES, REPORT_PAGE
from om_runner.precision.acceptance import VERDICT_FAILED, VERDICT_OK, Judgement, judge_cohort
from om_runner.precision.comparison import Standard, SubjectComparison, compare_all, summary
from om_runner.precision.junit import junit_xml
from om_runner.precision.page.gallery import Gallery, Views
from om_runner.precision.page.page import build_page
from om_runner.precision.provenance import layers_of, precision_plan, provenance
from om_runner.precision.reference import ReferenceProcess
from om_runner.precision.reference_cache import open_reference
from om_runner.precision.store import CompareStore
from vxm_convert.artifacts.files import MAX_JSON_BYTES, read_bounded, remove_earlier, sha256_of, write_bytes, write_text
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.reports import finite, report_head, write_report_csv, write_report_json
from vxm_convert.errors import VxmError
from vxm_convert.geometry.orientations import spacing_mm
from vxm_convert.metrics.labels import label_set
from vxm_convert.profiles.profile import Profile

#: number of failures in the message; the report has all
_FAILURES_TOLD = 3

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportRequest:
    """What a report is made with.

    Parameters
    ----------
    python : str — interpreter of the reference.
    out : Path — output folder of the run.
    fixed_seg : ndarray or None — labels of the fixed image.
    fixed_affine : ndarray, shape (4, 4) — gives the voxel size in mm.
    label_set : str — name of the structures that Dice is taken over.
    n_run : int — number of registered scans, of which the stored ones are compared.
    profile : Profile — limits of the verdict.
    reference_cache : Path or None — folder that keeps references for other runs.
    """

    python: str
    out: Path
    fixed_seg: Optional[np.ndarray]
    fixed_affine: np.ndarray
    label_set: str
    n_run: int
    profile: Profile
    reference_cache: Optional[Path] = None


def write_precision_report(
    store: CompareStore, model: OfflineModel, request: ReportRequest, progress: Callable[[int], object] = lambda n: None
) -> Dict[str, Any]:
    """Compare every stored subject with TensorFlow, judge it by the profile and write the four files.

    Returns
    -------
    dict — the report as in report.json.
    """
    profile = request.profile
    gallery = Gallery(model.contract.grid.orientation, profile.to_dict()["limits"])

    def on_subject(result: SubjectComparison, views: Views) -> None:
        gallery.offer(result.to_dict(), views)

    def start() -> ReferenceProcess:
        return ReferenceProcess(request.python, model.pb_path, model.contract_path, store)

    with open_reference(request.reference_cache, start, model, store) as reference:
        labels, spacing = label_set(request.label_set), spacing_mm(request.fixed_affine)
        standard = Standard(request.fixed_seg, request.label_set, labels, spacing, profile)
        results = compare_all(store, reference, model.contract.model.batch, standard, on_subject, progress)
        version = reference.tensorflow_version
    folder = request.out / PRECISION_FOLDER
    cohort = judge_cohort([result.to_dict() for result in results], profile)
    layers = layers_of(folder, model)
    report: Dict[str, Any] = finite(
        {
            **_assemble(results, model, version, request.label_set, request.n_run),
            **_verdict(results, cohort, profile),
            **({} if layers is None else {"layers": layers}),
        }
    )
    write_report_json(folder / REPORT_JSON, report)
    head = {"toolchain": "simulated" if model.simulated else "real"}
    write_report_csv(folder / REPORT_CSV, [{**head, **_flat(row)} for row in report["rows"]])
    page = build_page(report, gallery.kept, model.contract.grid.orientation, sha256_of(folder / REPORT_JSON))
    write_text(folder / REPORT_PAGE, page)
    properties = {
        "profile": profile.name,
        "profile_sha256": profile.sha256,
        "om_sha256": model.contract.hashes["om"],
        **head,
    }
    judged = [(result.subject, result.judgement, result.reference_seconds) for result in results]
    write_bytes(folder / REPORT_JUNIT, junit_xml(f"precision: {profile.name}", judged, cohort, properties))
    return report


def clear_old_report(out: Path) -> None:
    """Remove the report of an earlier run, which does not belong to the new results; raises ArtifactError if that
    fails.
    """
    remove_earlier(Path(out) / PRECISION_FOLDER, REPORT_NAMES, "report of an earlier run")


def _assemble(
    results: Sequence[SubjectComparison], model: OfflineModel, tensorflow: str, label_set_name: str, n_run: int
) -> Dict[str, Any]:
    contract = model.contract
    return {
        **report_head("precision", model.toolchain.describe(), model.simulated, len(results)),
        "n_run": n_run,
        "label_set": label_set_name,
        "model": {
            "variant": contract.model.variant,
            "volume_shape": list(contract.model.volume_shape),
            "batch": contract.model.batch,
            "precision": contract.precision.name,
            "soc_version": contract.soc_version,
            "om": model.om_path.name,
            "om_sha256": contract.hashes["om"],
        },
        "provenance": provenance(model),
        "precision_plan": precision_plan(contract.precision),
        "reference": {"tensorflow": tensorflow, "frozen_pb_sha256": contract.hashes.get("frozen_pb")},
        "summary": summary(results),
        "rows": [result.to_dict() for result in results],
    }


def _verdict(results: Sequence[SubjectComparison], cohort: Judgement, profile: Profile) -> Dict[str, Any]:
    failed = cohort.failures or any(result.verdict == VERDICT_FAILED for result in results)
    return {
        "verdict": VERDICT_FAILED if failed else VERDICT_OK,
        "criterion": f"failed if a figure is outside the limits of profile {profile.name}, or for NaN or Inf in offline model "
        "or reference",
        "profile": profile.to_dict(),
        "cohort": {**cohort.to_dict(), "values": {check.figure: check.value for check in cohort.checks}},
    }


def _flat(row: Mapping[str, Any]) -> Dict[str, Any]:
    """A row for the table, without histograms and single structures, with failures as text."""
    failures: List[Mapping[str, Any]] = row["failures"]
    skipped: List[Mapping[str, Any]] = row["skipped"]
    flat = {key: value for key, value in row.items() if key != "histograms"}
    if row["dice"] is not None:
        flat["dice"] = {key: value for key, value in row["dice"].items() if key != "per_label"}
    return {
        **flat,
        "failures": "; ".join(f["text"] for f in failures),
        "skipped": " ".join(s["figure"] for s in skipped),
    }


def failure_message(folder: Path, report: Mapping[str, Any], implausible: AbstractSet[str] = frozenset()) -> str:
    """Message for a failed report: the first failures with subject, figure, value and limit, and advice.

    Parameters
    ----------
    implausible : subjects whose outputs cannot be a registration at all: no precision plan and no other limit helps.
    """
    failures = [(row["subject"], failure) for row in report["rows"] for failure in row["failures"]]
    failures += [("cohort", failure) for failure in report["cohort"]["failures"]]
    told = [f"{subject}: {failure['text']}" for subject, failure in failures[:_FAILURES_TOLD]]
    more = f"; and {len(failures) - len(told)} more" if len(failures) > len(told) else ""
    if any(subject in implausible for subject, _ in failures):
        advice = (
            "outputs were damaged, see failures.tsv: suspect the device, its driver and the .om, and register again"
        )
    elif any(failure["figure"].endswith(".non_finite") for _, failure in failures):
        advice = (
            "a damaged model or buffer, or an overflow: run it again; if it happens again, export with --precision "
            "accurate"
        )
    elif report["profile"]["name"] == "smoke":
        advice = "rounding is never that large: check that model, inputs and atlas belong together"
    else:
        advice = (
            f"see {REPORT_PAGE} there; export with a more accurate --precision, or choose another --profile if these "
            "limits are not yours"
        )
    n_failed = report["summary"]["n_failed"]
    start = (
        f"{folder}: profile {report['profile']['name']} failed in {n_failed} of {report['n_samples']} compared scans"
    )
    start += " and over the cohort" if report["cohort"]["failures"] else ""
    return f"{start}: {'; '.join(told)}{more}; {advice}"


def kept_report(
    out: Path, model: OfflineModel, profile: Profile, label_set: str, wanted: int, skipped: Set[str]
) -> Optional[Dict[str, Any]]:
    """The precision report of an earlier run, if none of its results has changed and it covers `wanted` scans.

    Parameters
    ----------
    skipped : subjects whose results are kept.
    """
    path = out / PRECISION_FOLDER / REPORT_JSON
    if not all((out / PRECISION_FOLDER / name).is_file() for name in REPORT_NAMES):
        return None
    try:
        report = parse_json(read_bounded(path, MAX_JSON_BYTES, "the precision report", "remove it"), str(path))
        holds = (
            report["model"]["om_sha256"] == model.contract.hashes["om"]
            and report["profile"]["sha256"] == profile.sha256
            and report["label_set"] == label_set
            and len(report["rows"]) >= wanted
            and {row["subject"] for row in report["rows"]} <= skipped
            and report.get("layers") == layers_of(out / PRECISION_FOLDER, model)
        )
    except (VxmError, ValueError, KeyError, TypeError, AttributeError) as exc:
        LOG.warning("%s: not the report of an earlier run (%s); it is removed", path, exc)
        return None
    return report if holds else None
