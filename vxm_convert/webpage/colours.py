# SPDX-License-Identifier: Apache-2.0
"""The colours of pages and charts: Okabe and Ito's palette (Color Universal Design, 2008), darker for text."""

from __future__ import annotations

from typing import Sequence

INK = "#1a1f2b"
QUIET = "#4b5468"
RULE = "#cfd5df"
FAINT = "#eef1f5"
BLUE = "#0072b2"
VERMILION = "#c44a00"
GREEN = "#00704f"
ORANGE = "#e69f00"
SKY = "#56b4e9"
BAD = "#b01020"
PAPER = "#ffffff"

#: names of the style sheets' custom properties
_PROPERTIES = {
    "ink": INK,
    "quiet": QUIET,
    "rule": RULE,
    "faint": FAINT,
    "paper": PAPER,
    "blue": BLUE,
    "link": BLUE,
    "green": GREEN,
    "bad": BAD,
}


def css_properties() -> str:
    """The style rule that gives these colours to the style sheets."""
    return ":root { " + " ".join(f"--{name}: {colour};" for name, colour in _PROPERTIES.items()) + " }\n"


def css_colour(colour: Sequence[int]) -> str:
    """Red, green and blue of 0..255 as style sheets write them."""
    return "#" + "".join(f"{int(part):02x}" for part in colour)
