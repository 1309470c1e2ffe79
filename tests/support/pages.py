# SPDX-License-Identifier: Apache-2.0
"""One of every page that the project makes, with all its parts, from made-up figures and synthetic heads.

``python -m tests.support.pages OUT`` writes them, to look at.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np

import export.tune.page
import train.evaluate.page
import train.prepare.page
import train.run.report_page
import vxm_convert.device_check.page
from om_runner.precision.page.page import build_page as precision_page
from om_runner.qc.cohort_page import write_pages
from om_runner.qc.record import write_case
from om_runner.results.columns import FailureRow, MetricsRow, write_failures, write_metrics
from om_runner.results.index_page import write_index
from tests.support.cohort import cohort
from tests.support.qc_cases import case
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, FAILED, MEASURED, Point, Rung
from vxm_convert.webpage.png import plain_png

WARNING = "left and right may be swapped: the mirrored scan fits better"


def write_all(out: Path) -> Dict[str, Path]:
    """Write every page below a folder; returns name → file."""
    written = {"index": index(out / "run"), **qc(out / "run" / "qc"), "prepare": prepare(out / "prepared")}
    for name, text in sorted(texts().items()):
        written[name] = out / f"{name}.html"
        written[name].write_text(text, encoding="utf-8")
    return written


@lru_cache(maxsize=None)
def texts() -> Dict[str, str]:
    """The pages that are one file each: name → page."""
    made: Dict[str, Callable[[], str]] = {
        "precision": precision,
        "evaluation": evaluation,
        "training": training,
        "tune": tune,
        "device_check": device_check,
    }
    return {name: make() for name, make in made.items()}


def metrics_row(name: str, at: int) -> MetricsRow:
    """A row of metrics.tsv."""
    values: Dict[str, Any] = {"dice_before": 0.5 + 0.01 * (at % 7), "dice_after": 0.75, "n_labels": 2}
    values.update(label_set="paper30", folding_fraction=0.001, jacobian_min=0.1, flow_max_voxel=3.25)
    values.update(device_seconds=0.5, total_seconds=1.0, intensity="0..255", toolchain="simulated")
    values.update(source=f"{name}.nii.gz", structures={"2": [0.5, 0.75]}, warnings=() if at % 5 else (WARNING,))
    return MetricsRow(subject=name, **values)


def index(out: Path, n: int = 6) -> Path:
    """index.html of an output folder of n scans."""
    out.mkdir(parents=True, exist_ok=True)
    write_metrics(out / "metrics.tsv", [metrics_row(f"sub-{at:04d}", at) for at in range(n)])
    write_failures(out / "failures.tsv", [FailureRow("sub-lost", "/scans/sub-lost.nii", "read", "no header")])
    for name in ("qc/index.html", "precision/report.html", "run.json"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("x", encoding="utf-8")
    write_index(out)
    return out / "index.html"


def qc(out: Path) -> Dict[str, Path]:
    """The page of a cohort's pictures and that of one subject."""
    for at, (name, dice) in enumerate((("sub-0001", 0.9), ("sub-0002", 0.3), ("sub-0003", 0.6))):
        figures = {"dice_before": 0.2, "dice_after": dice, "folding_fraction": 0.0, "flow_max_voxel": 1.0}
        write_case(out, case(subject=name, figures={**figures, "n_labels": 4}, warnings=() if at else (WARNING,)))
    return {"cohort": write_pages(out, [("sub-lost", "its file is damaged")]), "subject": out / "sub-0002/index.html"}


def precision() -> str:
    """A report with a scan beyond the limits and one with NaN."""
    report, gallery = cohort((24, 28, 24), n=4, bad=(1,), nan=(2,))
    return precision_page(report, gallery.kept, "LIA", "ab" * 32)


def evaluation(n: int = 4) -> str:
    """Two structures, one of which is nowhere."""
    none = {"mean": None, "std": None, "n": 0}
    some = [{"mean": mean, "std": 0.02, "n": n} for mean in (0.5, 0.8)]
    sides = {"before": some[0], "after": some[1]}
    document = {
        "checkpoint": "model-1500",
        "model": {"variant": "vm2", "volume_shape": [160, 192, 224]},
        "n_samples": n,
        "label_set": "paper30",
        "overall": [{"over": "values", "background": False, **sides}],
        "structures": [
            {"name": "Left-Thalamus", "label": 10, **sides},
            {"name": "Brain-Stem", "label": 16, **sides},
            {"name": "Nothing", "label": 999, "before": none, "after": none},
        ],
        "subjects": [
            {
                "name": f"sub-{at:04d}",
                "folding": 0.001,
                "seconds": 1.5,
                "mean_before": 0.5,
                "mean_after": 0.8,
                "mse_before": 0.02,
                "mse_after": 0.01,
            }
            for at in range(n)
        ],
        "made_from": {"atlas": "ab" * 32},
    }
    return train.evaluate.page.build_page(document)


def prepare(out: Path) -> Path:
    """Two scans, one doubtful, with pictures; one that failed."""
    side = {"overlap": 0.9, "ncc": 0.8, "dice": 0.7, "outside": 0.01}
    motion = {"rotation_degrees": 3.0, "translation_mm": 4.0, "scale_min": 0.9, "scale_max": 1.1, "volume_change": 1.0}
    scans = [
        {"name": name, "before": side, "after": side, "motion": motion, "warnings": warnings, "seconds": 12.0}
        for name, warnings in (("sub-0001", ["turned by 40 degrees: does the header say the right axes?"]), ("b", []))
    ]
    grid = {"shape": [160, 192, 224], "orientation": "LIA", "spacing_mm": [1.0, 1.0, 1.0]}
    reference = {"source": "atlas.nii.gz", "why": "the file of --reference", "network_grid": grid}
    document = {
        "scans": scans,
        "failures": [{"subject": "lost", "stage": "read", "reason": "no header", "file": "/scans/lost.nii"}],
        "reference": {**reference, "intensity": "0..255", "warnings": ["its brain touches the border"]},
        "settings": {"transform": "affine"},
        "tool": "SimpleITK 2.2.1",
        "label_set": "paper30",
        "not_reached": [],
    }
    ramp = np.tile(np.linspace(0, 255, 300).astype(np.uint8), (100, 1))
    (out / "pictures").mkdir(parents=True)
    for scan in scans:
        for ending in (".png", "_before.png"):
            (out / "pictures" / f"{scan['name']}{ending}").write_bytes(plain_png(ramp))
    (out / "prepare.html").write_text(train.prepare.page.build_page(document, out / "pictures"), encoding="utf-8")
    return out / "prepare.html"


def training(epochs: int = 5, steps: int = 4) -> str:
    """A run with a warning, losses of two kinds and a validation per epoch."""
    records: List[Dict[str, Any]] = [{"event": "warning", "step": 3, "text": "folding grows"}]
    for epoch in range(epochs):
        for step in range(epoch * steps, (epoch + 1) * steps):
            records.append({"step": step, "loss": 0.1 / (step + 1), "loss_mse": 0.09 / (step + 1), "seconds": 1.0})
        validation = {"image": 0.02, "dice": 0.5 + 0.05 * epoch, "dice_before": 0.4, "folding": 0.0, "pairs": 1}
        losses = {"loss": 0.05 / (epoch + 1), "loss_mse": 0.04, "seconds_per_step": 1.5, "folding": 0.0}
        records.append({"event": "epoch", "epoch": epoch, "steps": steps, **losses, "validation": validation})
    facts = {"network": "vm2 at 160x192x224", "device": "CPU", "loss": "mse"}
    return train.run.report_page.build_page(records, facts, {"atlas": "ab" * 32})


def tune() -> str:
    """A search that found a plan of one decision and did without another."""
    atoms = {"keep_dtype": ["warp/floor"], "fp32_results": [], "split_weights": []}
    entry = {"name": "warp/floor", "decisions": ["warp/floor"], "cost_bytes": 1 << 20}
    inputs = {"profile": "research", "mode": "force_fp16", "soc_version": "Ascend910A"}
    data = {
        "inputs": {**inputs, "frozen_pb": "ab" * 32, "atlas": "cd" * 32, "profile_sha256": "ef" * 32},
        "toolchain": {"kind": "simulator", "version": "1"},
        "simulated": True,
        "n_samples": 4,
        "start": "fast",
        "max_trials": 20,
        "found": True,
        "guarantee_text": "No smaller set of these decisions meets the profile.",
        "cost_bytes": 1 << 20,
        "verdict": {"reason": "moved.max_abs uses 80 % of its limit"},
        "atc_flags": ["--precision_mode=force_fp16", "--keep_dtype=keep_dtype.cfg"],
        "best_try": None,
        "kept": [{**entry, "why": "without it moved.max_abs uses 140 % of its limit"}],
        "not_kept": [{**entry, "name": "conv3d", "tried": 3, "accepted": 1, "best": {"reason": "within the limits"}}],
        "candidates": [
            {**atoms, "invalid": False, "accepted": good, "cost_bytes": 1 << 20, "reason": "moved.max_abs"}
            for good in (True, False)
        ],
    }
    return export.tune.page.build_page(data)


def device_check() -> str:
    """A device that differs in one point and fails in another."""
    points = [
        Point("conv3d, force_fp16: rounding", DIFFERS, "to nearest", "it rounds toward zero", "rounding"),
        Point("conv3d: saturation", AS_PREDICTED, "65504", "65504"),
        Point("chip", FAILED, "Ascend910A", "Ascend310", "", "pass --soc-version Ascend310"),
        Point("copies to host", MEASURED, "", "3.1 GB/s"),
    ]
    data = {"toolchain": {"kind": "cann", "version": "8.1"}, "simulated": False, "soc_version": "Ascend910A"}
    rungs = [Rung("conv3d", "Does it convolve as predicted?", points, 1.5)]
    return vxm_convert.device_check.page.build_page({**data, "versions": {"cann": "8.1"}}, rungs)


if __name__ == "__main__":
    for target in write_all(Path(sys.argv[1])).values():
        print(target)  # noqa: T201
