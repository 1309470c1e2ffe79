# SPDX-License-Identifier: Apache-2.0
"""The page of one subject: before and after in one place, then every other picture with a legend."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import quote

from om_runner.qc.colours import GREYS, SIGNS, colour_of
from om_runner.qc.pictures import DIFFERENCE_END, OUTLINES
from om_runner.qc.record import SUBJECT_PAGE, Record
from om_runner.qc.slices import CONVENTION
from vxm_convert.webpage.charts import colour_bar
from vxm_convert.webpage.document import page
from vxm_convert.webpage.templates import NOT_AVAILABLE, Html, badge_word

TEMPLATES = Path(__file__).with_name("templates")
STATIC = Path(__file__).with_name("static")
QC_STYLE = STATIC / "qc.css"
COHORT_SCRIPTS = (STATIC / "ratings.js", STATIC / "cohort.js")
SUBJECT_SCRIPTS = (STATIC / "ratings.js", STATIC / "stage.js", STATIC / "subject.js")
#: name of the picture, key, description
_STAGE = (
    ("fixed", "1", "Fixed image."),
    ("before", "2", "Scan before the network's warp: placed by header and affine alone."),
    ("after", "3", "Scan after the warp."),
)
#: flickering pictures: label, key, names
_FLICKS = (("flicker before / after", "f", ("before", "after")), ("flicker fixed / after", "g", ("fixed", "after")))
#: rating, key, as in ratings.js
_RATINGS = (("accept", "a"), ("doubt", "d"), ("reject", "r"))
_END = 100 * DIFFERENCE_END
#: positions from −1 to 1 on the bars, and their labels
_DIFFERENCE_TICKS = (
    (-1.0, f"\u2212{_END:g}"),
    (-0.5, f"\u2212{_END / 2:g}"),
    (0.0, "0"),
    (0.5, f"{_END / 2:g}"),
    (1.0, f"{_END:g}"),
)
_JACOBIAN_TICKS = ((-1.0, "\u00bc"), (-0.5, "\u00bd"), (0.0, "1"), (0.5, "2"), (1.0, "4"))


def subject_page(record: Record, before: Optional[Record], after: Optional[Record], cohort: str = "") -> str:
    """The page; `before` and `after` are its neighbours on the cohort's page, `cohort` is the key of its ratings."""
    present = record.pictures
    differences = [name for name in ("before", "after") if f"difference_{name}" in present]
    context: Dict[str, Any] = {
        "record": record,
        "cohort": cohort,
        "ratings": _RATINGS,
        "neighbours": _neighbours(before, after),
        "figures": _figures(record),
        "stage": [entry for entry in _STAGE if entry[0] in present],
        "flicks": [entry for entry in _FLICKS if all(name in present for name in entry[2])],
        "convention": CONVENTION,
        "colours": {name: colour_of(GREYS, GREYS.extra(name)) for name in ("fixed", "moved")},
        "folded_colour": colour_of(SIGNS, SIGNS.bad),
        "levels": ", ".join(f"{100 * level:g} %" for level in OUTLINES),
        "differences": differences,
        "bars": _bars(bool(differences), "jacobian" in present),
        "spacing": shown(record.figures.get("grid_mm"), "g"),
        "folded": int(record.figures.get("folded") or 0),
        "jacobian_range": [shown(record.figures.get(f"jacobian_{end}")) for end in ("low", "high")],
    }
    title = f"{record.subject}: registration pictures"
    if record.simulated is not None:
        title = f"{badge_word(record.simulated)}: {title}"
    files: Dict[str, Any] = {"styles": [QC_STYLE], "scripts": SUBJECT_SCRIPTS, "picture_files": True}
    return page(TEMPLATES / "subject.html", title, record.simulated, **files, **context)


def link_to(subject: str, prefix: str = "") -> str:
    """Address of a subject's page, for any characters in its name."""
    return f"{prefix}{quote(subject)}/{SUBJECT_PAGE}"


def shown(value: Optional[float], form: str = ".3f") -> str:
    """A figure as text."""
    return NOT_AVAILABLE if value is None else f"{value:{form}}".replace("-", "\u2212")


def _neighbours(before: Optional[Record], after: Optional[Record]) -> List[Tuple[str, str, str]]:
    """Address, label and key of the links at the top."""
    links = [(f"../{SUBJECT_PAGE}", "\u2191 all subjects", "u")]
    if before is not None:
        links.append((link_to(before.subject, "../"), f"\u2190 {before.subject}", "p"))
    if after is not None:
        links.append((link_to(after.subject, "../"), f"{after.subject} \u2192", "n"))
    return links


def _figures(record: Record) -> List[Tuple[str, str]]:
    f = record.figures.get
    labels, folds, longest = f("n_labels"), f("folding_fraction"), f("flow_max_voxel")
    counted = f" ({record.label_set}, {int(labels)} labels)" if labels is not None else ""
    return [
        (f"Dice{counted}", f"{shown(f('dice_before'))} \u2192 {shown(f('dice_after'))}"),
        ("similarity (NCC) inside the fixed image", f"{shown(f('ncc_before'))} \u2192 {shown(f('ncc_after'))}"),
        ("folded voxels of the flow", NOT_AVAILABLE if folds is None else f"{100 * folds:.3f} %"),
        ("longest displacement", NOT_AVAILABLE if longest is None else f"{shown(longest, '.2f')} voxel"),
        ("grid of the pictures", record.grid),
    ]


def _bars(difference: bool, jacobian: bool) -> Dict[str, Html]:
    bars = {}
    if difference:
        bars["difference"] = _bar("scan \u2212 fixed, % of the fixed image's white", _DIFFERENCE_TICKS)
    if jacobian:
        bars["jacobian"] = _bar("volume ratio (Jacobian determinant), logarithmic", _JACOBIAN_TICKS)
    return bars


@lru_cache(maxsize=None)
def _bar(title: str, ticks: Tuple[Tuple[float, str], ...]) -> Html:
    """The colour bar of a picture in `SIGNS`, the same on every page."""
    colours = [colour_of(SIGNS, index) for index in range(SIGNS.bad)]
    places = [((place + 1) / 2, words) for place, words in ticks]
    words = f"Colour bar: {title}, from {ticks[0][1]} to {ticks[-1][1]}"
    return colour_bar(title, colours, places, words)
