# SPDX-License-Identifier: Apache-2.0
"""The colours of pages and charts in their light and dark schemes: Okabe and Ito's palette (Color Universal Design,
2008), darker on white and lighter on black where the contrast asks for it.

Code and charts use the light ones; a page turns them into custom properties, which follow the reader's scheme. Paper is
always light.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Sequence

INK = "#1a1f2b"
QUIET = "#4b5468"
RULE = "#cfd5df"
FAINT = "#eef1f5"
PAPER = "#ffffff"
BLUE = "#0072b2"
VERMILION = "#c44a00"
GREEN = "#00704f"
ORANGE = "#b87d00"
SKY = "#2e8fc6"
BAD = "#b01020"


class Scheme(NamedTuple):
    """One colour in both schemes."""

    light: str
    dark: str


#: names of the style sheets' custom properties
SCHEMES: Dict[str, Scheme] = {
    "ink": Scheme(INK, "#e6e9ef"),
    "quiet": Scheme(QUIET, "#a9b2c3"),
    "rule": Scheme(RULE, "#3a4252"),
    "faint": Scheme(FAINT, "#1f2530"),
    "paper": Scheme(PAPER, "#14171d"),
    "blue": Scheme(BLUE, "#6cbcf2"),
    "vermilion": Scheme(VERMILION, "#ff9a5c"),
    "green": Scheme(GREEN, "#63d2ad"),
    "orange": Scheme(ORANGE, "#f0b030"),
    "sky": Scheme(SKY, "#3f8fc4"),
    "bad": Scheme(BAD, "#ff9a8a"),
}
#: a light colour → the property that stands for it in the charts of a page
PROPERTIES = {scheme.light: f"var(--{name})" for name, scheme in SCHEMES.items()}


def css_properties() -> str:
    """The style rules that give these colours to the style sheets, by the reader's scheme; print keeps the light one."""
    light, dark = (
        " ".join(f"--{name}: {scheme[at]};" for name, scheme in SCHEMES.items()) for at in range(len(Scheme._fields))
    )
    return (
        f":root {{ color-scheme: light; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark; {dark} }} }}\n"
    )


def css_colour(colour: Sequence[int]) -> str:
    """Red, green and blue of 0..255 as style sheets write them."""
    return "#" + "".join(f"{int(part):02x}" for part in colour)
