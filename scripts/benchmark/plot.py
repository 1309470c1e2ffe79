# SPDX-License-Identifier: Apache-2.0
"""The benchmark's plot: CPU-seconds of one registration and of one training step in every engine, as bars. An SVG
file.
"""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, Sequence

from vxm_convert.webpage.elements import Html, element
from vxm_convert.webpage.style import BLUE, FAINT, INK, QUIET, VERMILION
from vxm_convert.webpage.svg import box, text

_WIDTH, _LEFT, _RIGHT = 960.0, 450.0, 150.0
_ROW, _HEAD = 24.0, 44.0
_STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:13px}.title{font-size:15px;font-weight:600}.small{font-size:12px}"
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
    parts: List[Html] = []
    top = 0.0
    for title, bars in groups:
        parts += _group(title, bars, top)
        top += _HEAD + _ROW * len(bars)
    height = top + 34
    note = (
        "Simulated toolchain: seconds of this CPU, not of an Ascend device. In brackets: times less than the "
        "existing recipe's graph."
    )
    parts.append(text(12, height - 12, note, class_="small", fill=QUIET))
    drawn = element(
        "svg",
        element("style", Html(_STYLE)),
        box(0, 0, _WIDTH, height, "#ffffff"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH:g} {height:g}",
        width=f"{_WIDTH:g}",
        role="img",
    )
    return str(drawn) + "\n"


def bars_of(rows: Sequence[Mapping[str, Any]]) -> List[Bar]:
    """Of the rows that were measured; the first is what the others are compared with."""
    measured = [row for row in rows if "failure" not in row]
    names = [row["title"] + (f", {row['tensorflow']}" if "tensorflow" in row else "") for row in measured]
    seconds = [row["cpu_seconds"]["median"] for row in measured]
    return [Bar(name, value, seconds[0] / value) for name, value in zip(names, seconds)]


def _group(title: str, bars: Sequence[Bar], top: float) -> List[Html]:
    longest = max((bar.seconds for bar in bars), default=1.0)
    parts = [text(12, top + 28, title, class_="title")]
    for index, bar in enumerate(bars):
        y = top + _HEAD + _ROW * index
        width = (_WIDTH - _LEFT - _RIGHT) * bar.seconds / longest
        parts += [
            text(_LEFT - 10, y + 14, bar.name, "end", "small", INK),
            box(_LEFT, y, _WIDTH - _LEFT - _RIGHT, _ROW - 7, FAINT),
            box(_LEFT, y, width, _ROW - 7, VERMILION if index == 0 else BLUE),
            text(_WIDTH - _RIGHT + 8, y + 14, f"{bar.seconds:.2f} s ({bar.ratio:.2f} ×)", class_="small", fill=INK),
        ]
    return parts
