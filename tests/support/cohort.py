# SPDX-License-Identifier: Apache-2.0
"""A complete report made from synthetic heads by the project's own metrics: the true flow against one with the errors
of fp16.

``python -m tests.support.cohort OUT`` writes its page, to look at.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from om_runner.precision.page.gallery import Gallery, Views
from om_runner.precision.page.page import build_page
from vxm_convert.artifacts.reports import finite
from vxm_convert.geometry.reference_warp import warp_linear, warp_nearest
from vxm_convert.metrics.jacobian import jacobian_stats
from vxm_convert.metrics.labels import label_name, label_set
from vxm_convert.metrics.overlap import dice
from vxm_convert.metrics.registration import end_point_error, sampling_error
from vxm_convert.metrics.tensors import compare_tensors, error_stats
from vxm_convert.synthetic.heads import Phantom, PhantomSettings, make_atlas, make_subject

LIMITS = (
    ("moved.max_abs", "<=", 1e-2),
    ("moved.psnr_db", ">=", 60.0),
    ("epe_voxel.p999", "<=", 0.05),
    ("epe_voxel.max", "<=", 0.25),
    ("sampling.floor_flip_fraction", "<=", 0.02),
    ("dice.min_change", ">=", -0.005),
    ("dice.mean_change", ">=", -0.001),
    ("folding.change", "<=", 1e-4),
)


def cohort(
    shape: Tuple[int, int, int] = (16, 16, 16),
    n: int = 2,
    bad: Sequence[int] = (),
    nan: Sequence[int] = (),
    labels: bool = True,
    names: Optional[Sequence[str]] = None,
    most: int = 8,
) -> Tuple[Dict[str, Any], Gallery]:
    """Report as in report.json, and its gallery. `bad`: numbers of subjects beyond a limit, `nan`: with values that are
    none.
    """
    settings = PhantomSettings(shape=shape, subjects=n)
    atlas = make_atlas(settings)
    limits = [{"figure": figure, "relation": relation, "limit": limit} for figure, relation, limit in LIMITS]
    gallery = Gallery("LIA", limits, most)
    rows = []
    for index in range(n):
        name = names[index] if names else f"sub-{index + 1:02d}"
        row, views = _subject(settings, atlas, index, name, index in bad, index in nan, labels)
        row["failures"] = _failures(row)
        row["verdict"] = "failed" if row["failures"] else "ok"
        gallery.offer(row, views)
        rows.append(row)
    return _report(shape, rows, limits), gallery


def _subject(
    settings: PhantomSettings, atlas: Phantom, index: int, name: str, bad: bool, nan: bool, labels: bool
) -> Tuple[Dict[str, Any], Views]:
    head = make_subject(settings, index)
    rng = np.random.RandomState(index)
    reference = head.flow
    step = (0.15 if bad else 0.002 * (1 + index)) * np.abs(reference).max()
    offline = (reference + step * rng.standard_t(5, reference.shape) / 8).astype(np.float16).astype(np.float32)
    moving, fixed = head.vol.astype(np.float32) / 255, atlas.vol.astype(np.float32) / 255
    moved_reference, moved = (
        warp_linear(moving, reference).astype(np.float32),
        warp_linear(moving, offline).astype(np.float32),
    )
    if nan:
        moved[1, 2, 3], offline[2, 2, 2, 0] = np.nan, np.inf
    compared, flow = compare_tensors(moved, moved_reference, peak=1.0), compare_tensors(offline, reference)
    epe = end_point_error(offline, reference)
    jacobians = {"reference": jacobian_stats(reference), "offline": jacobian_stats(offline)}
    inside = error_stats(moved, moved_reference, peak=1.0, where=fixed > 0)
    fractions = {side: stats.folding.fraction for side, stats in jacobians.items()}
    row = {
        "subject": name,
        "moved": {**compared.stats.to_dict(), "inside": inside.to_dict(), "warp_only": None},
        "flow": flow.stats.to_dict(),
        "epe_voxel": epe.to_dict(),
        "epe_mm": end_point_error(offline, reference, (1.0, 1.0, 1.0), "mm").to_dict(),
        "sampling": None if nan else sampling_error(offline, reference).to_dict(),
        "dice": _dice(head, offline, reference, atlas) if labels and not nan else None,
        "folding": {
            "reference_fraction": fractions["reference"],
            "offline_fraction": fractions["offline"],
            "change": fractions["offline"] - fractions["reference"],
        },
        "jacobian": {side: stats.to_dict() for side, stats in jacobians.items()},
        "histograms": {
            "epe_voxel": epe.histogram,
            "moved_abs": compared.histogram,
            **{f"jacobian_{side}": stats.histogram for side, stats in jacobians.items()},
        },
        "reference_seconds": 0.5,
    }
    return finite(row), Views(moving, fixed, moved_reference, moved, reference, offline)


def _dice(head: Phantom, offline: np.ndarray, reference: np.ndarray, atlas: Phantom) -> Dict[str, Any]:
    labels = label_set("paper30")
    scores = [
        dice(seg, atlas.seg, labels)
        for seg in (head.seg, warp_nearest(head.seg, reference), warp_nearest(head.seg, offline))
    ]
    per_label = {
        label_name(label): {
            "before": scores[0].per_label[label],
            "reference": scores[1].per_label[label],
            "offline": scores[2].per_label[label],
            "change": scores[2].per_label[label] - scores[1].per_label[label],
        }
        for label in labels
        if np.isfinite(scores[2].per_label[label] - scores[1].per_label[label])
    }
    changes = {name: entry["change"] for name, entry in per_label.items()}
    worst = max(changes, key=lambda name: abs(changes[name]))
    return {
        "label_set": "paper30",
        "n_labels": len(changes),
        "before": scores[0].mean,
        "reference": scores[1].mean,
        "offline": scores[2].mean,
        "change": scores[2].mean - scores[1].mean,
        "worst_label": worst,
        "worst_change": changes[worst],
        "min_change": min(changes.values()),
        "mean_change": float(np.mean(list(changes.values()))),
        "per_label": per_label,
    }


def _failures(row: Dict[str, Any]) -> List[Dict[str, Any]]:
    found = []
    if any(row[output][what] for output in ("moved", "flow") for what in ("nan_count", "inf_count")):
        found.append(
            {
                "figure": "moved.nan_count",
                "value": row["moved"]["nan_count"],
                "limit": 0,
                "relation": "<=",
                "text": "NaN or Inf",
            }
        )
    for figure, relation, limit in LIMITS:
        first, _, second = figure.partition(".")
        value = (row[first] or {}).get(second)
        if value is not None and (value > limit if relation == "<=" else value < limit):
            found.append(
                {"figure": figure, "value": value, "limit": limit, "relation": relation, "text": f"{figure} is {value}"}
            )
    return found


def _report(shape: Tuple[int, int, int], rows: List[Dict[str, Any]], limits: List[Dict[str, Any]]) -> Dict[str, Any]:
    def sha(name: str) -> str:
        return hashlib.sha256(name.encode()).hexdigest()

    files = (
        ("checkpoint", "model-1500.index"),
        ("frozen_pb", "frozen.pb"),
        ("onnx", "vxm.onnx"),
        ("om", "vxm.om"),
        ("outputs", f"moved and flow of {len(rows)} scans"),
    )
    return {
        "schema": 1,
        "kind": "precision",
        "toolchain": {"kind": "simulator", "version": "sim-test"},
        "simulated": True,
        "n_samples": len(rows),
        "n_run": len(rows) + 2,
        "verdict": "failed" if any(r["verdict"] == "failed" for r in rows) else "ok",
        "criterion": "the profile's limits; NaN and Inf are always fatal",
        "label_set": "paper30",
        "profile": {
            "name": "research",
            "sha256": sha("profile"),
            "limits": limits,
            "description": "Registers as well as the trained graph: no change that a study of groups could see.",
        },
        "provenance": [{"role": role, "file": name, "sha256": sha(name)} for role, name in files],
        "precision_plan": {
            "name": "balanced",
            "mode": "allow_fp32_to_fp16",
            "keep_dtype": ["mul_warp/floor"],
            "split_weights": ["conv3d"],
            "reasons": {
                "conv3d": "more than half of the flow's error comes from the fp16 weights of the first layer",
                "mul_warp/floor": "holds positions up to 223, which fp16 keeps in steps of 1/8 voxel",
            },
        },
        "model": {
            "variant": "vm2",
            "volume_shape": list(shape),
            "batch": 1,
            "precision": "balanced",
            "soc_version": "Ascend910A",
            "om": "vxm.om",
            "om_sha256": sha("vxm.om"),
        },
        "reference": {"tensorflow": "1.15.0", "frozen_pb_sha256": sha("frozen.pb")},
        "summary": {"n": len(rows), "n_failed": sum(r["verdict"] == "failed" for r in rows)},
        "layers": {"n_samples": 1, "layers": layers()},
        "rows": rows,
    }


def layers(n: int = 18) -> List[Dict[str, Any]]:
    """Entries as layers.json has them."""
    rng = np.random.RandomState(5)
    found = []
    for index in range(n):
        name = ("conv3d", "conv3d_1", "warp/add", "warp/floor")[index % 4] + f"/{index}"
        source, jumps = index == 10, name.startswith("warp/floor")
        entire = 3e-4 * (1 + index) * rng.uniform(0.5, 2) * (40 if source else 1)
        found.append(
            {
                "index": index,
                "name": name,
                "type": "Floor" if jumps else "Conv3D",
                "dtype": "float16" if index % 3 else "float32",
                "entire": {"RelativeEuclideanDistance": entire},
                "single": None if jumps else {"RelativeEuclideanDistance": entire / 3},
                "effect": {"moved": entire / 5},
                "discontinuous": jumps,
                "flip_rate": 2e-4 if jumps else None,
                "source": source,
                "share": 0.8 if source else 0.2 / n,
                "advice": "keep it in fp32 (--keep_dtype: warp/add)" if source else None,
                "reason": None,
            }
        )
    return found


def main(folder: str, bad: bool) -> None:
    """Write the page of eight subjects."""
    report, gallery = cohort((32, 48, 48), 8, bad=(3,) if bad else ())
    text = build_page(report, gallery.kept, "LIA", hashlib.sha256(b"x").hexdigest())
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "report.html").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], len(sys.argv) > 2)
