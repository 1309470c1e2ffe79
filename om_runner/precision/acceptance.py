# SPDX-License-Identifier: Apache-2.0
"""Judges the rows of a precision report by a profile: verdict per subject and for the cohort. NaN and Inf always fail.

It has no limits of its own. Rows are dicts as in report.json.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from vxm_convert.profiles.limitable_figures import AT_MOST
from vxm_convert.profiles.profile import Limit, Profile

VERDICT_OK = "ok"
VERDICT_FAILED = "failed"
OUTPUTS = ("moved", "flow")
#: figures that are undefined if both sides are equal → the error that is then zero
_PERFECT = ("psnr_db", "snr_db", "cosine", "one_minus_cosine", "relative_euclidean")


@dataclass(frozen=True)
class Failure:
    """A figure outside its limit; `value` is None if it is undefined."""

    figure: str
    value: Optional[float]
    limit: float
    relation: str
    text: str

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """Result for one limit: it is met if `failure` is None and `skipped` is empty."""

    figure: str
    value: Optional[float]
    failure: Optional[Failure]
    skipped: str = ""


@dataclass(frozen=True)
class Judgement:
    """All checks of one scan or of the cohort."""

    checks: Tuple[Check, ...]

    @property
    def failures(self) -> List[Failure]:
        return [check.failure for check in self.checks if check.failure is not None]

    @property
    def verdict(self) -> str:
        return VERDICT_FAILED if self.failures else VERDICT_OK

    def to_dict(self) -> Dict[str, Any]:
        """The entries for a row."""
        return {
            "verdict": self.verdict,
            "failures": [failure.to_dict() for failure in self.failures],
            "skipped": [{"figure": check.figure, "reason": check.skipped} for check in self.checks if check.skipped],
        }


def judge_row(row: Mapping[str, Any], profile: Profile) -> Judgement:
    """Verdict on one compared scan."""
    checks = [_finite_check(row, output) for output in OUTPUTS]
    return Judgement(tuple(checks + [_check(row, limit) for limit in profile.limits]))


def judge_cohort(rows: Sequence[Mapping[str, Any]], profile: Profile) -> Judgement:
    """Verdict on means over the scans with a defined figure."""
    checks = []
    for limit in profile.cohort:
        values = [value for value in (number_at(row, limit.figure.name) for row in rows) if value is not None]
        if values:
            checks.append(
                _judge(limit, sum(values) / len(values), f"mean over n = {len(values)} scans of {limit.figure.name}")
            )
        else:
            checks.append(_undefined(limit, "in no scan", limit.figure.needs_labels))
    return Judgement(tuple(checks))


def number_at(row: Mapping[str, Any], name: str) -> Optional[float]:
    """The finite number at a dotted name, or None."""
    value: Any = row
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def judge_limit(limit: Limit, value: Optional[float]) -> str:
    """Why a value does not keep a limit, in words; empty where it does, and where it is undefined and optional."""
    check = _undefined(limit, "in this scan", False) if value is None else _judge(limit, value, limit.figure.name)
    return "" if check.failure is None else check.failure.text


def _finite_check(row: Mapping[str, Any], output: str) -> Check:
    name = f"{output}.non_finite"
    counts = [number_at(row, f"{output}.{key}") for key in ("nan_count", "inf_count")]
    bad = sum(count or 0 for count in counts)
    if None not in counts and bad == 0 and number_at(row, f"{output}.n") != 0:
        return Check(name, 0.0, None)
    text = (
        f"{output}: {counts[0] or 0:.0f} NaN and {counts[1] or 0:.0f} Inf in offline model or reference, expected none"
    )
    return Check(name, bad, Failure(name, bad, 0.0, AT_MOST, text))


def _check(row: Mapping[str, Any], limit: Limit) -> Check:
    name = limit.figure.name
    value = number_at(row, name)
    if value is not None:
        return _judge(limit, value, name)
    if _is_perfect(row, name):
        return Check(name, None, None)
    without_labels = limit.figure.needs_labels and not number_at(row, "dice.n_labels")
    # If a flow is not finite there is no Dice either; that is not a lack of labels, and the scan has already failed.
    return _undefined(limit, "in this scan", without_labels)


def _is_perfect(row: Mapping[str, Any], name: str) -> bool:
    prefix, _, last = name.rpartition(".")
    return last in _PERFECT and number_at(row, prefix + ".max_abs") == 0 and number_at(row, prefix + ".n") != 0


def _undefined(limit: Limit, where: str, without_labels: bool) -> Check:
    name = limit.figure.name
    if without_labels:
        return Check(name, None, None, "no structure of the label set is in both segmentations")
    if limit.optional:
        return Check(name, None, None, f"undefined {where}, and optional in the profile")
    text = (
        f"{name} is undefined {where}, limit {limit.figure.relation} {limit.value:g}; optional: true in the profile "
        "would allow this"
    )
    return Check(name, None, Failure(name, None, limit.value, limit.figure.relation, text))


def _judge(limit: Limit, value: float, what: str) -> Check:
    figure = limit.figure
    if limit.holds(value):
        return Check(figure.name, value, None)
    text = f"{what} is {value:.6g}, limit {figure.relation} {limit.value:g} ({figure.unit})"
    return Check(figure.name, value, Failure(figure.name, value, limit.value, figure.relation, text))
