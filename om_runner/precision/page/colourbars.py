# SPDX-License-Identifier: Apache-2.0
"""The two colour bars of the pictures: difference of the moved images and length of the flow error, both
logarithmic.
"""

from __future__ import annotations

from typing import List

from vxm_convert.webpage.elements import Html, element, figure, join
from vxm_convert.webpage.palettes import BAD_COLOUR, DECADES, MAGNITUDE, SIGNED, STEPS
from vxm_convert.webpage.style import INK
from vxm_convert.webpage.svg import Scale, box, drawing, line, mark, text

_WIDTH, _LEFT, _RIGHT, _TOP, _THICK = 460, 16, 444, 24, 16


def colour_bars(difference_end: float, flow_end: float) -> Html:
    """Both bars side by side; the ends are the largest values in any picture of the page."""
    bars = [_signed_bar(difference_end), _magnitude_bar(flow_end)]
    key = element(
        "p",
        element("svg", box(0, 0, 14, 14, _rgb(BAD_COLOUR)), viewBox="0 0 14 14", class_="swatch", aria_hidden="true"),
        " NaN or Inf. White: below a thousandth of the end of its scale.",
        class_="note",
    )
    return join([element("div", *bars, class_="charts bars"), key])


def _signed_bar(end: float) -> Html:
    title = "difference of the moved images, offline \u2212 TensorFlow, intensity 0..1"
    if end <= 0:
        return _none(title)
    half = (_RIGHT - _LEFT) / 2
    middle = _LEFT + half
    cells = [box(_LEFT + i * half / STEPS, _TOP, half / STEPS + 0.4, _THICK, _rgb(SIGNED[i])) for i in range(STEPS)]
    cells += [
        box(middle + i * half / STEPS, _TOP, half / STEPS + 0.4, _THICK, _rgb(SIGNED[STEPS + 1 + i]))
        for i in range(STEPS)
    ]
    sides = [
        (Scale(end / 10**DECADES, end, middle, _RIGHT, True), "+"),
        (Scale(end / 10**DECADES, end, middle, _LEFT, True), "\u2212"),
    ]
    marks = [m for scale, sign in sides for m in _marks(scale, sign)]
    return figure(
        drawing(
            _WIDTH,
            62,
            f"Colour bar: {title}, logarithmic, from \u2212{end:.2g} to {end:.2g}",
            text(_LEFT, 14, title),
            *cells,
            *marks,
        ),
        _words(end),
        classes="bar",
    )


def _magnitude_bar(end: float) -> Html:
    title = "flow error (end-point error), voxel"
    if end <= 0:
        return _none(title)
    step = (_RIGHT - _LEFT) / STEPS
    cells = [box(_LEFT + i * step, _TOP, step + 0.4, _THICK, _rgb(MAGNITUDE[1 + i])) for i in range(STEPS)]
    marks = _marks(Scale(end / 10**DECADES, end, _LEFT, _RIGHT, True), "")
    return figure(
        drawing(
            _WIDTH, 62, f"Colour bar: {title}, logarithmic, up to {end:.2g}", text(_LEFT, 14, title), *cells, *marks
        ),
        _words(end),
        classes="bar",
    )


def _marks(scale: Scale, sign: str) -> List[Html]:
    parts = []
    for value, name in scale.ticks():
        at = scale.at(value)
        parts += [
            line(at, _TOP + _THICK, at, _TOP + _THICK + 4),
            text(at, _TOP + _THICK + 17, sign + name, "middle", "tick"),
        ]
    return parts


def _words(end: float) -> str:
    return f"Logarithmic; it ends at {end:.2e}, the largest value in any picture here."


def _none(title: str) -> Html:
    return figure(
        drawing(
            _WIDTH,
            44,
            f"{title}: zero in every picture",
            text(_LEFT, 14, title),
            mark("ring", _LEFT + 6, 32, INK),
            text(_LEFT + 18, 36, "zero in every picture shown"),
        ),
        "No difference to colour.",
        classes="bar",
    )


def _rgb(colour: object) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)
