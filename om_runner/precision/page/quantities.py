# SPDX-License-Identifier: Apache-2.0
"""Names, units and formats of the figures of a report row, and the distance of a value from its limit.

Rows come from report.json: an entry that is missing or None is undefined and shown as n/a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from vxm_convert.profiles.limitable_figures import FIGURES as LIMITABLE
from vxm_convert.webpage.tables import Cell
from vxm_convert.webpage.templates import NOT_AVAILABLE

Row = Mapping[str, Any]
INTENSITY = "intensity 0..1"


@dataclass(frozen=True)
class Figure:
    """Name, unit ("" for a plain number) and format of one figure."""

    label: str
    unit: str
    form: str


FIGURES: Dict[str, Figure] = {
    "moved.max_abs": Figure("moved image, largest error", INTENSITY, ".2e"),
    "moved.mean_abs": Figure("moved image, mean error", INTENSITY, ".2e"),
    "moved.p999_abs": Figure("moved image, error p99.9", INTENSITY, ".2e"),
    "moved.rmse": Figure("moved image, RMS error", INTENSITY, ".2e"),
    "moved.psnr_db": Figure("moved image, PSNR", "dB", ".1f"),
    "moved.cosine": Figure("moved image, cosine", "", ".8f"),
    "moved.one_minus_cosine": Figure("moved image, 1 \u2212 cosine", "", ".1e"),
    "moved.relative_euclidean": Figure("moved image, relative Euclidean distance", "", ".1e"),
    "moved.inside.max_abs": Figure("moved image inside the brain, largest error", INTENSITY, ".2e"),
    "moved.inside.mean_abs": Figure("moved image inside the brain, mean error", INTENSITY, ".2e"),
    "moved.inside.psnr_db": Figure("moved image inside the brain, PSNR", "dB", ".1f"),
    "moved.warp_only.max_abs": Figure("warp alone, largest error", INTENSITY, ".2e"),
    "moved.warp_only.psnr_db": Figure("warp alone, PSNR", "dB", ".1f"),
    "flow.max_abs": Figure("flow, largest error of a component", "voxel", ".4f"),
    "flow.mean_abs": Figure("flow, mean error of a component", "voxel", ".5f"),
    "flow.cosine": Figure("flow, cosine", "", ".8f"),
    "flow.one_minus_cosine": Figure("flow, 1 \u2212 cosine", "", ".1e"),
    "flow.relative_euclidean": Figure("flow, relative Euclidean distance", "", ".1e"),
    "epe_voxel.max": Figure("end-point error, largest", "voxel", ".4f"),
    "epe_voxel.p999": Figure("end-point error, p99.9", "voxel", ".4f"),
    "epe_voxel.p99": Figure("end-point error, p99", "voxel", ".4f"),
    "epe_voxel.mean": Figure("end-point error, mean", "voxel", ".5f"),
    "epe_mm.max": Figure("end-point error, largest", "mm", ".4f"),
    "epe_mm.p999": Figure("end-point error, p99.9", "mm", ".4f"),
    "epe_mm.p99": Figure("end-point error, p99", "mm", ".4f"),
    "epe_mm.mean": Figure("end-point error, mean", "mm", ".5f"),
    "sampling.position_max": Figure("sampling position, largest error", "voxel", ".4f"),
    "sampling.position_p999": Figure("sampling position, error p99.9", "voxel", ".4f"),
    "sampling.position_mean": Figure("sampling position, mean error", "voxel", ".5f"),
    "sampling.floor_flip_fraction": Figure("sampling positions with another floor", "share of positions", ".3%"),
    "dice.change": Figure("Dice, change of the mean", "Dice", "+.5f"),
    "dice.mean_change": Figure("Dice, mean change over structures", "Dice", "+.5f"),
    "dice.min_change": Figure("Dice, lowest change of a structure", "Dice", "+.5f"),
    "dice.worst_change": Figure("Dice, change of the most changed structure", "Dice", "+.5f"),
    "folding.change": Figure("folding, change", "share of voxels", "+.4%"),
    "folding.offline_fraction": Figure("folding, offline model", "share of voxels", ".4%"),
    "folding.reference_fraction": Figure("folding, TensorFlow", "share of voxels", ".4%"),
}


def figure(name: str) -> Figure:
    """Description of a dotted name; an unknown one is shown by its name."""
    if name in FIGURES:
        return FIGURES[name]
    known = LIMITABLE.get(name)
    return (
        Figure(name, "", ".4g") if known is None else Figure(known.text, "" if known.unit == "1" else known.unit, ".4g")
    )


def mapping_at(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a report; empty where the report does not have it."""
    found = report.get(name)
    return found if isinstance(found, Mapping) else {}


def dig(row: Row, name: str) -> Optional[Any]:
    """The entry at a dotted name, or None."""
    value: Any = row
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def number(row: Row, name: str) -> Optional[float]:
    """The finite number at a dotted name, or None."""
    value = dig(row, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def shown(value: Optional[Any], form: str = "s") -> str:
    """A value in its format; n/a for None; with a proper minus sign."""
    if value is None or value == "":
        return NOT_AVAILABLE
    return str(value) if form == "s" else format(value, form).replace("-", "\u2212")


def cell(row: Row, name: str, form: str = "") -> Cell:
    """The table cell of a figure."""
    value = number(row, name)
    return Cell(shown(value, form or figure(name).form), sort=value, classes="" if value is not None else "missing")


def with_unit(name: str, value: Optional[float]) -> str:
    """A value as text: number and unit."""
    known = figure(name)
    unit = "" if value is None or not known.unit or known.form.endswith("%") else "\u00a0" + known.unit
    return shown(value, known.form) + unit


def non_finite(row: Row) -> int:
    """NaN and infinite values in the outputs of one subject."""
    return sum(
        int(number(row, f"{output}.{what}") or 0) for output in ("moved", "flow") for what in ("nan_count", "inf_count")
    )


def limits_of(report: Mapping[str, Any]) -> Tuple[Mapping[str, Any], ...]:
    """Limits of the profile: figure, relation (``<=`` or ``>=``), limit; empty if no profile was applied."""
    return _limits(report, "limits")


def _limits(report: Mapping[str, Any], key: str) -> Tuple[Mapping[str, Any], ...]:
    profile = report.get("profile")
    entries = profile.get(key) if isinstance(profile, Mapping) else None
    return tuple(
        entry for entry in entries or () if isinstance(entry, Mapping) and isinstance(entry.get("limit"), (int, float))
    )


def cohort_limits_of(report: Mapping[str, Any]) -> Tuple[Mapping[str, Any], ...]:
    """Limits of the profile on means over the scans, with the same entries."""
    return _limits(report, "cohort")


#: figures that are 1 where nothing differs
_NEAR_ONE = ("cosine", "CosineSimilarity")


def share_of_limit(value: Optional[float], relation: str, limit: float, name: str = "") -> Optional[float]:
    """Share of a limit that a value uses: 1 at the limit, above 1 beyond it; infinite if it is beyond without a defined
    share.

    Decibels count by the error that they stand for, cosines by what they lack to 1, so that they compare with errors. For
    other ``>=`` with a positive limit it is limit / value; with a negative one (change of Dice) only losses count.

    Parameters
    ----------
    name : str — of the figure, whose unit decides.
    """
    if value is None:
        return None
    if name.endswith("_db"):
        return float(10.0 ** min((limit - value) / 20.0, 300.0))
    if name.rpartition(".")[2] in _NEAR_ONE:
        relation, value, limit = "<=", 1.0 - value, 1.0 - limit
    if relation == ">=":
        if limit > 0:
            return limit / value if value > 0 else math.inf
        value, limit = -value, -limit
    if limit > 0:
        return max(value, 0.0) / limit
    return math.inf if value > limit else 0.0


def worst_share(row: Row, limits: Sequence[Mapping[str, Any]]) -> Optional[float]:
    """The largest share of any limit that a subject uses."""
    shares = [
        share_of_limit(number(row, str(entry["figure"])), str(entry["relation"]), entry["limit"], str(entry["figure"]))
        for entry in limits
    ]
    known = [share for share in shares if share is not None]
    return max(known) if known else None


def badness(row: Row, limits: Sequence[Mapping[str, Any]] = ()) -> Tuple[float, ...]:
    """Sort key for subjects, worst is largest: NaN or Inf, then failed, then the share of the limits, then the
    end-point error.
    """
    return (
        float(non_finite(row) > 0),
        float(row.get("verdict") == "failed"),
        worst_share(row, limits) or 0.0,
        number(row, "epe_voxel.max") or 0.0,
        number(row, "moved.max_abs") or 0.0,
    )


def worst_first(rows: Sequence[Row], limits: Sequence[Mapping[str, Any]] = ()) -> Sequence[Row]:
    """Rows from worst to best; equal ones by name."""
    return sorted(rows, key=lambda row: (tuple(-part for part in badness(row, limits)), str(row.get("subject"))))
