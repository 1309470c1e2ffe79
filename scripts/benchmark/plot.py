# SPDX-License-Identifier: Apache-2.0
"""The benchmark's plot: CPU-seconds of one registration and of one training step in every engine, as bars. An SVG
file.
"""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, Sequence

from vxm_convert.webpage.charts import Chart, chart, rows
from vxm_convert.webpage.colours import BLUE, FAINT, QUIET, VERMILION

_WIDTH, _LEFT, _RIGHT = 960, 450, 150
_ROW, _HEAD, _FOOT = 24, 44, 34
_SMALL, _LARGE = 12, 15
_NOTE = (
    "Simulated toolchain: seconds of this CPU, not of an Ascend device. In brackets: times less than the existing "
    "recipe's graph."
)


class Bar(NamedTuple):
    """One bar: its name, CPU-seconds, and how many times less than the first that is."""

    name: str
    seconds: float
    ratio: float


def draw(results: Mapping[str, Any]) -> str:
    """SVG text with one group of bars for `inference` and one for `training`, whichever `results` has."""
    groups = [
        (title, bars_of(results[key]["rows"]))
        for key, title in (
            ("inference", "One registration, CPU-seconds"),
            ("training", "One training step, CPU-seconds"),
        )
        if key in results
    ]
    height = sum(_HEAD + _ROW * len(bars) for _, bars in groups) + _FOOT
    with chart(_WIDTH, height) as drawn:
        drawn.figure.set_facecolor("white")
        top = 0
        for title, bars in groups:
            _group(drawn, title, bars, top)
            top += _HEAD + _ROW * len(bars)
        drawn.words(12, height - 12, _NOTE, size=_SMALL, colour=QUIET)
        return drawn.file("; ".join(title for title, _ in groups))


def bars_of(results: Sequence[Mapping[str, Any]]) -> List[Bar]:
    """Of the rows that were measured; the first is what the others are compared with."""
    measured = [row for row in results if "failure" not in row]
    names = [row["title"] + (f", {row['tensorflow']}" if "tensorflow" in row else "") for row in measured]
    seconds = [row["cpu_seconds"]["median"] for row in measured]
    return [Bar(name, value, seconds[0] / value) for name, value in zip(names, seconds)]


def _group(drawn: Chart, title: str, bars: Sequence[Bar], top: int) -> None:
    drawn.words(12, top + 28, title, size=_LARGE, bold=True)
    if not bars:
        return
    longest = max(bar.seconds for bar in bars)
    axes = drawn.axes(_LEFT, top + _HEAD, _WIDTH - _RIGHT, top + _HEAD + _ROW * len(bars))
    axes.set_xlim(0, longest)
    axes.set_xticks([])
    rows(axes, [bar.name for bar in bars])
    axes.tick_params(labelsize=_SMALL, pad=10)
    places = list(range(len(bars)))
    axes.barh(places, [longest] * len(bars), height=0.7, color=FAINT)
    axes.barh(places, [bar.seconds for bar in bars], height=0.7, color=[VERMILION] + [BLUE] * (len(bars) - 1))
    for place, bar in enumerate(bars):
        words = f"{bar.seconds:.2f} s ({bar.ratio:.2f} \u00d7)"
        drawn.words(_WIDTH - _RIGHT + 8, top + _HEAD + _ROW * (place + 0.5) + 4, words, size=_SMALL)
