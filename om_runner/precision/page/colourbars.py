# SPDX-License-Identifier: Apache-2.0
"""The two colour bars of the pictures: difference of the moved images and length of the flow error, both
logarithmic.
"""

from __future__ import annotations

import math
from typing import List, Tuple

from vxm_convert.webpage.charts import colour_bar, log_ticks
from vxm_convert.webpage.colours import css_colour
from vxm_convert.webpage.elements import Html, element, figure, join, prose
from vxm_convert.webpage.palettes import BAD_COLOUR, DECADES, MAGNITUDE, SIGNED, STEPS

_DIFFERENCE = "difference of the moved images, offline \u2212 TensorFlow, intensity 0..1"
_FLOW_ERROR = "flow error (end-point error), voxel"


def colour_bars(difference_end: float, flow_end: float) -> Html:
    """Both bars side by side; the ends are the largest values in any picture of the page."""
    bars = [_signed_bar(difference_end), _magnitude_bar(flow_end)]
    swatch = Html(f'<rect width="14" height="14" fill="{css_colour(BAD_COLOUR)}"></rect>')
    key = element(
        "p",
        element("svg", swatch, viewBox="0 0 14 14", class_="swatch", aria_hidden="true"),
        " NaN or Inf. White: below a thousandth of the end of its scale.",
        class_="note",
    )
    return join([element("div", *bars, class_="charts bars"), key])


def _signed_bar(end: float) -> Html:
    if end <= 0:
        return _none(_DIFFERENCE)
    colours = [css_colour(colour) for colour in (*SIGNED[:STEPS], *SIGNED[STEPS + 1 : -1])]
    ticks = [(0.5 - place / 2, "\u2212" + name) for place, name in _places(end)]
    ticks += [(0.5 + place / 2, "+" + name) for place, name in _places(end)]
    words = f"Colour bar: {_DIFFERENCE}, logarithmic, from \u2212{end:.2g} to {end:.2g}"
    return figure(colour_bar(_DIFFERENCE, colours, ticks, words), _words(end), classes="bar")


def _magnitude_bar(end: float) -> Html:
    if end <= 0:
        return _none(_FLOW_ERROR)
    colours = [css_colour(colour) for colour in MAGNITUDE[1:-1]]
    words = f"Colour bar: {_FLOW_ERROR}, logarithmic, up to {end:.2g}"
    return figure(colour_bar(_FLOW_ERROR, colours, _places(end), words), _words(end), classes="bar")


def _places(end: float) -> List[Tuple[float, str]]:
    """Ticks of one side of a scale: share of its length from none to the end, and name."""
    low = end / 10**DECADES
    return [(math.log10(value / low) / DECADES, name) for value, name in log_ticks(low, end)]


def _words(end: float) -> str:
    return f"Logarithmic; it ends at {end:.2e}, the largest value in any picture here."


def _none(title: str) -> Html:
    return figure(prose(title, ": zero in every picture shown"), "No difference to colour.", classes="bar")
