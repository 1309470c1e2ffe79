# SPDX-License-Identifier: Apache-2.0
"""Drawings over the cohort: distributions of errors and of |J|, and the change of Dice per structure. Drawn from
report.json alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from om_runner.precision.page.figures import Row, dig, limits_of, number, shown
from vxm_convert.webpage.elements import Html, badge_html, element, figure, join, prose, section
from vxm_convert.webpage.style import BLUE, FAINT, INK, QUIET, RULE, SKY, VERMILION
from vxm_convert.webpage.svg import Scale, box, drawing, frame, line, mark, path, steps, text

_WIDTH, _HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 446, 44, 236
_ERRORS: Tuple[Tuple[str, str, str, str], ...] = (
    ("epe_voxel", "End-point error of the flow", "end-point error, voxel", "epe_voxel"),
    ("moved_abs", "Error of the moved image", "absolute error, intensity 0..1", "moved"),
)
_NAMES = {
    "max": "max",
    "max_abs": "max",
    "p999": "p99.9",
    "p99": "p99",
    "mean": "mean",
    "p999_abs": "p99.9",
    "mean_abs": "mean",
}


@dataclass(frozen=True)
class Distribution:
    """Share of all values per bin: mean, lowest and highest over `n` scans. Values outside the bins count in the
    whole.
    """

    edges: Tuple[float, ...]
    mean: Tuple[float, ...]
    low: Tuple[float, ...]
    high: Tuple[float, ...]
    n: int
    left_out: int


def distribution(rows: Sequence[Row], name: str) -> Optional[Distribution]:
    """One histogram over the scans whose bins lie on one grid; `left_out` counts the others. None where no scan has
    one.
    """
    found = [
        histogram for histogram in (_histogram(dig(row, f"histograms.{name}")) for row in rows) if histogram is not None
    ]
    # Bins of one grid may begin and end elsewhere in each scan.
    grid = sorted({edge for edges, _, _ in found for edge in edges})
    where = {edge: at for at, edge in enumerate(grid)}
    shares = []
    for edges, counts, total in found:
        first = where[edges[0]]
        if grid[first : first + len(edges)] == edges:
            shares.append(
                [0.0] * first + [count / total for count in counts] + [0.0] * (len(grid) - first - len(edges))
            )
    columns = list(zip(*shares))
    used = [at for at, column in enumerate(columns) if max(column) > 0]
    if not used:
        return None
    columns = columns[used[0] : used[-1] + 1]
    mean = tuple(sum(column) / len(column) for column in columns)
    return Distribution(
        tuple(grid[used[0] : used[-1] + 2]),
        mean,
        tuple(map(min, columns)),
        tuple(map(max, columns)),
        len(shares),
        len(found) - len(shares),
    )


def _histogram(entry: Any) -> Optional[Tuple[List[float], Sequence[float], float]]:
    """Edges, counts and the number of all values, those outside the edges included."""
    edges, counts = (entry.get("edges"), entry.get("counts")) if isinstance(entry, Mapping) else (None, None)
    if not edges or not counts or len(edges) != len(counts) + 1:
        return None
    total = sum(counts) + sum(entry.get(side) or 0 for side in ("below", "above"))
    return ([float(edge) for edge in edges], counts, total) if total > 0 else None


def distributions_section(report: Mapping[str, Any], rows: Sequence[Row], simulated: bool) -> Html:
    """Histograms of the errors and of the Jacobian determinant; empty text where the report has none."""
    parts = []
    for name, title, unit, prefix in _ERRORS:
        found = distribution(rows, name)
        if found is not None:
            parts.append(_error_chart(found, title, unit, _limit_lines(report, prefix), simulated))
    jacobian = [distribution(rows, f"jacobian_{side}") for side in ("reference", "offline")]
    if all(jacobian):
        parts.append(_jacobian_chart(jacobian[0], jacobian[1], simulated))
    return (
        section("Distributions", element("div", *parts, class_="charts"), anchor="distributions") if parts else Html("")
    )


def _limit_lines(report: Mapping[str, Any], prefix: str) -> List[Tuple[str, float]]:
    names = [
        (str(entry["figure"]).split("."), entry["limit"]) for entry in limits_of(report) if entry["relation"] == "<="
    ]
    return [
        (_NAMES[parts[1]], limit)
        for parts, limit in names
        if len(parts) == 2 and parts[0] == prefix and parts[1] in _NAMES
    ]


def _share_scale(*found: Distribution) -> Scale:
    positive = [value for d in found for value in d.mean if value > 0]
    low, high = min(positive), max(value for d in found for value in d.high)
    return Scale(10.0 ** _floor_log10(low), 10.0 ** (_floor_log10(high * 0.999) + 1), _BOTTOM, _TOP, True)


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".split("e")[1])


def _error_chart(
    found: Distribution, title: str, unit: str, limits: Sequence[Tuple[str, float]], simulated: bool
) -> Html:
    positive = [edge for edge in found.edges if edge > 0]
    low = positive[0] if found.edges[0] > 0 else positive[0] / 3
    high = max([found.edges[-1]] + [limit * 1.1 for _, limit in limits])
    x, y = Scale(low, high, _LEFT, _RIGHT, True), _share_scale(found)
    edges = [max(edge, low) for edge in found.edges]
    parts = [frame(x, y, unit, "share of voxels per bin")]
    if found.n > 1:
        upper, lower = steps(edges, found.high, x, y), steps(edges, found.low, x, y)
        parts.append(path(upper + lower[::-1], "none", 0, VERMILION, opacity=0.22))
    parts.append(path(steps(edges, found.mean, x, y), VERMILION, 1.8))
    for at, (name, limit) in enumerate(limits):
        parts += [
            line(x.at(limit), _TOP - 4, x.at(limit), _BOTTOM, INK, 1.4, "5 3"),
            text(x.at(limit) - 4, _TOP + 8 + 14 * at, f"limit of {name}", "end", "tick"),
        ]
    words = f"{title}: share of voxels per logarithmic bin. Line: mean over n = {found.n} scans"
    words += ", band: lowest to highest scan." if found.n > 1 else "."
    drawn = drawing(_WIDTH, _HEIGHT, words, text(_LEFT, 16, title, class_="strong"), *parts)
    return figure(drawn, _caption(words, found, simulated))


def _jacobian_chart(reference: Distribution, offline: Distribution, simulated: bool) -> Html:
    low, high = min(reference.edges[0], offline.edges[0]), max(reference.edges[-1], offline.edges[-1])
    x, y = Scale(low, high, _LEFT, _RIGHT), _share_scale(reference, offline)
    title = "Jacobian determinant |J| of the warp"
    folded = x.at(0.0) - _LEFT if low < 0 else 0.0
    parts = [
        box(_LEFT, _TOP, folded, _BOTTOM - _TOP, FAINT),
        frame(x, y, "|J|, no unit; 1: volume kept", "share of voxels per bin"),
    ]
    roomy = folded > 60
    if folded:
        parts += [
            line(x.at(0.0), _TOP, x.at(0.0), _BOTTOM, INK, 1.2),
            text(x.at(0.0) + (-4 if roomy else 4), _TOP + 12, "\u2190 folded", "end" if roomy else "start", "tick"),
        ]
    parts += [
        path(steps(reference.edges, reference.mean, x, y), SKY, 5),
        path(steps(offline.edges, offline.mean, x, y), INK, 1.4, dash="4 2"),
    ]
    key = [
        line(_RIGHT - 176, 31, _RIGHT - 152, 31, SKY, 5),
        text(_RIGHT - 146, 35, "TensorFlow", class_="tick"),
        line(_RIGHT - 72, 31, _RIGHT - 48, 31, INK, 1.4, "4 2"),
        text(_RIGHT - 42, 35, "offline", class_="tick"),
    ]
    words = (
        f"{title}: share of voxels per bin, mean over n = {offline.n} scans. Broad line: TensorFlow; dashed line: "
        "offline model."
    )
    drawn = drawing(_WIDTH, _HEIGHT, words, text(_LEFT, 16, title, class_="strong"), *key, *parts)
    return figure(drawn, _caption(words, offline, simulated))


def _caption(words: str, found: Distribution, simulated: bool) -> Html:
    if found.left_out:
        words += f" {found.left_out} scans with other bins are left out."
    return join([badge_html(simulated, small=True), " ", words])


@dataclass(frozen=True)
class StructureChange:
    """Change of Dice (offline − TensorFlow) of one structure over the scans in which it is defined."""

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


def dice_section(report: Mapping[str, Any], rows: Sequence[Row], simulated: bool) -> Html:
    """A chart of the change of Dice per structure, or a sentence that says why there is none."""
    title = "Dice per structure"
    n = sum(isinstance(row.get("dice"), Mapping) for row in rows)
    changes = structure_changes(rows)
    if not changes:
        why = "no scan with labels was compared" if n == 0 else "the report holds no figures per structure"
        return section(title, prose(f"Not shown: {why}."), anchor="dice")
    limit = next((entry["limit"] for entry in limits_of(report) if entry["figure"] == "dice.min_change"), None)
    words = (
        f"Change of Dice (offline model \u2212 TensorFlow) of {len(changes)} structures of {report.get('label_set')}, "
        "labels warped "
        f"with nearest neighbour, over n = {n} scans with labels. Mark: mean; line: lowest to highest scan. "
        "Circles: unchanged or gain; triangles: loss."
    )
    drawn = _dice_chart(changes, n, limit, words)
    return section(
        title, figure(drawn, join([badge_html(simulated, small=True), " ", words]), classes="chart tall"), anchor="dice"
    )


def _dice_chart(changes: Sequence[StructureChange], n: int, limit: Optional[float], words: str) -> Html:
    step, top, left, right, width = 19, 40, 208, 556, 640
    reach = max([abs(v) for c in changes for v in (c.low, c.high)]) or 1e-4
    near = limit is not None and abs(limit) < 4 * reach
    x = Scale(
        min([c.low for c in changes] + ([limit] if near else []) + [-0.15 * reach]),
        max([c.high for c in changes] + [0.15 * reach]),
        left,
        right,
    )
    bottom = top + step * len(changes)
    parts = [
        text(left, 16, "change of Dice, offline \u2212 TensorFlow", class_="strong"),
        text(width - 8, 16, "mean", "end", "tick", QUIET),
    ]
    for value, name in x.ticks():
        parts += [
            line(x.at(value), top - 6, x.at(value), bottom, RULE, 0.7),
            text(x.at(value), bottom + 16, name, "middle", "tick", QUIET),
        ]
    parts.append(line(x.at(0.0), top - 6, x.at(0.0), bottom, INK, 1.4))
    if near:
        parts += [
            line(x.at(limit), top - 6, x.at(limit), bottom, INK, 1.4, "5 3"),
            text(x.at(limit) + 4, top - 8, "limit of the lowest change", class_="tick"),
        ]
    for at, change in enumerate(changes):
        y = top + step * (at + 0.5)
        label = change.name if len(change.name) <= 30 else change.name[:29] + "\u2026"
        label += "" if change.n == n else f" (n = {change.n})"
        loss = change.mean < 0
        tip = (
            f"{change.name}: mean {change.mean:+.5f}, lowest {change.low:+.5f}, highest {change.high:+.5f}, n = "
            f"{change.n}"
        )
        parts += [
            text(left - 10, y + 4, label, "end"),
            line(x.at(change.low), y, x.at(change.high), y, QUIET, 1.2),
            mark("triangle" if loss else "dot", x.at(change.mean), y, VERMILION if loss else BLUE, 4, tip),
            text(width - 8, y + 4, shown(change.mean, "+.5f"), "end", "tick"),
        ]
    return drawing(width, bottom + 26, words, *parts)
