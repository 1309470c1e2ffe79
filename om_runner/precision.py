# SPDX-License-Identifier: Apache-2.0
"""OUT/precision: runs the comparison over the stored subjects and writes report.json, report.csv and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from om_runner.compare import CRITERION, VERDICT_FAILED, VERDICT_OK, SubjectComparison, Views, compare_all, summary
from om_runner.model import OfflineModel
from om_runner.pictures import overview_png
from om_runner.reference import ReferenceProcess
from om_runner.report_html import Picture, build_page
from om_runner.store import CompareStore
from vxm_convert.artifacts import write_text
from vxm_convert.errors import ArtifactError
from vxm_convert.labels import label_set
from vxm_convert.report import finite, report_head, write_report_csv, write_report_json
from vxm_convert.volumes import spacing_mm

PRECISION_FOLDER = "precision"
REPORT_NAMES = ("report.json", "report.csv", "report.html")
#: a page with hundreds of pictures opens nowhere; the tables stay complete
MAX_PICTURES = 50


def write_precision_report(
    store: CompareStore,
    model: OfflineModel,
    python: str,
    out: Path,
    fixed_seg: Optional[np.ndarray],
    fixed_affine: np.ndarray,
    label_set_name: str,
    n_run: int,
    progress: Callable[[int], Any] = lambda n: None,
) -> Dict[str, Any]:
    """Compare every stored subject with TensorFlow and write the three files.

    Parameters
    ----------
    python : str — interpreter of the reference.
    fixed_affine : ndarray, shape (4, 4) — gives the voxel size in mm.
    n_run : int — scans that went through the model, of which the stored ones are compared.

    Returns
    -------
    dict — the report as in report.json.
    """
    pictures: List[Picture] = []

    def on_subject(result: SubjectComparison, views: Views) -> None:
        if result.moved.finite and len(pictures) < MAX_PICTURES:
            png, scale = overview_png(views, model.contract.grid.orientation)
            pictures.append(Picture(result.subject, png, scale))

    with ReferenceProcess(python, model.pb_path, model.contract_path, store) as reference:
        version = reference.tensorflow_version
        results = compare_all(
            store,
            reference,
            model.contract.model.batch,
            fixed_seg,
            label_set_name,
            label_set(label_set_name),
            spacing_mm(fixed_affine),
            on_subject,
            progress,
        )
    report = finite(_assemble(results, model, version, label_set_name, n_run))
    folder = Path(out) / PRECISION_FOLDER
    write_report_json(folder / REPORT_NAMES[0], report)
    head = {"toolchain": "simulated" if model.simulated else "real"}
    write_report_csv(folder / REPORT_NAMES[1], [{**head, **row} for row in report["rows"]])
    write_text(folder / REPORT_NAMES[2], build_page(report, pictures))
    return report


def clear_old_report(out: Path) -> None:
    """Remove the report of an earlier run, which would not belong to the results written now; raises ArtifactError where it stays."""
    for name in REPORT_NAMES:
        path = Path(out) / PRECISION_FOLDER / name
        try:
            if path.is_file():
                path.unlink()
        except OSError as exc:
            raise ArtifactError(f"{path}: cannot remove this report of an earlier run ({exc.strerror}); choose another --out") from exc


def _assemble(
    results: Sequence[SubjectComparison], model: OfflineModel, tensorflow: str, label_set_name: str, n_run: int
) -> Dict[str, Any]:
    contract = model.contract
    return {
        **report_head("precision", model.toolchain.describe(), model.simulated, len(results)),
        "n_run": n_run,
        "verdict": VERDICT_FAILED if any(r.verdict == VERDICT_FAILED for r in results) else VERDICT_OK,
        "criterion": CRITERION,
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
        "reference": {"tensorflow": tensorflow, "frozen_pb_sha256": contract.hashes.get("frozen_pb")},
        "summary": summary(results),
        "rows": [result.to_dict() for result in results],
    }
