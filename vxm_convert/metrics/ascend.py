# SPDX-License-Identifier: Apache-2.0
"""The ten figures of Ascend's tensor comparer, under its names and by its definitions, from sums over the tensors.

Source: msaccucmp of Ascend's msprobe. x is the device's tensor, y the reference. Unlike there, sums are float64 and
figures keep their digits: six decimals, as printed there, hide 1 − cosine below 5e-7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict

#: in the comparer's order
ASCEND_NAMES = (
    "CosineSimilarity",
    "MaxAbsoluteError",
    "AccumulatedRelativeError",
    "RelativeEuclideanDistance",
    "KullbackLeiblerDivergence",
    "StandardDeviation",
    "MeanAbsoluteError",
    "RootMeanSquareError",
    "MaxRelativeError",
    "MeanRelativeError",
)
#: below it a reference value counts as zero
EPSILON = 2.2e-16
#: lowest probability of the Kullback-Leibler divergence
KL_FLOOR = 1.19e-7
#: means and deviations below it are shown as zero
_SHOWN_FROM = 1e-3


@dataclass(frozen=True)
class AscendMetrics:
    """The ten figures and the reason for undefined ones (NaN), as in the comparer's column CompareFailReason."""

    figures: Dict[str, Any]
    reason: str

    def to_dict(self) -> Dict[str, Any]:
        """Name → figure; StandardDeviation is a text, as in the comparer."""
        return dict(self.figures)


def undefined(reason: str) -> AscendMetrics:
    """The figures of a tensor without finite values, or with a non-finite one."""
    figures: Dict[str, Any] = dict.fromkeys(ASCEND_NAMES, math.nan)
    return AscendMetrics({**figures, "StandardDeviation": "(nan;nan),(nan;nan)"}, reason)


def boolean_only(metrics: AscendMetrics) -> AscendMetrics:
    """For bool tensors the comparer has only the cosine and the relative Euclidean distance."""
    keep = ("CosineSimilarity", "RelativeEuclideanDistance")
    figures = {name: value if name in keep else math.nan for name, value in metrics.figures.items()}
    return AscendMetrics(
        figures, (metrics.reason + " " if metrics.reason else "") + "bool tensors have figures 0 and 3 only."
    )


def from_sums(sums: Any, kl: float) -> AscendMetrics:
    """The figures from the sums of `pairs.PairSums` and the divergence of the second pass."""
    n = sums.errors.n
    norm_x, norm_y = math.sqrt(sums.xx), math.sqrt(sums.yy)
    cosine, reason = _cosine(norm_x, norm_y, sums.xy, n)
    figures = {
        "CosineSimilarity": cosine,
        "MaxAbsoluteError": sums.errors.max,
        "AccumulatedRelativeError": sums.relative,
        "RelativeEuclideanDistance": math.sqrt(sums.dd / sums.yy) if sums.yy > EPSILON else 0.0,
        "KullbackLeiblerDivergence": 0.0 if abs(kl) < EPSILON else kl,
        "StandardDeviation": f"({sums.x.text()}),({sums.y.text()})",
        "MeanAbsoluteError": sums.errors.mean,
        "RootMeanSquareError": math.sqrt(sums.dd / n),
        "MaxRelativeError": sums.relative_max,
        "MeanRelativeError": sums.relative / n,
    }
    return AscendMetrics(figures, reason)


def _cosine(norm_x: float, norm_y: float, xy: float, n: int) -> Any:
    if norm_x == 0 and norm_y == 0 or n == 1:
        return 1.0, ""
    if norm_x == 0 or norm_y == 0:
        return (
            math.nan,
            f"CosineSimilarity: all values of the {'device' if norm_x == 0 else 'reference'} tensor are zero.",
        )
    return max(-1.0, min(1.0, xy / (norm_x * norm_y))), ""


@dataclass
class Moments:
    """Count, mean, squared deviations, least and largest value of one tensor, merged chunk by chunk (Chan, Golub,
    LeVeque 1979).
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, n: int, mean: float, m2: float, low: float, high: float) -> None:
        if not n:
            return
        delta, total = mean - self.mean, self.n + n
        self.mean += delta * n / total
        self.m2 += m2 + delta * delta * self.n * n / total
        self.n, self.low, self.high = total, min(self.low, low), max(self.high, high)

    def text(self) -> str:
        """``mean;std`` with three decimals."""
        figures = (self.mean, math.sqrt(self.m2 / max(self.n, 1)))
        return ";".join(f"{0.0 if abs(v) < _SHOWN_FROM else v:.3f}" for v in figures)
