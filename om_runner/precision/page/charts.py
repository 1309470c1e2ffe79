# SPDX-License-Identifier: Apache-2.0
"""Charts over the cohort: distributions of errors and of |J|, from report.json alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from om_runner.precision.page.quantities import Row, dig, limits_of
from vxm_convert.webpage.charts import SMALL, WIDTH, Chart, chart, legend, scale, titles
from vxm_convert.webpage.colours import FAINT, INK, SKY, VERMILION
from vxm_convert.webpage.templates import Html

_HEIGHT = 290
_BOX = (58, 44, 446, 236)
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
    """Share of all values per bin: mean, lowest and highest over `n` scans. Values outside the bins count in the total."""

    edges: Tuple[float, ...]
    mean: Tuple[float, ...]
    low: Tuple[float, ...]
    high: Tuple[float, ...]
    n: int
    left_out: int


def distribution(rows: Sequence[Row], name: str) -> Optional[Distribution]:
    """One histogram over the scans whose bins are on the same grid; `left_out` counts the others. None if no scan has
    one.
    """
    found = [
        histogram for histogram in (_histogram(dig(row, f"histograms.{name}")) for row in rows) if histogram is not None
    ]
    # Bins of the same grid may have another range in each scan.
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


def _histogram(entry: object) -> Optional[Tuple[List[float], Sequence[float], float]]:
    """Edges, counts and the number of all values, including those outside the edges."""
    if not isinstance(entry, Mapping):
        return None
    edges, counts = entry.get("edges"), entry.get("counts")
    if not edges or not counts or len(edges) != len(counts) + 1:
        return None
    total = sum(counts) + sum(entry.get(side) or 0 for side in ("below", "above"))
    return ([float(edge) for edge in edges], counts, total) if total > 0 else None


@dataclass(frozen=True)
class Drawing:
    """A chart and its caption."""

    chart: Html
    words: str


def distribution_charts(report: Mapping[str, Any], rows: Sequence[Row]) -> List[Drawing]:
    """Histograms of the errors and of the Jacobian determinant in the report."""
    charts = []
    for name, title, unit, prefix in _ERRORS:
        found = distribution(rows, name)
        if found is not None:
            charts.append(_error_chart(found, title, unit, _limits_of(report, prefix)))
    reference, offline = (distribution(rows, f"jacobian_{side}") for side in ("reference", "offline"))
    if reference is not None and offline is not None:
        charts.append(_jacobian_chart(reference, offline))
    return charts


def _limits_of(report: Mapping[str, Any], prefix: str) -> List[Tuple[str, float]]:
    names = [
        (str(entry["figure"]).split("."), entry["limit"]) for entry in limits_of(report) if entry["relation"] == "<="
    ]
    return [
        (_NAMES[parts[1]], limit)
        for parts, limit in names
        if len(parts) == 2 and parts[0] == prefix and parts[1] in _NAMES
    ]


def _share_range(*found: Distribution) -> Tuple[float, float]:
    """Whole decades around the shares above zero."""
    positive = [value for d in found for value in d.mean if value > 0]
    highest = max(value for d in found for value in d.high)
    return 10.0 ** _floor_log10(min(positive)), 10.0 ** (_floor_log10(highest * 0.999) + 1)


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".split("e")[1])


def _share_axes(drawn: Chart, title: str, unit: str, lowest: float, highest: float) -> Any:
    """Axes for shares of voxels on a logarithmic scale."""
    drawn.words(_BOX[0], 16, title, bold=True)
    axes = drawn.axes(*_BOX)
    scale(axes.yaxis, lowest, highest, logarithmic=True)
    titles(axes, unit, "share of voxels per bin")
    return axes


def _error_chart(found: Distribution, title: str, unit: str, limits: Sequence[Tuple[str, float]]) -> Drawing:
    positive = [edge for edge in found.edges if edge > 0]
    low = positive[0] if found.edges[0] > 0 else positive[0] / 3
    high = max([found.edges[-1]] + [limit * 1.1 for _, limit in limits])
    lowest, highest = _share_range(found)
    words = f"{title}: share of voxels per logarithmic bin. Line: mean over n = {found.n} scans"
    words += ", band: lowest to highest scan." if found.n > 1 else "."
    with chart(WIDTH, _HEIGHT) as drawn:
        axes = _share_axes(drawn, title, unit, lowest, highest)
        scale(axes.xaxis, low, high, logarithmic=True)
        edges = [max(edge, low) for edge in found.edges]
        if found.n > 1:
            band = [[max(value, lowest) for value in values + values[-1:]] for values in (found.low, found.high)]
            axes.fill_between(edges, *band, step="post", color=VERMILION, alpha=0.22, linewidth=0)
        axes.stairs([max(value, lowest) for value in found.mean], edges, baseline=None, color=VERMILION, linewidth=1.8)
        for at, (name, limit) in enumerate(limits):
            axes.plot([limit, limit], [lowest, highest], color=INK, linewidth=1.4, dashes=(5, 3))
            place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "right"}
            axes.annotate(f"limit of {name}", (limit, 1), (-4, -12 - 14 * at), fontsize=SMALL, **place)
        return Drawing(drawn.svg(words), words + _left_out(found))


def _jacobian_chart(reference: Distribution, offline: Distribution) -> Drawing:
    low, high = min(reference.edges[0], offline.edges[0]), max(reference.edges[-1], offline.edges[-1])
    title = "Jacobian determinant |J| of the warp"
    words = (
        f"{title}: share of voxels per bin, mean over n = {offline.n} scans. Broad line: TensorFlow; dashed line: "
        "offline model."
    )
    lowest, highest = _share_range(reference, offline)
    with chart(WIDTH, _HEIGHT) as drawn:
        axes = _share_axes(drawn, title, "|J|, no unit; 1: volume kept", lowest, highest)
        scale(axes.xaxis, low, high)
        if low < 0:
            axes.axvspan(low, min(0.0, high), color=FAINT, linewidth=0, zorder=0)
            axes.plot([0, 0], [lowest, highest], color=INK, linewidth=1.2)
            roomy = -low / (high - low) > 0.15
            place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            side = {"ha": "right" if roomy else "left", "fontsize": SMALL}
            axes.annotate("\u2190 folded", (0, 1), (-4 if roomy else 4, -12), **place, **side)
        for found, name, style in (
            (reference, "TensorFlow", {"color": SKY, "linewidth": 5}),
            (offline, "offline", {"color": INK, "linewidth": 1.4, "linestyle": (0, (4, 2))}),
        ):
            shares = [max(value, lowest) for value in found.mean]
            axes.stairs(shares, found.edges, baseline=None, label=name, **style)
        legend(axes, fontsize=SMALL)
        return Drawing(drawn.svg(words), words + _left_out(offline))


def _left_out(found: Distribution) -> str:
    return f" {found.left_out} scans with other bins are omitted." if found.left_out else ""
