# SPDX-License-Identifier: Apache-2.0
"""The two colour bars of the pictures: difference of the moved images and length of the flow error, both
logarithmic.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple, Optional, Tuple

from vxm_convert.webpage.charts import colour_bar, log_ticks
from vxm_convert.webpage.colours import css_colour
from vxm_convert.webpage.palettes import DECADES, MAGNITUDE, SIGNED, STEPS
from vxm_convert.webpage.templates import Html

_DIFFERENCE = "difference of the moved images, offline \u2212 TensorFlow, intensity 0..1"
#: the names of two ticks that are closer to zero than this share of their side would run into each other
_NEAREST = 0.12
_FLOW_ERROR = "flow error (end-point error), voxel"


class Bar(NamedTuple):
    """A colour bar, without a chart if every picture is zero. `end`: the largest value in any picture."""

    title: str
    end: float
    chart: Optional[Html]


def colour_bars(difference_end: float, flow_end: float) -> List[Bar]:
    """Both bars; the ends are the largest values in any picture of the page."""
    return [
        Bar(_DIFFERENCE, difference_end, _signed_bar(difference_end) if difference_end > 0 else None),
        Bar(_FLOW_ERROR, flow_end, _magnitude_bar(flow_end) if flow_end > 0 else None),
    ]


def _signed_bar(end: float) -> Html:
    colours = [css_colour(colour) for colour in (*SIGNED[:STEPS], *SIGNED[STEPS + 1 : -1])]
    sides = [(place, name) for place, name in _places(end) if place > _NEAREST]
    ticks = [(0.5 - place / 2, "\u2212" + name) for place, name in sides]
    ticks += [(0.5 + place / 2, "+" + name) for place, name in sides]
    words = f"Colour bar: {_DIFFERENCE}, logarithmic, from \u2212{end:.2g} to {end:.2g}"
    return colour_bar(_DIFFERENCE, colours, ticks, words)


def _magnitude_bar(end: float) -> Html:
    colours = [css_colour(colour) for colour in MAGNITUDE[1:-1]]
    return colour_bar(_FLOW_ERROR, colours, _places(end), f"Colour bar: {_FLOW_ERROR}, logarithmic, up to {end:.2g}")


def _places(end: float) -> List[Tuple[float, str]]:
    """Ticks of one side of a scale: share of its length from zero to the end, and name."""
    low = end / 10**DECADES
    return [(math.log10(value / low) / DECADES, name) for value, name in log_ticks(low, end)]
