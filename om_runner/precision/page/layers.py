# SPDX-License-Identifier: Apache-2.0
"""Error per layer, where the analysis layer by layer was run (layers.json): entire and single error, sources marked."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence

from om_runner.precision.page.figures import Row, dig, number, shown
from vxm_convert.webpage.elements import Cell, Column, Html, badge_html, element, figure, join, prose, section
from vxm_convert.webpage.style import BLUE, FAINT, QUIET, RULE, VERMILION
from vxm_convert.webpage.svg import Scale, box, drawing, line, mark, text
from vxm_convert.webpage.tables import table

EUCLID = "RelativeEuclideanDistance"
#: rows of the drawing; more could not be read
MOST_LAYERS = 70
_STEP, _TOP, _LEFT, _RIGHT, _WIDTH = 18, 62, 250, 640, 720
_LOWEST = 1e-9


def layer_rows(report: Mapping[str, Any]) -> List[Row]:
    """The entries of the analysis, in execution order; empty where it was not run."""
    found = report.get("layers")
    if isinstance(found, Mapping):
        found = next(
            (found[key] for key in ("layers", "rows", "tensors") if isinstance(found.get(key), (list, tuple))), None
        )
    return [row for row in found or () if isinstance(row, Mapping)]


def _error(row: Row, which: str) -> Optional[float]:
    return number(row, which) if not isinstance(row.get(which), Mapping) else number(row, f"{which}.{EUCLID}")


def layers_section(report: Mapping[str, Any], simulated: bool) -> Html:
    """Drawing and table of sources; empty text where there is no analysis."""
    rows = layer_rows(report)
    compared = [
        row for row in rows if _error(row, "entire") is not None or row.get("discontinuous") or row.get("source")
    ]
    if not compared:
        return Html("")
    chosen = _most_telling(compared)
    left_out = (
        f" Shown: the {len(chosen)} of {len(compared)} with the largest errors." if len(chosen) < len(compared) else ""
    )
    words = (
        f"Relative Euclidean distance to TensorFlow of {len(chosen)} tensors of the offline model, in execution "
        "order, one scan (n = 1). "
        "Filled circle: entire error, with what the inputs bring along. Open diamond: single error, the layer alone "
        "on TensorFlow's "
        "inputs. Shaded and named: a source, whose inputs are still good. Discontinuous layers show their flip "
        f"rate.{left_out}"
    )
    sources = [row for row in rows if row.get("source")]
    listed = (
        _sources_table(sources)
        if sources
        else prose("No layer is worse than its inputs explain: there is no source of error.")
    )
    drawn = figure(_chart(chosen, words), join([badge_html(simulated, small=True), " ", words]), classes="chart tall")
    return section("Layer by layer", drawn, listed, anchor="layers")


def _most_telling(rows: Sequence[Row]) -> Sequence[Row]:
    if len(rows) <= MOST_LAYERS:
        return rows
    ranked = sorted(
        range(len(rows)), key=lambda at: (not rows[at].get("source"), -(_error(rows[at], "entire") or 0.0), at)
    )
    return [rows[at] for at in sorted(ranked[:MOST_LAYERS])]


def _chart(rows: Sequence[Row], words: str) -> Html:
    values = [
        v for row in rows for which in ("entire", "single") for v in [_error(row, which)] if v is not None and v > 0
    ]
    low, high = max(min(values, default=1e-6), _LOWEST) / 2, max(values, default=1e-3) * 2
    x = Scale(low, max(high, low * 10), _LEFT, _RIGHT, True)
    bottom = _TOP + _STEP * len(rows)
    parts = [
        text(_LEFT, 16, "relative Euclidean distance to TensorFlow", class_="strong"),
        mark("dot", _LEFT + 6, 32, BLUE),
        text(_LEFT + 16, 36, "entire error", class_="tick"),
        mark("diamond", _LEFT + 106, 32, VERMILION),
        text(_LEFT + 116, 36, "single error", class_="tick"),
    ]
    for value, name in x.ticks():
        parts += [
            line(x.at(value), _TOP - 4, x.at(value), bottom, RULE, 0.7),
            text(x.at(value), bottom + 15, name, "middle", "tick", QUIET),
            text(x.at(value), _TOP - 8, name, "middle", "tick", QUIET),
        ]
    for at, row in enumerate(rows):
        parts += _line_of(row, _TOP + _STEP * (at + 0.5), x)
    return drawing(_WIDTH, bottom + 22, words, *parts)


def _line_of(row: Row, y: float, x: Scale) -> List[Html]:
    source = bool(row.get("source"))
    name = str(row.get("name"))
    parts = [box(0, y - _STEP / 2, _WIDTH, _STEP, FAINT)] if source else []
    label = name if len(name) <= 38 else "\u2026" + name[-37:]
    parts.append(text(_LEFT - 8, y + 4, label, "end", "tick strong" if source else "tick"))
    if row.get("discontinuous"):
        flips = number(row, "flip_rate")
        words = "discontinuous, no flips" if not flips else f"discontinuous, {flips:.3%} flip"
        return parts + [
            text(_LEFT + 4, y + 4, words if flips is not None else "discontinuous", class_="tick", fill=QUIET)
        ]
    entire, single = _error(row, "entire"), _error(row, "single")
    tip = (
        f"{name} ({row.get('type')}, {row.get('dtype')}): entire {shown(entire, '.2e')}, single {shown(single, '.2e')}"
    )
    if entire is not None and single is not None:
        parts.append(line(x.at(single), y, x.at(entire), y, RULE, 1.5))
    if entire is not None:
        parts.append(mark("dot", x.at(entire), y, BLUE, 4, tip))
    if single is not None:
        parts.append(mark("diamond", x.at(single), y, VERMILION, 3.6, tip))
    if source:
        parts.append(text(_WIDTH - 6, y + 4, "\u25c0 source", "end", "tick strong"))
    return parts


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
                element("span", row.get("advice") or "\u2014"),
            ]
        )
    return table(
        f"Sources of error, n = {len(ranked)} layers, largest share first. Relative Euclidean distances.", columns, body
    )
