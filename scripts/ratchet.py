# SPDX-License-Identifier: Apache-2.0
"""A committed baseline of figures that may get better and not worse: its file, the comparison, and when it may be
rewritten.

Knows nothing of how figures are measured. A figure is worse when its error is more than ``1 + slack`` times the
baseline's; for figures in dB, of which more is better, that factor is 20 log10(1 + slack) dB.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple

import yaml

from vxm_convert.artifacts.files import read_bounded, write_text
from vxm_convert.errors import ArtifactError, FormatError, PrecisionError

SCHEMA = 1
_MAX_BYTES = 1 << 20
_KEYS = {"schema", "setup", "made_with", "figures", "plans", "accepted"}
_DB = "dB"
_DIGITS = 5


class Finding(NamedTuple):
    """One figure that left its baseline; `plan` and `figure` name it, `limit` is what was still allowed."""

    plan: str
    figure: str
    old: float
    new: float
    limit: float
    unit: str

    def __str__(self) -> str:
        relation = "at least" if self.unit == _DB else "at most"
        return (
            f"{self.plan} {self.figure}: {self.new:.5g} {self.unit}, baseline {self.old:.5g}, {relation} "
            f"{self.limit:.5g} is allowed"
        )


def read_baseline(path: Path) -> Dict[str, Any]:
    """The file as nested dicts.

    Raises
    ------
    ArtifactError
        It cannot be read.
    FormatError
        It is not a baseline: another schema, unknown or missing entries, figures that are no numbers.
    """
    advice = "make it with --update"
    text = read_bounded(path, _MAX_BYTES, "the baseline", advice).decode("utf-8", "replace")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise FormatError(f"{path}: not YAML ({exc}); {advice}") from exc
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or set(data) != _KEYS:
        raise FormatError(f"{path}: expected a mapping with schema {SCHEMA} and {', '.join(sorted(_KEYS))}; {advice}")
    for figure, rule in data["figures"].items():
        if (
            not isinstance(rule, dict)
            or set(rule) != {"unit", "slack"}
            or not _is_number(rule["slack"])
            or rule["slack"] < 0
        ):
            raise FormatError(
                f"{path}: figure {figure!r} is {rule!r}, expected unit and slack, a share of at least 0; {advice}"
            )
    for plan, row in data["plans"].items():
        if (
            not isinstance(row, dict)
            or set(row) != set(data["figures"]) | {"n"}
            or not all(map(_is_number, row.values()))
        ):
            raise FormatError(
                f"{path}: plan {plan!r} needs n and one number for each of {', '.join(data['figures'])}; {advice}"
            )
    return data


def compare(baseline: Mapping[str, Any], measured: Mapping[str, Mapping[str, float]]) -> List[Finding]:
    """Figures that are worse than the baseline allows, a NaN among them.

    Raises
    ------
    PrecisionError
        The plans are not those of the baseline: a plan that vanished would pass unseen.
    """
    if set(measured) != set(baseline["plans"]):
        raise PrecisionError(
            f"numerics: plans {', '.join(sorted(measured))}, the baseline has {', '.join(sorted(baseline['plans']))}"
        )
    found = []
    for plan, row in baseline["plans"].items():
        for figure, rule in baseline["figures"].items():
            old, new = row[figure], measured[plan][figure]
            limit = bound(old, rule)
            # Written so that NaN is worse.
            fits = new >= limit if rule["unit"] == _DB else new <= limit
            if not fits:
                found.append(Finding(plan, figure, old, new, limit, rule["unit"]))
    return found


def improved(baseline: Mapping[str, Any], measured: Mapping[str, Mapping[str, float]]) -> List[str]:
    """``plan figure`` that are better by more than the slack: the ratchet can be tightened."""
    swapped = {**baseline, "plans": {plan: {**measured[plan]} for plan in baseline["plans"]}}
    return [f"{f.plan} {f.figure}" for f in compare(swapped, baseline["plans"])]


def bound(old: float, rule: Mapping[str, Any]) -> float:
    """The worst value that still passes."""
    factor = 1 + float(rule["slack"])
    return old - 20 * math.log10(factor) if rule["unit"] == _DB else old * factor


def tightened(
    baseline: Mapping[str, Any],
    measured: Mapping[str, Any],
    allow_worse: str,
    made_with: Mapping[str, Any],
    setup: Mapping[str, Any],
    figures: Mapping[str, Any],
) -> Dict[str, Any]:
    """The baseline with the measured figures.

    Parameters
    ----------
    allow_worse : str — why the ratchet may be loosened; empty: it may not.
    setup, figures : mapping — what is measured now, and units and slacks of now.

    Raises
    ------
    PrecisionError
        Without a reason: a figure is worse than its baseline, by however little beyond the digits that are stored; a
        slack grew; a plan or figure is gone; or the setup is another one, so that what was held before cannot be
        compared.
    """
    changes = loosened(baseline, measured, setup, figures)
    if changes and not allow_worse.strip():
        raise PrecisionError(
            "numerics: " + "; ".join(changes) + "; to accept that, give the reason with --allow-worse 'WHY'"
        )
    accepted = list(baseline["accepted"]) + ([{"reason": allow_worse.strip(), "changes": changes}] if changes else [])
    plans = {plan: {name: _rounded(value) for name, value in row.items()} for plan, row in measured.items()}
    return {
        "schema": SCHEMA,
        "setup": dict(setup),
        "made_with": dict(made_with),
        "figures": dict(figures),
        "plans": plans,
        "accepted": accepted,
    }


def loosened(
    baseline: Mapping[str, Any], measured: Mapping[str, Any], setup: Mapping[str, Any], figures: Mapping[str, Any]
) -> List[str]:
    """Every way in which the new figures would hold less than the old ones did."""
    if not baseline["plans"]:
        return []
    if baseline["setup"] != setup:
        return ["another setup than that of the baseline"]
    changes = [f"plan {plan} is gone" for plan in baseline["plans"] if plan not in measured]
    changes += [f"figure {name} is gone" for name in baseline["figures"] if name not in figures]
    kept = {name: rule for name, rule in baseline["figures"].items() if name in figures}
    changes += [
        f"slack of {name}: {rule['slack']} to {figures[name]['slack']}"
        for name, rule in kept.items()
        if figures[name]["slack"] > rule["slack"]
    ]
    plans = {plan: row for plan, row in baseline["plans"].items() if plan in measured}
    exact = {"figures": {name: {**rule, "slack": 2 * 10.0**-_DIGITS} for name, rule in kept.items()}, "plans": plans}
    worse = compare(exact, {plan: measured[plan] for plan in plans})
    return changes + [f"{f.plan} {f.figure}: {f.old:.5g} to {f.new:.5g} {f.unit}" for f in worse]


def write_baseline(path: Path, data: Mapping[str, Any]) -> None:
    """Write the file; raises ArtifactError for a figure that is not finite."""
    bad = [
        f"{plan} {name}"
        for plan, row in data["plans"].items()
        for name, value in row.items()
        if not math.isfinite(value)
    ]
    if bad:
        raise ArtifactError(f"{path}: {', '.join(bad)} is not finite; nothing is written")
    head = (
        "# What `make numerics` measures and holds: errors may shrink, and grow only with --allow-worse and a reason.\n"
    )
    write_text(path, head + yaml.safe_dump(dict(data), sort_keys=False, default_flow_style=False, width=120))


def _rounded(value: float) -> Any:
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
