# SPDX-License-Identifier: Apache-2.0
"""The change of Dice per structure, in words and as a chart, from report.json alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from om_runner.precision.page.charts import Drawing
from om_runner.precision.page.quantities import Row, dig, limits_of, number, shown
from vxm_convert.webpage.charts import SMALL, chart, mark, rows, scale
from vxm_convert.webpage.colours import BLUE, INK, QUIET, VERMILION
from vxm_convert.webpage.templates import Html


@dataclass(frozen=True)
class StructureChange:
    """Change of Dice (offline − TensorFlow) of one structure over the scans that have it."""

    name: str
    mean: float
    low: float
    high: float
    n: int


def structure_changes(rows: Sequence[Row]) -> List[StructureChange]:
    """Per structure, from the greatest loss to the greatest gain."""
    changes: Dict[str, List[float]] = {}
    for row in rows:
        per_label = dig(row, "dice.per_label")
        for name, entry in per_label.items() if isinstance(per_label, Mapping) else ():
            change = number(entry, "change") if isinstance(entry, Mapping) else None
            if change is not None:
                changes.setdefault(str(name), []).append(change)
    found = [StructureChange(name, sum(v) / len(v), min(v), max(v), len(v)) for name, v in changes.items()]
    return sorted(found, key=lambda change: (change.mean, change.name))


def largest_change_words(rows: Sequence[Row]) -> str:
    """The structure whose Dice changes most, in words; empty where no structure has a figure."""
    changes = structure_changes(rows)
    if not changes:
        return ""
    mean = max(changes, key=lambda change: abs(change.mean))
    if not any(change.low or change.high for change in changes):
        return f"Largest change: none, the Dice of all {len(changes)} structures is the same."
    single = max(changes, key=lambda change: max(-change.low, change.high))
    value = single.low if -single.low > single.high else single.high
    return (
        f"Largest change: {mean.name}, whose Dice {_moved(mean.mean)} in the mean over n = {mean.n} scans. In a single "
        f"scan: {single.name}, whose Dice {_moved(value)}."
    )


def _moved(change: float) -> str:
    return "stays the same" if not change else f"{'rises' if change > 0 else 'falls'} by {shown(abs(change), '.5f')}"


def dice_chart(report: Mapping[str, Any], rows: Sequence[Row]) -> Union[Drawing, str]:
    """A chart of the change of Dice per structure, or the reason why there is none."""
    n = sum(isinstance(row.get("dice"), Mapping) for row in rows)
    changes = structure_changes(rows)
    if not changes:
        return "no scan with labels was compared" if n == 0 else "the report has no figures per structure"
    limit = next((entry["limit"] for entry in limits_of(report) if entry["figure"] == "dice.min_change"), None)
    words = (
        f"Change of Dice (offline model \u2212 TensorFlow) of {len(changes)} structures of {report.get('label_set')}, "
        f"labels warped with nearest neighbour, over n = {n} scans with labels. Mark: mean; line: lowest to highest "
        "scan. Circles: unchanged or gain; triangles: loss."
    )
    return Drawing(_dice_chart(changes, n, limit, words), words)


def _dice_chart(changes: Sequence[StructureChange], n: int, limit: Optional[float], words: str) -> Html:
    step, top, left, right, width = 19, 40, 208, 556, 640
    reach = max([abs(v) for c in changes for v in (c.low, c.high)]) or 1e-4
    near = limit if limit is not None and abs(limit) < 4 * reach else None
    low = min([c.low for c in changes] + ([] if near is None else [near]) + [-0.15 * reach])
    high = max([c.high for c in changes] + [0.15 * reach])
    bottom = top + step * len(changes)
    with chart(width, bottom + 26) as drawn:
        drawn.words(left, 16, "change of Dice, offline \u2212 TensorFlow", bold=True)
        drawn.words(width - 8, 16, "mean", "right", SMALL, colour=QUIET)
        axes = drawn.axes(left, top, right, bottom)
        scale(axes.xaxis, low, high)
        rows(axes, [_name(change, n) for change in changes])
        axes.axvline(0.0, color=INK, linewidth=1.4)
        if near is not None:
            axes.axvline(near, color=INK, linewidth=1.4, dashes=(5, 3))
            place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate("limit of the lowest change", (limit, 1), (4, 4), fontsize=SMALL, **place)
        for at, change in enumerate(changes):
            loss = change.mean < 0
            axes.plot([change.low, change.high], [at, at], color=QUIET, linewidth=1.2)
            mark(axes, "triangle" if loss else "dot", change.mean, at, VERMILION if loss else BLUE, 4, _tip(change))
            drawn.words(width - 8, top + step * (at + 0.5) + 4, shown(change.mean, "+.5f"), "right", SMALL)
        return drawn.svg(words)


def _name(change: StructureChange, n: int) -> str:
    name = change.name if len(change.name) <= 30 else change.name[:29] + "\u2026"
    return name + ("" if change.n == n else f" (n = {change.n})")


def _tip(change: StructureChange) -> str:
    span = f"lowest {change.low:+.5f}, highest {change.high:+.5f}"
    return f"{change.name}: mean {change.mean:+.5f}, {span}, n = {change.n}"
