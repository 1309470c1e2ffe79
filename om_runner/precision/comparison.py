# SPDX-License-Identifier: Apache-2.0
"""The precision report's figures: offline model against TensorFlow, subject by subject, then over the cohort.

It has no limits: a profile judges (`om_runner.precision.acceptance`). Everything is float64; moved images are on the
network's 0..1 scale.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from om_runner.precision.acceptance import VERDICT_FAILED, Judgement, judge_row
from om_runner.precision.page.gallery import Views
from om_runner.precision.reference import Reference
from om_runner.precision.store import FIXED_SEG, FLOW, MOVED, MOVING, REFERENCE_FLOW, REFERENCE_MOVED, SEG, CompareStore
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.reference_warp import warp_linear, warp_nearest
from vxm_convert.metrics.ascend import AscendMetrics
from vxm_convert.metrics.jacobian import Folding, JacobianStats, jacobian_stats
from vxm_convert.metrics.labels import label_name
from vxm_convert.metrics.overlap import dice
from vxm_convert.metrics.registration import EndPointError, SamplingError, flow_errors
from vxm_convert.metrics.tensors import ErrorStats, compare_tensors, error_stats
from vxm_convert.profiles.profile import Profile

LOG = logging.getLogger(__name__)

#: full scale of a network intensity, for PSNR
MOVED_PEAK = 1.0


@dataclass(frozen=True)
class DiceChange:
    """Dice after registration with either flow, mean and per structure, and the structure with the largest change
    (nearest-neighbour labels).

    `per_label` maps a structure's name to ``before``, ``reference``, ``offline`` and ``change``; NaN if it is absent.
    """

    label_set: str
    n_labels: int
    before: float
    reference: float
    offline: float
    worst_label: str
    worst_change: float
    per_label: Dict[str, Dict[str, float]]

    @property
    def change(self) -> float:
        return self.offline - self.reference

    @property
    def min_change(self) -> float:
        """Change of the structure with the largest loss; NaN without structures."""
        return min(
            (row["change"] for row in self.per_label.values() if not math.isnan(row["change"])), default=math.nan
        )

    def to_dict(self) -> Dict[str, Any]:
        return {**vars(self), "change": self.change, "mean_change": self.change, "min_change": self.min_change}


@dataclass(frozen=True)
class SubjectComparison:
    """All figures of one compared subject and the profile's verdict on them.

    `inside` is the moved image where the fixed image is above zero (None if it is nowhere), `warp_only` the device's
    moved image against a float64 warp by the device's own flow.
    """

    subject: str
    moved: ErrorStats
    moved_ascend: AscendMetrics
    inside: Optional[ErrorStats]
    warp_only: ErrorStats
    flow: ErrorStats
    flow_ascend: AscendMetrics
    epe_voxel: EndPointError
    epe_mm: EndPointError
    sampling: SamplingError
    dice: Optional[DiceChange]
    jacobian_reference: JacobianStats
    jacobian_offline: JacobianStats
    moved_histogram: Dict[str, Any]
    reference_seconds: float
    judgement: Judgement = field(default_factory=lambda: Judgement(()))

    @property
    def verdict(self) -> str:
        return self.judgement.verdict

    @property
    def folding_reference(self) -> Folding:
        return self.jacobian_reference.folding

    @property
    def folding_offline(self) -> Folding:
        return self.jacobian_offline.folding

    def to_dict(self) -> Dict[str, Any]:
        return {
            "subject": self.subject,
            **self.judgement.to_dict(),
            "moved": {
                **_with_ascend(self.moved, self.moved_ascend),
                "inside": None if self.inside is None else self.inside.to_dict(),
                "warp_only": self.warp_only.to_dict(),
            },
            "flow": _with_ascend(self.flow, self.flow_ascend),
            "epe_voxel": self.epe_voxel.to_dict(),
            "epe_mm": self.epe_mm.to_dict(),
            "sampling": self.sampling.to_dict(),
            "dice": None if self.dice is None else self.dice.to_dict(),
            "folding": {
                "reference_fraction": self.folding_reference.fraction,
                "offline_fraction": self.folding_offline.fraction,
                "change": self.folding_offline.fraction - self.folding_reference.fraction,
                "reference_count": self.folding_reference.n_folded,
                "offline_count": self.folding_offline.n_folded,
            },
            "jacobian": {"reference": self.jacobian_reference.to_dict(), "offline": self.jacobian_offline.to_dict()},
            "histograms": {
                "epe_voxel": self.epe_voxel.histogram,
                "moved_abs": self.moved_histogram,
                "jacobian_reference": self.jacobian_reference.histogram,
                "jacobian_offline": self.jacobian_offline.histogram,
            },
            "reference_seconds": self.reference_seconds,
        }


def _with_ascend(stats: ErrorStats, ascend: AscendMetrics) -> Dict[str, Any]:
    return {**stats.to_dict(), "ascend": ascend.to_dict(), "ascend_reason": ascend.reason}


@dataclass(frozen=True)
class Standard:
    """What every subject is compared by.

    Parameters
    ----------
    fixed_seg : ndarray or None — labels of the fixed image, where the store has none of a subject's own.
    label_set : str — name of the set that `labels` are.
    spacing : 3 floats — voxel size in mm.
    profile : Profile — limits of the verdict.
    """

    fixed_seg: Optional[np.ndarray]
    label_set: str
    labels: Sequence[int]
    spacing: Sequence[float]
    profile: Profile


def compare_all(
    store: CompareStore,
    reference: Reference,
    batch: int,
    standard: Standard,
    on_subject: Callable[[SubjectComparison, Views], None],
    progress: Callable[[int], object],
) -> List[SubjectComparison]:
    """Reference, figures and pictures for every stored subject, in order; files are deleted before the next batch is
    computed.
    """
    results: List[SubjectComparison] = []
    subjects = list(store.subjects)
    for start in range(0, len(subjects), batch):
        group = subjects[start : start + batch]
        seconds = reference.run(group) / len(group)
        for subject in group:
            result = compare_subject(store, subject, standard, seconds)
            LOG.info("%s", describe(result))
            images = [store.get(subject, what) for what in (REFERENCE_MOVED, MOVED, REFERENCE_FLOW, FLOW)]
            on_subject(result, Views(store.get(subject, MOVING), store.fixed(subject), *images))
            store.drop(subject)
            results.append(result)
            progress(1)
    return results


def compare_subject(store: CompareStore, subject: str, standard: Standard, seconds: float) -> SubjectComparison:
    """Figures of one stored subject with a reference, and the verdict of a profile."""
    flow, reference_flow = store.get(subject, FLOW), store.get(subject, REFERENCE_FLOW)
    moved, reference_moved = store.get(subject, MOVED), store.get(subject, REFERENCE_MOVED)
    inside = np.asarray(store.fixed(subject)) > 0
    seg, fixed_seg = store.get(subject, SEG), standard.fixed_seg
    if fixed_seg is None:
        fixed_seg = store.get(subject, FIXED_SEG)
    change = None
    if seg is not None and fixed_seg is not None:
        labels = np.asarray(seg), np.asarray(fixed_seg)
        change = _dice_change(*labels, flow, reference_flow, standard.label_set, standard.labels)
    moved_pair = compare_tensors(moved, reference_moved, peak=MOVED_PEAK)
    flow_pair = compare_tensors(flow, reference_flow, histogram=False)
    errors = flow_errors(flow, reference_flow, standard.spacing)
    result = SubjectComparison(
        subject=subject,
        moved=moved_pair.stats,
        moved_ascend=moved_pair.ascend,
        inside=error_stats(moved, reference_moved, MOVED_PEAK, inside) if inside.any() else None,
        warp_only=error_stats(moved, warp_linear(store.get(subject, MOVING), flow), peak=MOVED_PEAK),
        flow=flow_pair.stats,
        flow_ascend=flow_pair.ascend,
        epe_voxel=errors.voxel,
        epe_mm=errors.mm,
        sampling=errors.sampling,
        dice=change,
        jacobian_reference=jacobian_stats(reference_flow),
        jacobian_offline=jacobian_stats(flow),
        moved_histogram=moved_pair.histogram,
        reference_seconds=seconds,
    )
    return replace(result, judgement=judge_row(result.to_dict(), standard.profile))


def summary(results: Sequence[SubjectComparison]) -> Dict[str, Any]:
    """Worst and mean figures over the compared subjects; `n` is their number."""
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
        "warp_only_max_abs": _worst(max, [r.warp_only.max_abs for r in results]),
        "dice_min_change": _worst(min, [d.min_change for d in with_dice if not math.isnan(d.min_change)]),
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
        + "".join(f"; {failure.text}" for failure in result.judgement.failures)
    )


def _dice_change(
    seg: np.ndarray,
    fixed_seg: np.ndarray,
    flow: np.ndarray,
    reference_flow: np.ndarray,
    label_set: str,
    labels: Sequence[int],
) -> Optional[DiceChange]:
    try:
        offline = dice(warp_nearest(seg, flow), fixed_seg, labels)
        reference = dice(warp_nearest(seg, reference_flow), fixed_seg, labels)
    except VolumeError as exc:
        # A flow with NaN fails the subject through its error statistics; its Dice is undefined.
        LOG.warning("no Dice change: %s", exc)
        return None
    before = dice(seg, fixed_seg, labels)
    rows = {
        label: {"before": before.per_label[label], "reference": there, "offline": here, "change": here - there}
        for label, here, there in (
            (label, offline.per_label[label], reference.per_label[label]) for label in offline.per_label
        )
    }
    known = [label for label, row in rows.items() if not math.isnan(row["change"])]
    worst = max(known, key=lambda label: abs(rows[label]["change"])) if known else None
    return DiceChange(
        label_set=label_set,
        n_labels=reference.n_labels,
        before=before.mean,
        reference=reference.mean,
        offline=offline.mean,
        worst_label="" if worst is None else label_name(worst),
        worst_change=math.nan if worst is None else rows[worst]["change"],
        per_label={label_name(label): row for label, row in rows.items()},
    )


def _worst(pick: Callable[[List[float]], float], values: List[float]) -> Optional[float]:
    return pick(values) if values else None


def _mean(values: List[float]) -> Optional[float]:
    return float(np.mean(values)) if values else None
