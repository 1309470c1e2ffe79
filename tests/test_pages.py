# SPDX-License-Identifier: Apache-2.0
"""Every page for every reader: structure and contrast from its text alone, then in a browser, light and dark, wide and
narrow, judged by axe-core where it is there; and pages of 2,000 scans.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Dict

import pytest

from om_runner.qc.cohort_page import cohort_page
from om_runner.qc.record import PICTURES, Record
from tests.support import browser, pages
from tests.support.outline import Outline
from vxm_convert.webpage.colours import css_properties

pytestmark = pytest.mark.any_python(
    "what a page says comes from its template; other tests make it on Python 3.7 as well"
)

NAMES = ("cohort", "device_check", "evaluation", "index", "precision", "prepare", "subject", "training", "tune")
#: WCAG 2.1, 1.4.3 and 1.4.11
TEXT_CONTRAST, GRAPHICS_CONTRAST = 4.5, 3.0
TEXTS, GRAPHICS = ("ink", "quiet", "blue", "green", "bad"), ("blue", "vermilion", "green", "orange", "sky", "quiet")
MANY = 2000
#: elements of a page of 2,000 scans once its script has run, and bytes of the file
MOST_ELEMENTS, MOST_BYTES = 3000, 1_500_000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    return pages.write_all(tmp_path_factory.mktemp("pages"))


def test_every_template_of_a_page_is_among_them(project_root: Path, written: Dict[str, Path]) -> None:
    found = {
        path.stem.replace("train_report", "training")
        for package in ("vxm_convert", "train", "export", "om_runner")
        for path in (project_root / package).rglob("templates/*.html")
        if '{% extends "page.html" %}' in path.read_text(encoding="utf-8")
    }
    assert {"precision" if name == "report" else name for name in found} == set(written) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_who_cannot_see_it_can_read_it(written: Dict[str, Path], name: str) -> None:
    outline = Outline(written[name].read_text(encoding="utf-8"))
    assert outline.language == "en" and outline.silent == []
    assert len(outline.words["title"]) == len(outline.words["h1"]) == 1
    assert all(all(words) for words in outline.words.values()), "no title, heading, caption, button or link is empty"
    assert outline.levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(outline.levels, outline.levels[1:]))
    assert len(outline.ids) == len(set(outline.ids)) and len(outline.words["caption"]) == outline.tables


@pytest.mark.parametrize("name", NAMES)
def test_the_colours_are_the_shared_ones(written: Dict[str, Path], name: str) -> None:
    text = written[name].read_text(encoding="utf-8")
    assert css_properties() in text and text.count("prefers-color-scheme") == 1 and "@media print" in text
    charts = "".join(re.findall(r'<svg[^>]*class="drawing[^>]*>.*?</svg>', text, re.S))
    known = {light for light, _ in _schemes().values()} - {"#ffffff"}
    assert not known & set(re.findall(r'"(#[0-9a-f]{6})"', charts)), "charts follow the scheme"


def test_schemes_are_named_in_one_place_only(project_root: Path) -> None:
    for path in project_root.rglob("*.css"):
        if path.relative_to(project_root).parts[0] in ("vxm_convert", "train", "export", "om_runner"):
            text = path.read_text(encoding="utf-8")
            assert "prefers-color-scheme" not in text and not re.search(r"--[a-z]+:", text), path


def _schemes() -> Dict[str, tuple]:
    """Name → light and dark colour, from the style sheet as pages have it."""
    light, dark = (dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", line)) for line in css_properties().splitlines())
    assert list(light) == list(dark)
    return {name: (light[name], dark[name]) for name in light}


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_of_the_palette(project_root: Path, scheme: int) -> None:
    colours = {name: pair[scheme] for name, pair in _schemes().items()}
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    for ground in ("paper", "faint"):
        for name in TEXTS:
            assert _contrast(colours[name], colours[ground]) >= TEXT_CONTRAST, (name, ground)
    for name in GRAPHICS:
        assert _contrast(colours[name], colours["paper"]) >= GRAPHICS_CONTRAST, name
    style = (project_root / "vxm_convert/webpage/static/page.css").read_text(encoding="utf-8")
    badges = re.findall(r"\.badge\.(?:sim|real) { background: (#[0-9a-f]{6}); border-color: \1; color: #fff; }", style)
    assert len(badges) == 2 and all(_contrast(badge, "#ffffff") >= TEXT_CONTRAST for badge in badges)


_FITS = """[document.documentElement.scrollWidth, innerWidth, getComputedStyle(document.body).backgroundColor,
  Array.prototype.every.call(document.querySelectorAll("svg.drawing text"), function (text) {
    return /^rgb\\((\\d+)/.exec(getComputedStyle(text).fill)[1] > 128; })]"""


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_a_phone_and_is_dark_for_those_who_ask(written: Dict[str, Path], name: str) -> None:
    browser.needs_browser()
    (found,) = browser.visit([(written[name], _FITS)], width=400, dark=True)
    assert found == [400, 400, "rgb(20, 23, 29)", True], "the last: letters of charts are light"


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_no_fault(written: Dict[str, Path], name: str, dark: bool, width: int) -> None:
    run = "axe.run().then(found => JSON.stringify(found.violations.map(v => [v.id, v.nodes.map(n => n.html)])))"
    (found,) = browser.visit([(written[name], f"{browser.axe_script()}; {run}")], width=width, dark=dark)
    assert json.loads(found) == []


_LARGE = """(function () {
  var count = function () { return document.getElementsByTagName("*").length; };
  var rows = function () { return document.querySelectorAll("tbody")[document.querySelectorAll("tbody").length - SKIP].rows.length; };
  var button = function (words) { return Array.prototype.filter.call(document.querySelectorAll("button.do"), function (one) {
    return one.textContent.indexOf(words) >= 0; })[0]; };
  var said = function () { return button("rows after").parentNode.querySelector("[role=status]").textContent; };
  var out = {elements: count(), rows: rows(), first: said()};
  button("rows after").click(); out.second = said(); out.still = count();
  window.dispatchEvent(new Event("beforeprint")); out.printed = rows();
  window.dispatchEvent(new Event("afterprint")); out.after = [rows(), said()];
  button("all rows").click(); out.all = rows();
  return out;
})()"""


def _many_records() -> str:
    figures = {"dice_before": 0.5, "dice_after": 0.8, "ncc_before": 0.5, "ncc_after": 0.9, "flow_max_voxel": 5.0}
    sizes = {name: (300, 200) for name in PICTURES if name != "thumb"}
    names = [f"sub-{at:04d}" for at in range(MANY)]
    return cohort_page([Record(subject=name, simulated=True, figures=figures, pictures=sizes) for name in names], [])


@pytest.mark.parametrize("name, skip", [("index", 2), ("cohort", 1), ("evaluation", 1)])
def test_two_thousand_scans_stay_quick(tmp_path: Path, name: str, skip: int) -> None:
    if name == "index":
        path = pages.index(tmp_path / "run", MANY)
    else:
        path = tmp_path / "page.html"
        path.write_text({"cohort": _many_records, "evaluation": lambda: pages.evaluation(MANY)}[name](), "utf-8")
    assert path.stat().st_size < MOST_BYTES
    assert path.read_text(encoding="utf-8").count(">sub-1999<") == 1, "without scripts every row is there"
    browser.needs_browser()
    (found,) = browser.visit([(path, _LARGE.replace("SKIP", str(skip)))])
    assert max(found["elements"], found["still"]) < MOST_ELEMENTS and found["rows"] == 100
    assert found["first"] == "rows 1 to 100 of 2000" and found["second"] == "rows 101 to 200 of 2000"
    assert found["printed"] == found["all"] == MANY and found["after"] == [100, found["second"]]
