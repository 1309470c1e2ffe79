# SPDX-License-Identifier: Apache-2.0
"""Dice of two segmentations, counting the pairs of all labels at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, Sequence

import numpy as np

from vxm_convert.metrics.chunked import chunks, cut, in_order, tasks
from vxm_convert.metrics.tensors import check_same_shape

#: label ids below this are looked up in a table, others are searched; FreeSurfer's ids end near 15000
_TABLE_SIZE = 1 << 16


@dataclass(frozen=True)
class DiceScores:
    """Dice per label and their mean over the labels present in both segmentations (`n_labels` of them)."""

    per_label: Dict[int, float]
    mean: float
    n_labels: int


def dice(test: np.ndarray, reference: np.ndarray, labels: Sequence[int]) -> DiceScores:
    """Dice = 2|A∩B| / (|A|+|B|) per label; NaN, and excluded from the mean, if a label is absent from either
    segmentation.

    (Some older code scores an absent label 0, which lowers the mean; Learn2Reg also uses NaN.)
    """
    check_same_shape(test, reference)
    ids = np.unique(np.asarray(labels, dtype=np.int64))
    size = len(ids) + 1
    slot = _slots(ids)

    def pairs(start: int, stop: int) -> np.ndarray:
        joint = np.zeros(size * size, dtype=np.int64)
        for low, high in chunks(start, stop):
            a, b = (slot(cut(seg, low, high, np.int64)) for seg in (test, reference))
            joint += np.bincount(a * size + b, minlength=size * size)
        return joint

    counted = np.zeros(size * size, dtype=np.int64)
    for part in in_order(pairs, tasks(test.size)):
        counted += part
    joint = counted.reshape(size, size)
    count_a, count_b, both = joint.sum(axis=1), joint.sum(axis=0), np.diag(joint)
    scores = {
        int(label): 2.0 * both[i + 1] / (count_a[i + 1] + count_b[i + 1])
        if count_a[i + 1] and count_b[i + 1]
        else float("nan")
        for i, label in enumerate(ids)
    }
    present = [score for score in scores.values() if not math.isnan(score)]
    return DiceScores(scores, float(np.mean(present)) if present else float("nan"), len(present))


def _slots(ids: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Function from values to 1 + position in the sorted `ids`, 0 for others."""

    def search(values: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
        return np.where(ids[at] == values, at + 1, 0)

    if ids[0] < 0 or ids[-1] >= _TABLE_SIZE:
        return search
    table = np.zeros(_TABLE_SIZE, dtype=np.int64)
    table[ids] = np.arange(1, len(ids) + 1)

    def look_up(values: np.ndarray) -> np.ndarray:
        if values.min() < 0 or values.max() >= _TABLE_SIZE:
            return search(values)
        return table[values]

    return look_up
