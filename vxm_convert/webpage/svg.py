# SPDX-License-Identifier: Apache-2.0
"""Drawings inside a page: scales with readable ticks, a plotting frame, and marks that differ in shape. No library, no
style of its own.

Colours are attributes, fonts and line styles come from the page's style sheet (classes ``axis``, ``grid``, ``label``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Iterable, List, Sequence, Tuple

from vxm_convert.webpage.elements import Html, element, join
from vxm_convert.webpage.style import INK, QUIET, RULE

_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
#: a logarithmic axis shorter than this many decades also names 2 and 5
_FEW_DECADES = 2.2
_MOST_TICKS = 7
#: drawings up to this width are still readable when they shrink to a phone
_PHONE = 500


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` onto positions from `start` to `stop`; values beyond are drawn at the edge."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Position of a value."""
        low, high = self._warp(self.low), self._warp(self.high)
        share = (self._warp(min(max(value, self.low), self.high)) - low) / ((high - low) or 1.0)
        return self.start + share * (self.stop - self.start)

    def _warp(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self) -> List[Tuple[float, str]]:
        """Round values inside the range and their labels."""
        return _log_ticks(self.low, self.high) if self.logarithmic else _linear_ticks(self.low, self.high)


def power(exponent: int) -> str:
    """10 to that power, as text."""
    return {0: "1", 1: "10"}.get(exponent) or "10" + str(exponent).translate(_SUPERSCRIPT)


def _log_ticks(low: float, high: float) -> List[Tuple[float, str]]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    slack = 1.0 + 1e-9
    if math.log10(high / low) < _FEW_DECADES:
        values = [factor * 10.0**exponent for exponent in range(first, last + 1) for factor in (1, 2, 5)]
        return [
            (v, f"{v:g}".replace("e-0", "e-").replace("-", "\u2212"))
            for v in values
            if low / slack <= v <= high * slack
        ]
    step = max(1, math.ceil((last - first) / _MOST_TICKS))
    exponents = [e for e in range(first, last + 1) if e % step == 0 and low / slack <= 10.0**e <= high * slack]
    return [(10.0**exponent, power(exponent)) for exponent in exponents]


def _linear_ticks(low: float, high: float) -> List[Tuple[float, str]]:
    span = (high - low) or 1.0
    raw = span / 5
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(n * step, f"{n * step:.{decimals}f}".replace("-", "\u2212")) for n in range(first, last + 1)]


def drawing(width: float, height: float, description: str, *parts: Any) -> Html:
    """The drawing; `description` is what a reader who cannot see it is told.

    One wider than a phone can show with readable words scrolls in a box of its own there.
    """
    wide = width > _PHONE
    classes = "drawing wide" if wide else "drawing"
    drawn = element(
        "svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=description, class_=classes
    )
    return (
        element("div", drawn, class_="scroll", tabindex="0", role="region", aria_label="drawing, scrolls sideways")
        if wide
        else drawn
    )


def text(
    x: float, y: float, content: Any, anchor: str = "start", class_: str = "label", fill: str = INK, turn: int = 0
) -> Html:
    """Words at a point; `turn` in degrees."""
    transform = f"rotate({turn} {x:.1f} {y:.1f})" if turn else None
    return element("text", content, x=_n(x), y=_n(y), text_anchor=anchor, class_=class_, fill=fill, transform=transform)


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = INK, width: float = 1.0, dash: str = "") -> Html:
    """A straight line; `dash` as of stroke-dasharray."""
    return element(
        "line",
        x1=_n(x1),
        y1=_n(y1),
        x2=_n(x2),
        y2=_n(y2),
        stroke=stroke,
        stroke_width=width,
        stroke_dasharray=dash or None,
    )


def box(x: float, y: float, width: float, height: float, fill: str, opacity: float = 1.0) -> Html:
    """A filled rectangle."""
    return element(
        "rect",
        x=_n(x),
        y=_n(y),
        width=_n(max(width, 0.0)),
        height=_n(max(height, 0.0)),
        fill=fill,
        fill_opacity=None if opacity >= 1 else opacity,
    )


def path(
    points: Iterable[Tuple[float, float]],
    stroke: str,
    width: float = 1.5,
    fill: str = "none",
    dash: str = "",
    opacity: float = 1.0,
) -> Html:
    """A line through points, or the area inside them."""
    d = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    return element(
        "path",
        d=d,
        stroke=stroke,
        stroke_width=width,
        fill=fill,
        stroke_dasharray=dash or None,
        stroke_linejoin="round",
        fill_opacity=None if opacity >= 1 else opacity,
    )


def mark(kind: str, x: float, y: float, colour: str, size: float = 4.0, tip: Any = None) -> Html:
    """A mark: ``dot``, ``ring``, ``diamond``, ``cross`` or ``triangle``; `tip` is shown when a pointer rests on it."""
    title = Html("") if tip is None else element("title", tip)
    if kind in ("dot", "ring"):
        fill = colour if kind == "dot" else "#fff"
        return element("circle", title, cx=_n(x), cy=_n(y), r=_n(size), fill=fill, stroke=colour, stroke_width=1.6)
    if kind == "cross":
        d = (
            f"M{_n(x - size)} {_n(y - size)}L{_n(x + size)} {_n(y + size)}M{_n(x - size)} "
            f"{_n(y + size)}L{_n(x + size)} {_n(y - size)}"
        )
        return element("path", title, d=d, stroke=colour, stroke_width=2.2, fill="none")
    corners = {
        "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        "triangle": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
    }[kind]
    d = "M" + "L".join(f"{_n(x + size * dx)} {_n(y + size * dy)}" for dx, dy in corners) + "Z"
    return element("path", title, d=d, stroke=colour, stroke_width=1.6, fill="#fff" if kind == "diamond" else colour)


def steps(edges: Sequence[float], heights: Sequence[float], x: Scale, y: Scale) -> List[Tuple[float, float]]:
    """The outline of a histogram, as points; heights have one entry per pair of neighbouring edges."""
    points = []
    for left, right, height in zip(edges[:-1], edges[1:], heights):
        level = y.at(height if height > 0 or not y.logarithmic else y.low)
        points += [(x.at(left), level), (x.at(right), level)]
    return points


def frame(x: Scale, y: Scale, x_title: str, y_title: str) -> Html:
    """Axes, grid, ticks and titles around a plot: `x` runs left to right, `y` bottom to top (`y.start` is the
    bottom).
    """
    parts: List[Html] = []
    for value, name in x.ticks():
        at = x.at(value)
        parts += [line(at, y.start, at, y.stop, RULE, 0.7), text(at, y.start + 16, name, "middle", "tick", QUIET)]
    for value, name in y.ticks():
        at = y.at(value)
        parts += [line(x.start, at, x.stop, at, RULE, 0.7), text(x.start - 6, at + 4, name, "end", "tick", QUIET)]
    parts.append(line(x.start, y.start, x.stop, y.start, INK, 1.2))
    parts.append(text((x.start + x.stop) / 2, y.start + 35, x_title, "middle"))
    parts.append(text(x.start, y.stop - 9, y_title, "start"))
    return join(parts)


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
