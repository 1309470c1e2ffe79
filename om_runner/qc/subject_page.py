# SPDX-License-Identifier: Apache-2.0
"""The page of one subject: before and after on a stage, then every other picture with what its colours mean."""

from __future__ import annotations

from functools import lru_cache
from typing import List, Optional, Tuple
from urllib.parse import quote

from om_runner.qc.canvas import GREYS, SIGNS, Palette, colour_of
from om_runner.qc.pictures import DIFFERENCE_END, OUTLINES
from om_runner.qc.record import SUBJECT_PAGE, Record
from om_runner.qc.script import STAGE_SCRIPT
from om_runner.qc.slices import CONVENTION
from om_runner.qc.style import QC_STYLE
from vxm_convert.webpage.charts import colour_bar
from vxm_convert.webpage.document import page
from vxm_convert.webpage.elements import Html, badge_word, definitions, element, escape, figure, join, prose, section
from vxm_convert.webpage.tables import NOT_AVAILABLE

#: name of the picture, word on its button, key
_STAGE = (("fixed", "fixed", "1"), ("before", "before", "2"), ("after", "after", "3"))


def subject_page(record: Record, before: Optional[Record], after: Optional[Record]) -> str:
    """The page; `before` and `after` are its neighbours in the order of the cohort's page."""
    parts: List[Html] = [
        element("h1", record.subject),
        _neighbours(before, after),
        _warnings(record),
        _figures(record),
        _stage(record),
        _overview(record),
        _checker(record),
        _contours(record),
        _differences(record),
        _warp(record),
    ]
    title = f"{record.subject}: registration pictures"
    if record.simulated is not None:
        title = f"{badge_word(record.simulated)}: {title}"
    return page(
        title, record.simulated, [part for part in parts if part], STAGE_SCRIPT, style=QC_STYLE, picture_files=True
    )


def link_to(subject: str, prefix: str = "") -> str:
    """Address of a subject's page, whatever characters its name has."""
    return f"{prefix}{quote(subject)}/{SUBJECT_PAGE}"


def shown(value: Optional[float], form: str = ".3f") -> str:
    """A figure as text."""
    return NOT_AVAILABLE if value is None else f"{value:{form}}".replace("-", "\u2212")


def _neighbours(before: Optional[Record], after: Optional[Record]) -> Html:
    links = [element("a", "\u2191 all subjects ", element("kbd", "u"), href=f"../{SUBJECT_PAGE}", data_key="u")]
    if before is not None:
        links.append(
            element(
                "a", f"\u2190 {before.subject} ", element("kbd", "p"), href=link_to(before.subject, "../"), data_key="p"
            )
        )
    if after is not None:
        links.append(
            element(
                "a", f"{after.subject} \u2192 ", element("kbd", "n"), href=link_to(after.subject, "../"), data_key="n"
            )
        )
    return element("nav", *links, class_="neighbours", aria_label="neighbouring subjects")


def _warnings(record: Record) -> Html:
    if not record.warnings and not record.notes:
        return prose("No warning.")
    warned = (
        element("ul", *(element("li", words) for words in record.warnings), class_="warnings")
        if record.warnings
        else ""
    )
    return join([warned] + [prose(words, note=True) for words in record.notes])


def _figures(record: Record) -> Html:
    f = record.figures.get
    labels = f("n_labels")
    counted = f" ({record.label_set}, {int(labels)} labels)" if labels is not None else ""
    folds = f("folding_fraction")
    rows = [
        (f"Dice{counted}", f"{shown(f('dice_before'))} \u2192 {shown(f('dice_after'))}"),
        ("similarity (NCC) inside the fixed image", f"{shown(f('ncc_before'))} \u2192 {shown(f('ncc_after'))}"),
        ("folded voxels of the flow", NOT_AVAILABLE if folds is None else f"{100 * folds:.3f} %"),
        (
            "longest displacement",
            f"{shown(f('flow_max_voxel'), '.2f')} voxel" if f("flow_max_voxel") is not None else NOT_AVAILABLE,
        ),
        ("grid of the pictures", record.grid),
    ]
    return definitions(rows)


def _stage(record: Record) -> Html:
    present = [(name, word, key) for name, word, key in _STAGE if name in record.pictures]
    captions = {
        "fixed": "Fixed image.",
        "before": "Scan before the network's warp: placed by header and affine alone.",
        "after": "Scan after the warp.",
    }
    # One box that scrolls around all of them, so that they stay in place when they change.
    figures = [
        element(
            "figure",
            _image(record, name, captions[name]),
            element("figcaption", captions[name]),
            class_="slices",
            data_name=name,
        )
        for name, _, _ in present
    ]
    buttons = [_button(word, key, data_show=name) for name, word, key in present]
    names = [name for name, _, _ in present]
    if "before" in names and "after" in names:
        buttons.append(_button("flick before / after", "f", data_flick="before after"))
    if "after" in names:
        buttons.append(_button("flick fixed / after", "g", data_flick="fixed after"))
    letters = (
        ""
        if record.letters
        else " The header does not say which side is which, so no letters are shown and sides may be swapped."
    )
    words = (
        f"The same slices in each picture; {CONVENTION}. Planes run along the voxel axes nearest to the "
        f"body's.{letters}"
    )
    bar = element("div", *buttons, class_="controls scripted", role="group", aria_label="pictures")
    stage = element("div", *figures, class_="stage")
    scrolling = element(
        "div", stage, class_="scroll", tabindex="0", role="region", aria_label="slices, scroll sideways"
    )
    return section("Before and after", prose(words, note=True), bar, scrolling, anchor="stage")


def _button(word: str, key: str, **data: str) -> Html:
    return element(
        "button", word, " ", element("kbd", key), type="button", class_="do", aria_pressed="false", data_key=key, **data
    )


def _overview(record: Record) -> Html:
    if "overview" not in record.pictures:
        return Html("")
    heads = element("div", *(element("span", word) for word in ("moving", "fixed", "moved")), class_="three")
    image = join([heads, _image(record, "overview", "middle slices: moving, fixed and moved side by side")])
    caption = "Middle slices: axial, coronal, sagittal. Moving: by header and affine alone; moved: after the warp."
    return section("Side by side", figure(image, caption, "overview"))


def _checker(record: Record) -> Html:
    words = (
        "Squares of the fixed image and of the moved scan in turn, upper left: fixed. Borders that run on from "
        "square to square agree."
    )
    return _single(record, "checker", "Checkerboard", words)


def _contours(record: Record) -> Html:
    fixed, moved = (_key(GREYS, GREYS.extra(name)) for name in ("fixed", "moved"))
    if not record.by_labels:
        levels = ", ".join(f"{100 * level:g} %" for level in OUTLINES)
        words = join(
            [
                fixed,
                f"outlines of the fixed image (no segmentation: where it passes {levels} of its white) on the moved "
                "scan.",
            ]
        )
    elif not record.moved_labels:
        words = join([fixed, "borders of the fixed labels on the moved scan. The scan has no labels."])
    else:
        words = join(
            [fixed, "borders of the fixed labels over ", moved, "those of the moved ones: blue where they differ."]
        )
    return _single(record, "contours", "Contours", words)


def _differences(record: Record) -> Html:
    present = [name for name in ("before", "after") if f"difference_{name}" in record.pictures]
    if not present:
        return Html("")
    end = 100 * DIFFERENCE_END
    ticks = (
        (-1.0, f"\u2212{end:g}"),
        (-0.5, f"\u2212{end / 2:g}"),
        (0.0, "0"),
        (0.5, f"{end / 2:g}"),
        (1.0, f"{end:g}"),
    )
    bar = _bar("scan \u2212 fixed, % of the fixed image's white", ticks)
    figures = []
    for name in present:
        picture, word = f"difference_{name}", "Before the warp." if name == "before" else "After the warp."
        figures.append(
            figure(_image(record, picture, f"difference to the fixed image {name} the warp"), word, "slices white")
        )
    words = (
        "Both on one scale, the same for every subject: brown where the scan is brighter, blue where it is darker. "
        "One factor brings the "
        "scan to the fixed image's brightness, least squares after the warp, the same before and after."
    )
    return section(
        "Difference", prose(words, note=True), bar, element("div", *figures, class_="pair"), anchor="difference"
    )


def _warp(record: Record) -> Html:
    f = record.figures.get
    parts: List[Html] = []
    if "grid" in record.pictures:
        words = (
            f"Lines {shown(f('grid_mm'), 'g')} mm apart in the moving space, as the warp and the affine before it "
            "carry them, on the fixed "
            "image. What moves out of a slice is not seen."
        )
        parts.append(_single(record, "grid", "Deformed grid", words))
    if "jacobian" in record.pictures:
        ticks = ((-1.0, "\u00bc"), (-0.5, "\u00bd"), (0.0, "1"), (0.5, "2"), (1.0, "4"))
        bar = _bar("volume ratio (Jacobian determinant), logarithmic", ticks)
        folded = int(f("folded") or 0)
        words = join(
            [
                "Brown: the moving tissue there is larger than in the fixed image, blue: smaller. ",
                _key(SIGNS, SIGNS.bad),
                f"folds (determinant \u2264 0), drawn one pixel wider than they are: {folded} "
                f"voxel{'' if folded == 1 else 's'} of the whole "
                f"volume. Smallest {shown(f('jacobian_low'))}, largest {shown(f('jacobian_high'))}.",
            ]
        )
        image = _image(record, "jacobian", "map of the Jacobian determinant", True)
        parts.append(section("Jacobian", bar, figure(image, words, "slices white")))
    return join(parts)


def _single(record: Record, name: str, title: str, words: object) -> Html:
    if name not in record.pictures:
        return Html("")
    return section(
        title, figure(_image(record, name, title.lower() + " of " + record.subject, True), escape(words), "slices")
    )


def _image(record: Record, name: str, words: str, scroll: bool = False) -> Html:
    width, height = record.pictures[name]
    image = Html(f'<img src="{name}.png" width="{width}" height="{height}" alt="{escape(words)}">')
    if not scroll:
        return image
    return element("div", image, class_="scroll", tabindex="0", role="region", aria_label=f"{words} scrolls sideways")


def _key(palette: Palette, index: int) -> Html:
    swatch = Html(f'<rect width="14" height="14" fill="{colour_of(palette, index)}"></rect>')
    return element("svg", swatch, viewBox="0 0 14 14", class_="key", aria_hidden="true")


@lru_cache(maxsize=None)
def _bar(title: str, ticks: Tuple[Tuple[float, str], ...]) -> Html:
    """The colour bar of a picture in `SIGNS`, the same on every page; ticks by their place from −1 to 1."""
    colours = [colour_of(SIGNS, index) for index in range(SIGNS.bad)]
    places = [((place + 1) / 2, words) for place, words in ticks]
    words = f"Colour bar: {title}, from {ticks[0][1]} to {ticks[-1][1]}"
    return element("div", colour_bar(title, colours, places, words), class_="bar")
