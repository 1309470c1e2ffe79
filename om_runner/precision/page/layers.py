# SPDX-License-Identifier: Apache-2.0
"""Error per layer, if layers were analysed (layers.json): entire and single error, sources marked."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence

from om_runner.precision.page.charts import Drawing
from om_runner.precision.page.quantities import Row, dig, number, shown
from vxm_convert.webpage.charts import SMALL, chart, mark, rows, scale
from vxm_convert.webpage.colours import BLUE, FAINT, QUIET, RULE, VERMILION
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import Html

EUCLID = "RelativeEuclideanDistance"
#: rows of the chart; more would be illegible
MOST_LAYERS = 70
_STEP, _TOP, _LEFT, _RIGHT, _WIDTH = 18, 62, 250, 640, 720
_LOWEST = 1e-9


def layer_rows(report: Mapping[str, Any]) -> List[Row]:
    """The entries of the analysis, in execution order; empty if it was not run."""
    found = report.get("layers")
    if isinstance(found, Mapping):
        found = next(
            (found[key] for key in ("layers", "rows", "tensors") if isinstance(found.get(key), (list, tuple))), None
        )
    return [row for row in found or () if isinstance(row, Mapping)]


def _error(row: Row, which: str) -> Optional[float]:
    return number(row, which) if not isinstance(row.get(which), Mapping) else number(row, f"{which}.{EUCLID}")


def layers_chart(report: Mapping[str, Any]) -> Optional[Drawing]:
    """Errors of the layers; None if there is no analysis."""
    compared = [row for row in layer_rows(report) if _is_compared(row)]
    if not compared:
        return None
    chosen = _most_telling(compared)
    left_out = (
        f" Shown: the {len(chosen)} of {len(compared)} with the largest errors." if len(chosen) < len(compared) else ""
    )
    words = (
        f"Relative Euclidean distance to TensorFlow of {len(chosen)} tensors of the offline model, in execution "
        "order, one scan (n = 1). Filled circle: entire error, including that of the inputs. Open diamond: single "
        "error, the layer alone on TensorFlow's inputs. Shaded and named: a source, whose inputs are still good. "
        f"Discontinuous layers show their flip rate.{left_out}"
    )
    return Drawing(_chart(chosen, words), words)


def sources_table(report: Mapping[str, Any]) -> Optional[Html]:
    """The layers that are sources of error; None if there are none."""
    sources = [row for row in layer_rows(report) if row.get("source")]
    return _sources_table(sources) if sources else None


def _is_compared(row: Row) -> bool:
    return bool(_error(row, "entire") is not None or row.get("discontinuous") or row.get("source"))


def _most_telling(rows: Sequence[Row]) -> Sequence[Row]:
    if len(rows) <= MOST_LAYERS:
        return rows
    ranked = sorted(
        range(len(rows)), key=lambda at: (not rows[at].get("source"), -(_error(rows[at], "entire") or 0.0), at)
    )
    return [rows[at] for at in sorted(ranked[:MOST_LAYERS])]


def _chart(layers: Sequence[Row], words: str) -> Html:
    errors = [_error(row, which) for row in layers for which in ("entire", "single")]
    values = [value for value in errors if value is not None and value > 0]
    low, high = max(min(values, default=1e-6), _LOWEST) / 2, max(values, default=1e-3) * 2
    bottom = _TOP + _STEP * len(layers)
    with chart(_WIDTH, bottom + 22) as drawn:
        drawn.words(_LEFT, 16, "relative Euclidean distance to TensorFlow", bold=True)
        key = drawn.canvas()
        mark(key, "dot", _LEFT + 6, 32, BLUE)
        mark(key, "diamond", _LEFT + 106, 32, VERMILION)
        drawn.words(_LEFT + 16, 36, "entire error", size=SMALL)
        drawn.words(_LEFT + 116, 36, "single error", size=SMALL)
        for at in (at for at, row in enumerate(layers) if row.get("source")):
            key.fill_between([0, _WIDTH], _TOP + _STEP * at, _TOP + _STEP * (at + 1), color=FAINT, linewidth=0)
        axes = drawn.axes(_LEFT, _TOP, _RIGHT, bottom)
        scale(axes.xaxis, low, max(high, low * 10), logarithmic=True)
        axes.tick_params(labeltop=True)
        rows(axes, [_short_name(row) for row in layers])
        for label, row in zip(axes.get_yticklabels(), layers):
            label.set(fontsize=SMALL, fontweight="bold" if row.get("source") else "normal")
        for at, row in enumerate(layers):
            _draw_layer(axes, at, row)
        return drawn.svg(words)


def _short_name(row: Row) -> str:
    name = str(row.get("name"))
    return name if len(name) <= 38 else "\u2026" + name[-37:]


def _draw_layer(axes: Any, at: int, row: Row) -> None:
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center", "fontsize": SMALL}
    if row.get("source"):
        axes.annotate("\u25c0 source", (1, at), (_WIDTH - 6 - _RIGHT, 0), ha="right", fontweight="bold", **beside)
    if row.get("discontinuous"):
        flips = number(row, "flip_rate")
        words = "discontinuous, no flips" if not flips else f"discontinuous, {flips:.3%} flip"
        axes.annotate(words if flips is not None else "discontinuous", (0, at), (4, 0), color=QUIET, **beside)
        return
    entire, single = _error(row, "entire"), _error(row, "single")
    low, high = axes.get_xlim()
    places = [None if value is None else min(max(value, low), high) for value in (entire, single)]
    tip = (
        f"{row.get('name')} ({row.get('type')}, {row.get('dtype')}): entire {shown(entire, '.2e')}, single "
        f"{shown(single, '.2e')}"
    )
    if None not in places:
        axes.plot(places, [at, at], color=RULE, linewidth=1.5)
    for place, kind, colour, size in zip(places, ("dot", "diamond"), (BLUE, VERMILION), (4, 3.6)):
        if place is not None:
            mark(axes, kind, place, at, colour, size, tip)


def _sources_table(sources: Sequence[Row]) -> Html:
    ranked = sorted(sources, key=lambda row: -(number(row, "share") or 0.0))
    columns = [
        Column("layer", "name"),
        Column("operator", "text"),
        Column("dtype", "text"),
        Column("entire"),
        Column("single"),
        Column("effect on the outputs"),
        Column("share of the error"),
        Column("what to do", "text"),
    ]
    body = []
    for row in ranked:
        effects = (
            [v for v in row["effect"].values() if isinstance(v, (int, float))]
            if isinstance(row.get("effect"), Mapping)
            else []
        )
        cells = [
            (_error(row, "entire"), ".2e"),
            (_error(row, "single"), ".2e"),
            (max(effects) if effects else None, ".2e"),
            (number(row, "share"), ".1%"),
        ]
        body.append(
            [
                str(row.get("name")),
                shown(dig(row, "type")),
                shown(dig(row, "dtype")),
                *(Cell(shown(value, form), sort=value) for value, form in cells),
                str(row.get("advice") or "\u2014"),
            ]
        )
    return table(
        f"Sources of error, n = {len(ranked)} layers, largest share first. Relative Euclidean distances.", columns, body
    )
