# SPDX-License-Identifier: Apache-2.0
"""The precision report's figures: offline model against TensorFlow, subject by subject, then over the cohort.

No limits live here: a subject fails for NaN or Inf only. Everything is float64; moved images are on the network's 0..1 scale.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from om_runner.reference import ReferenceProcess
from om_runner.store import FLOW, MOVED, MOVING, REFERENCE_FLOW, REFERENCE_MOVED, SEG, CompareStore
from vxm_convert.errors import VolumeError
from vxm_convert.labels import label_name
from vxm_convert.metrics import EndPointError, ErrorStats, Folding, dice, end_point_error, error_stats, folding
from vxm_convert.warp_numpy import warp_nearest

LOG = logging.getLogger(__name__)

#: full scale of a network intensity, for PSNR
MOVED_PEAK = 1.0
VERDICT_OK = "ok"
VERDICT_FAILED = "failed"
CRITERION = "failed if any value of the offline model or of the reference is NaN or infinite; no other limit is applied"


@dataclass(frozen=True)
class DiceChange:
    """Mean Dice after registration with either flow, and the structure that changed most (nearest-neighbour labels)."""

    label_set: str
    n_labels: int
    before: float
    reference: float
    offline: float
    worst_label: str
    worst_change: float

    @property
    def change(self) -> float:
        return self.offline - self.reference

    def to_dict(self) -> Dict[str, Any]:
        return {**vars(self), "change": self.change}


@dataclass(frozen=True)
class SubjectComparison:
    """All figures of one compared subject."""

    subject: str
    moved: ErrorStats
    flow: ErrorStats
    epe_voxel: EndPointError
    epe_mm: EndPointError
    dice: Optional[DiceChange]
    folding_reference: Folding
    folding_offline: Folding
    reference_seconds: float

    @property
    def verdict(self) -> str:
        return VERDICT_OK if self.moved.finite and self.flow.finite else VERDICT_FAILED

    def to_dict(self) -> Dict[str, Any]:
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "moved": self.moved.to_dict(),
            "flow": self.flow.to_dict(),
            "epe_voxel": self.epe_voxel.to_dict(),
            "epe_mm": self.epe_mm.to_dict(),
            "dice": None if self.dice is None else self.dice.to_dict(),
            "folding": {
                "reference_fraction": self.folding_reference.fraction,
                "offline_fraction": self.folding_offline.fraction,
                "change": self.folding_offline.fraction - self.folding_reference.fraction,
                "reference_count": self.folding_reference.n_folded,
                "offline_count": self.folding_offline.n_folded,
            },
            "reference_seconds": self.reference_seconds,
        }


@dataclass(frozen=True)
class Views:
    """Arrays of one subject for the pictures, (X, Y, Z) float32 network intensities; memory-mapped, valid during the callback."""

    moving: np.ndarray
    fixed: np.ndarray
    moved_reference: np.ndarray
    moved_offline: np.ndarray


def compare_all(
    store: CompareStore,
    reference: ReferenceProcess,
    batch: int,
    fixed_seg: Optional[np.ndarray],
    label_set: str,
    labels: Sequence[int],
    spacing: Sequence[float],
    on_subject: Callable[[SubjectComparison, Views], None],
    progress: Callable[[int], Any],
) -> List[SubjectComparison]:
    """Reference, figures and pictures for every stored subject, in order; each one's files go before the next batch is computed."""
    results: List[SubjectComparison] = []
    subjects = list(store.subjects)
    for start in range(0, len(subjects), batch):
        group = subjects[start : start + batch]
        seconds = reference.run(group) / len(group)
        for subject in group:
            result = compare_subject(store, subject, fixed_seg, label_set, labels, spacing, seconds)
            LOG.info("%s", describe(result))
            on_subject(
                result, Views(store.get(subject, MOVING), store.fixed(), store.get(subject, REFERENCE_MOVED), store.get(subject, MOVED))
            )
            store.drop(subject)
            results.append(result)
            progress(1)
    return results


def compare_subject(
    store: CompareStore,
    subject: str,
    fixed_seg: Optional[np.ndarray],
    label_set: str,
    labels: Sequence[int],
    spacing: Sequence[float],
    seconds: float,
) -> SubjectComparison:
    """Figures of one stored subject whose reference is there."""
    flow, reference_flow = store.get(subject, FLOW), store.get(subject, REFERENCE_FLOW)
    change = None
    seg = store.get(subject, SEG)
    if seg is not None and fixed_seg is not None:
        change = _dice_change(np.asarray(seg), flow, reference_flow, fixed_seg, label_set, labels)
    return SubjectComparison(
        subject=subject,
        moved=error_stats(store.get(subject, MOVED), store.get(subject, REFERENCE_MOVED), peak=MOVED_PEAK),
        flow=error_stats(flow, reference_flow),
        epe_voxel=end_point_error(flow, reference_flow),
        epe_mm=end_point_error(flow, reference_flow, spacing, "mm"),
        dice=change,
        folding_reference=folding(reference_flow),
        folding_offline=folding(flow),
        reference_seconds=seconds,
    )


def summary(results: Sequence[SubjectComparison]) -> Dict[str, Any]:
    """Worst and mean figures over the compared subjects; `n` says how many they rest on."""
    with_dice = [r.dice for r in results if r.dice is not None]
    psnr = [r.moved.psnr_db for r in results if r.moved.psnr_db is not None]
    cosines = [r.flow.cosine for r in results if r.flow.cosine is not None]
    return {
        "n": len(results),
        "n_failed": sum(r.verdict == VERDICT_FAILED for r in results),
        "n_with_dice": len(with_dice),
        "moved_max_abs": _worst(max, [r.moved.max_abs for r in results]),
        "moved_mean_abs": _mean([r.moved.mean_abs for r in results]),
        "moved_psnr_db_min": _worst(min, psnr),
        "flow_cosine_min": _worst(min, cosines),
        "epe_voxel_max": _worst(max, [r.epe_voxel.max for r in results]),
        "epe_voxel_p999_max": _worst(max, [r.epe_voxel.p999 for r in results]),
        "epe_voxel_mean": _mean([r.epe_voxel.mean for r in results]),
        "epe_mm_max": _worst(max, [r.epe_mm.max for r in results]),
        "dice_reference_mean": _mean([d.reference for d in with_dice]),
        "dice_offline_mean": _mean([d.offline for d in with_dice]),
        "dice_change_worst": max((d.change for d in with_dice), key=abs, default=None),
        "folding_reference_mean": _mean([r.folding_reference.fraction for r in results]),
        "folding_offline_mean": _mean([r.folding_offline.fraction for r in results]),
    }


def describe(result: SubjectComparison) -> str:
    """One line for the log."""
    psnr = "equal" if result.moved.psnr_db is None else f"PSNR {result.moved.psnr_db:.1f} dB"
    scores = "" if result.dice is None else f", Dice change {result.dice.change:+.5f}"
    return (
        f"{result.subject}: against TensorFlow {result.verdict}: moved max error {result.moved.max_abs:.2e} ({psnr}), "
        f"end-point error p99.9 {result.epe_voxel.p999:.4f}, max {result.epe_voxel.max:.4f} voxel{scores}"
    )


def _dice_change(
    seg: np.ndarray, flow: np.ndarray, reference_flow: np.ndarray, fixed_seg: np.ndarray, label_set: str, labels: Sequence[int]
) -> Optional[DiceChange]:
    try:
        offline = dice(warp_nearest(seg, flow), fixed_seg, labels)
        reference = dice(warp_nearest(seg, reference_flow), fixed_seg, labels)
    except VolumeError as exc:
        # A flow with NaN fails the subject through its error statistics; Dice is just undefined.
        LOG.warning("no Dice change: %s", exc)
        return None
    changes = {label: offline.per_label[label] - reference.per_label[label] for label in offline.per_label}
    known = {label: change for label, change in changes.items() if not math.isnan(change)}
    worst = max(known, key=lambda label: abs(known[label])) if known else None
    return DiceChange(
        label_set,
        reference.n_labels,
        dice(seg, fixed_seg, labels).mean,
        reference.mean,
        offline.mean,
        "" if worst is None else label_name(worst),
        math.nan if worst is None else known[worst],
    )


def _worst(pick: Callable[[List[float]], float], values: List[float]) -> Optional[float]:
    return pick(values) if values else None


def _mean(values: List[float]) -> Optional[float]:
    return float(np.mean(values)) if values else None
