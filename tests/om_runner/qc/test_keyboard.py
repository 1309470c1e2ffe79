# SPDX-License-Identifier: Apache-2.0
"""Rating a cohort by keyboard, on both pages, which share the ratings; and outlines of single structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from matplotlib import image

from om_runner.qc.cohort_page import cohort_page, write_pages
from om_runner.qc.pictures import draw
from om_runner.qc.record import Record, read_record, write_case
from tests.support import browser
from tests.support.qc_cases import RAS_SHAPE, case, direct_colours

pytestmark = pytest.mark.any_python(
    "what a page says comes from its template; other tests make it on Python 3.7 as well"
)

_TOOLS = """
var key = function (k, where) { (where || document.activeElement || document.body).dispatchEvent(
  new KeyboardEvent("keydown", {key: k, bubbles: true})); };
var row = function () { var found = document.querySelector("tr.current"); return found && found.cells[0].textContent; };
var rated = function () { return Array.prototype.map.call(document.querySelectorAll("#cohort tbody select"),
  function (one) { return one.value; }); };
var pressed = function () { return Array.prototype.map.call(document.querySelectorAll("[data-rate][aria-pressed=true]"),
  function (one) { return one.dataset.rate; }); };
"""


def labelled() -> np.ndarray:
    """Two structures side by side, 5 and 41, in a case's axes."""
    seg = np.zeros(RAS_SHAPE, np.int16)
    seg[4:10, 4:20, 3:13], seg[10:16, 4:20, 3:13] = 5, 41
    return seg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "qc"
    for name, dice in (("one", 0.3), ("two", 0.6), ("three", 0.9)):
        figures = {"dice_before": 0.2, "dice_after": dice, "folding_fraction": 0.0, "flow_max_voxel": 1.0}
        moved = np.roll(labelled(), 2, axis=1)
        write_case(out, case(subject=name, figures=figures, fixed_seg=labelled(), moved_seg=moved))
    write_pages(out)
    return out


def visit(*steps: Any) -> List[Any]:
    browser.needs_browser()
    return browser.visit([(page, f"(function () {{ {_TOOLS} {script} }})()") for page, script in steps])


def test_rows_are_walked_and_rated_and_pages_share_the_ratings(folder: Path) -> None:
    cohort, two = folder / "index.html", folder / "two" / "index.html"
    found = visit(
        (
            cohort,
            """
var out = [row()]; key("a"); key("n"); out.push(row(), document.activeElement.textContent); key("a"); key("n"); key("d");
key("n"); key("n"); out.push(row()); key("p"); out.push(row()); key("r"); key("c"); key("d"); key("p"); out.push(row());
return [out, rated(), document.getElementById("count").textContent];""",
        ),
        (
            two,
            """
var out = [pressed()]; key("r"); out.push(pressed());
var note = document.getElementById("note"); note.focus(); note.value = "skull"; note.dispatchEvent(new Event("input"));
key("a"); out.push(pressed());
note.blur(); document.getElementById("keys").click(); key("a"); out.push(pressed()); return out;""",
        ),
        (cohort, 'return [rated(), document.querySelectorAll("#cohort input")[1].value];'),
    )
    walked, ratings, count = found[0]
    assert walked == [None, "one", "one", "three", "two", "one"]
    assert ratings == ["accept", "doubt", ""] and count == "3 of 3 shown, 2 rated"
    assert found[1] == [["doubt"], ["reject"], ["reject"], ["reject"]], "no key while typing, or when keys are off"
    assert found[2] == [["accept", "reject", ""], "skull"]


def test_a_cohort_of_one_can_be_rated(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(cohort_page([Record(subject="only", simulated=True, figures={}, pictures={})], []), "utf-8")
    assert visit((page, 'key("n"); key("r"); return rated();')) == [["reject"]]


def test_a_cohort_without_pictures_has_nothing_to_rate(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(cohort_page([], [("lost", "its file is damaged")]), encoding="utf-8")
    assert visit((page, 'key("n"); key("a"); return document.querySelectorAll("kbd").length;')) == [0]


def test_walking_turns_the_page(tmp_path: Path) -> None:
    records = [Record(subject=f"s{at:03d}", simulated=True, figures={}, pictures={}) for at in range(101)]
    page = tmp_path / "index.html"
    page.write_text(cohort_page(records, []), encoding="utf-8")
    script = 'for (var at = 0; at < 101; at += 1) { key("n"); } var last = row(); key("p"); return [last, row()];'
    assert visit((page, script)) == [["s100", "s099"]]


def test_the_keys_are_said_on_the_pages(folder: Path) -> None:
    cohort, subject = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "two/index.html"))
    for text, keys in ((cohort, "npadrc"), (subject, "123fgadrcupn")):
        assert all(f"<kbd>{key}</kbd>" in text for key in keys)


def test_the_picture_holds_the_rims_by_number() -> None:
    drawn = draw(case(fixed_seg=labelled(), moved_seg=np.roll(labelled(), 2, axis=1)))
    assert drawn.labels == (5, 41)
    picture = direct_colours(drawn.pictures["structures"].png)
    assert set(np.unique(picture[..., 0])) == set(np.unique(picture[..., 1])) == {0, 1, 2}
    assert not picture[..., 2].any() and (picture[..., 0] != picture[..., 1]).any()
    assert picture.shape[:2] == (drawn.pictures["after"].height, drawn.pictures["after"].width)
    assert (picture[..., 0] > 0).mean() < 0.2, "rims, not areas"
    assert draw(case(fixed_seg=None)).labels == () and "structures" not in draw(case(fixed_seg=None)).pictures


_PIXELS = """
var chosen = document.getElementById("structure"); chosen.value = WHICH; chosen.dispatchEvent(new Event("change"));
return Array.prototype.map.call(document.querySelectorAll(".chosen"), function (part) {
  return part.getAttribute("tableValues").split(" ").map(Number).reduce(function (sum, one, at) { return sum + one * at; }, 0); });
"""


def test_the_outline_is_drawn_in_its_colours(folder: Path, tmp_path: Path) -> None:
    browser.needs_browser()
    shown = []
    for which in ("", "1", "2"):
        script = f"(function () {{ {_PIXELS.replace('WHICH', repr(which))} }})()"
        target = browser.screenshot(folder / "one" / "index.html", tmp_path / "a.png", 1280, 1200, script)
        picture = np.rint(255 * image.imread(str(target))[..., :3]).astype(int)
        shown.append([(np.abs(picture - colour) <= 2).all(-1) for colour in ((230, 159, 0), (86, 180, 233))])
    plain, one, other = ([int(mask.sum()) for mask in masks] for masks in shown)
    assert all(after > before + 200 for after, before in zip(one, plain)), (plain, one)
    assert all(after > before + 200 for after, before in zip(other, plain)), (plain, other)
    assert not np.array_equal(shown[1][0], shown[2][0])


def test_the_outline_of_one_structure_is_chosen_by_name(folder: Path) -> None:
    page = folder / "one" / "index.html"
    assert read_record(page.with_name("record.json")).structures == ("label-5", "Right-Cerebral-White-Matter")
    text = page.read_text(encoding="utf-8")
    assert '<option value="2">Right-Cerebral-White-Matter</option>' in text
    wanted = ('"2"', '""', '"all"')
    found = visit(*((page, _PIXELS.replace("WHICH", which)) for which in wanted))
    assert found == [[2, 2], [0, 0], [255 * 128, 255 * 128]]
