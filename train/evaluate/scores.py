# SPDX-License-Identifier: Apache-2.0
"""Dice over a cohort: per structure and over all, before and after registration, with and without background. No
TensorFlow.

A structure that a segmentation does not have has no Dice (None) and enters no mean; a mean over nothing is None as
well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from vxm_convert.metrics.labels import LabelSet
from vxm_convert.metrics.overlap import dice

BACKGROUND = 0
Scores = Dict[int, Optional[float]]


@dataclass(frozen=True)
class SubjectScores:
    """One scan: Dice per label (None without segmentations), similarity, folding (share of voxels), seconds of the
    network.
    """

    name: str
    before: Optional[Scores]
    after: Optional[Scores]
    mse_before: float
    mse_after: float
    folding: float
    seconds: float


def label_scores(seg: np.ndarray, fixed: np.ndarray, ids: Sequence[int]) -> Scores:
    """Dice of two segmentations per label, None where either does not have it."""
    found = dice(seg, fixed, list(ids)).per_label
    return {label: None if math.isnan(found[label]) else float(found[label]) for label in ids}


def ids_of(labels: LabelSet, background: bool) -> List[int]:
    """The labels that a mean is taken over."""
    return sorted((set(labels.ids) - {BACKGROUND}) | ({BACKGROUND} if background else set()))


def spread(values: Sequence[Optional[float]]) -> Dict[str, Any]:
    """``mean``, ``std`` (of the population, as numpy.std) and ``n`` of what is there."""
    known = [v for v in values if v is not None]
    if not known:
        return {"mean": None, "std": None, "n": 0}
    return {"mean": float(np.mean(known)), "std": float(np.std(known)), "n": len(known)}


def subject_mean(scores: Optional[Scores], ids: Sequence[int]) -> Optional[float]:
    """Mean over the structures that are there."""
    return None if scores is None else spread([scores.get(label) for label in ids])["mean"]


def structures(subjects: Sequence[SubjectScores], labels: LabelSet) -> List[Dict[str, Any]]:
    """One row per structure, background first: id, name, and the spread over subjects before and after."""
    rows = []
    for label in ids_of(labels, background=True):
        sides = {side: spread([scores[label] for scores in _of(subjects, side)]) for side in ("before", "after")}
        rows.append({"label": label, "name": labels.names.get(label, "Background"), **sides})
    return rows


def overall(subjects: Sequence[SubjectScores], labels: LabelSet) -> List[Dict[str, Any]]:
    """Four rows: without and with background, over all values (every structure of every subject counts once) and over
    subjects.
    """
    rows = []
    for background in (False, True):
        ids = ids_of(labels, background)
        for over in ("values", "subjects"):
            row: Dict[str, Any] = {"background": background, "over": over}
            for side in ("before", "after"):
                found = _of(subjects, side)
                values = (
                    [s[n] for s in found for n in ids] if over == "values" else [subject_mean(s, ids) for s in found]
                )
                row[side] = spread(values)
            rows.append(row)
    return rows


def _of(subjects: Sequence[SubjectScores], side: str) -> List[Scores]:
    return [scores for scores in (getattr(s, side) for s in subjects) if scores is not None]
