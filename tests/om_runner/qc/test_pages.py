# SPDX-License-Identifier: Apache-2.0
"""The pages over the pictures: order, words, links; in a browser sorting, filtering, rating, and pictures that take
turns.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from om_runner.qc.cohort_page import cohort_page, worst_first, write_pages
from om_runner.qc.record import PICTURES, Record, write_case
from om_runner.qc.subject_page import subject_page
from tests.support import browser
from tests.support.qc_cases import case

pytestmark = pytest.mark.any_python(
    "what a page says comes from its template; other tests make it on Python 3.7 as well"
)

NASTY = "<img src=x onerror=alert(1)> \"q\" 'a' %41 &amp; #"


def record(name: str, **changes) -> Record:
    figures = {
        "dice_before": 0.5,
        "dice_after": 0.9,
        "ncc_before": 0.5,
        "ncc_after": 0.9,
        "folding_fraction": 0.001,
        "flow_max_voxel": 5.0,
    }
    figures.update(changes.pop("figures", {}))
    pictures = {name: (300, 200) for name in PICTURES}
    return Record(
        **{
            "subject": name,
            "simulated": True,
            "figures": figures,
            "pictures": pictures,
            "label_set": "paper30",
            **changes,
        }
    )


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = []
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("src", "href")]


def links_of(page: Path):
    parser = _Links()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three subjects drawn, one with a name that markup and addresses trip over, one failed."""
    out = tmp_path_factory.mktemp("cohort") / "qc"
    for name, dice in (("good one", 0.9), (NASTY, 0.3), ("middling", 0.6)):
        figures = {
            "dice_before": 0.2,
            "dice_after": dice,
            "folding_fraction": 0.0,
            "flow_max_voxel": 1.0,
            "n_labels": 4,
        }
        write_case(out, case(subject=name, figures=figures))
    assert write_pages(out, [("lost", "its file <b> is damaged")]) == out / "index.html"
    return out


def test_every_link_leads_somewhere_inside(folder):
    pages = sorted(folder.rglob("index.html"))
    assert len(pages) == 4
    for page in pages:
        links = links_of(page)
        assert links
        for link in links:
            target = (page.parent / unquote(link)).resolve()
            assert target.is_file() and folder.resolve() in target.parents, link
    seen = {(page.parent / unquote(link)).resolve() for page in pages for link in links_of(page)}
    assert {path.resolve() for path in folder.rglob("*") if path.suffix in (".png", ".html")} == seen, (
        "every picture is shown somewhere"
    )


def test_names_and_reasons_are_text(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text and "<b> is" not in text and "its file &lt;b&gt; is damaged" in text
    page = (folder / NASTY / "index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and page.count("&lt;img src=x onerror") >= 3


def test_worst_first_and_said_so(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    body = text[text.index("<tbody>") :]
    assert body.index("&lt;img") < body.index("middling") < body.index("good one")
    assert "3 subjects, 0 with warnings, 1 not registered" in text and "lowest Dice after" in text
    warned = record("w", warnings=("look",), figures={"dice_after": 0.95})
    assert [r.subject for r in worst_first([record("a"), warned, record("n", figures={"dice_after": None})])] == [
        "w",
        "n",
        "a",
    ]
    without = [record(n, figures={"dice_after": None, "ncc_after": v}) for n, v in (("x", 0.9), ("y", 0.1))]
    assert [r.subject for r in worst_first(without)] == ["y", "x"]
    assert "lowest similarity after" in cohort_page(without, [])


@pytest.mark.parametrize("simulated, word", [(True, "SIMULATED"), (False, "REAL"), (None, None)])
def test_the_badge(simulated, word):
    for text in (
        cohort_page([record("a", simulated=simulated)], []),
        subject_page(record("a", simulated=simulated), None, None),
    ):
        assert (f">{word}</strong>" in text) if word else ("</strong>" not in text)
    mixed = cohort_page([record("a", simulated=False), record("b", simulated=True)], [])
    assert ">SIMULATED</strong>" in mixed


def test_what_is_missing_leaves_no_hole():
    bare = record(
        "a",
        pictures={"fixed": (10, 10)},
        figures={"dice_before": None, "dice_after": None},
        notes=("no warp",),
        letters=False,
    )
    text = subject_page(bare, None, record("b"))
    assert (
        "Jacobian" not in text.replace("Jacobian determinant", "")
        and "no warp" in text
        and "sides may be swapped" in text
    )
    assert re.findall(r'src="([^"]+)"', text) == ["fixed.png"] and 'href="../b/index.html"' in text
    assert cohort_page([bare], []).count("n/a") >= 3


def test_nothing_to_show_writes_nothing(tmp_path):
    assert write_pages(tmp_path) is None and list(tmp_path.iterdir()) == []
    assert "not registered" in write_pages(tmp_path, [("a", "b")]).read_text(encoding="utf-8")


def test_a_thousand_subjects_fit_one_page():
    text = cohort_page(
        worst_first([record(f"sub-{n:04d}", warnings=("something to look at",) * (n % 3)) for n in range(1000)]), []
    )
    assert len(text.encode("utf-8")) < 2_000_000 and text.count('loading="lazy"') == 1000


def test_browsers_open_them_without_complaint(folder):
    browser.needs_browser()
    for page in (folder / "index.html", folder / "good one" / "index.html", folder / NASTY / "index.html"):
        assert browser.console_messages(page) == []
    for page in (folder / "index.html", folder / NASTY / "index.html"):
        browser.assert_fits(page, (375, 1280))
    assert browser.requests_of(folder / "index.html") == []


def test_pictures_are_let_in_by_the_policy(folder):
    browser.needs_browser()
    sizes = (
        "return Array.prototype.map.call(d.images, function (i) { return i.loading === 'lazy' || i.naturalWidth; });"
    )
    assert browser.probe(folder / "index.html", sizes, beside=True) == [True] * 3
    found = browser.probe(folder / "good one" / "index.html", sizes, beside=True)
    assert len(found) == 10 and all(found)


def test_sorting_filtering_and_rating(folder):
    browser.needs_browser()
    found = browser.probe(
        folder / "index.html",
        r"""
var names = function () { return Array.prototype.filter.call(d.querySelectorAll("#cohort tbody tr"), function (r) { return !r.hidden; })
  .map(function (r) { return r.cells[0].textContent; }); };
var out = {first: names()}, heads = d.querySelectorAll("#cohort thead button");
heads[3].click(); out.byDice = names();
heads[3].click(); out.up = names();
heads[0].click(); out.byName = names();
var filter = d.getElementById("filter"), only = d.getElementById("only");
var count = d.getElementById("count");
filter.value = "MIDD"; filter.dispatchEvent(new w.Event("input")); out.filtered = names(); out.count = count.textContent;
filter.value = ""; filter.dispatchEvent(new w.Event("input"));
only.value = "warned"; only.dispatchEvent(new w.Event("change")); out.warned = names();
var row = d.querySelector("#cohort table").rowsOf.all().filter(function (r) { return r.cells[0].textContent === "good one"; })[0];
var select = row.querySelector("select"), note = row.querySelector("input");
select.value = "reject"; select.dispatchEvent(new w.Event("change"));
note.value = "left\tright"; note.dispatchEvent(new w.Event("input"));
only.value = "reject"; only.dispatchEvent(new w.Event("change")); out.rejected = names(); out.rated = count.textContent;
w.Blob = function (parts) { out.table = parts.join(""); };
w.URL.createObjectURL = function () { return "#"; };
d.getElementById("export").click();
[1, 2].forEach(function (at) {
  var again = d.createElement("script");
  again.textContent = d.scripts[at].textContent; d.body.appendChild(again);
});
out.kept = [row.querySelector("select").value, row.querySelector("input").value, row.querySelector("select").getAttribute("aria-label")];
return out;
""",
    )
    assert found["first"] == [NASTY, "middling", "good one"] == found["up"] and found["byDice"] == found["first"][::-1]
    assert found["byName"] == [NASTY, "good one", "middling"]
    assert found["filtered"] == ["middling"] and found["count"].startswith("1 of 3 shown") and found["warned"] == []
    assert found["rejected"] == ["good one"] and found["rated"] == "1 of 3 shown, 1 rated"
    lines = found["table"].splitlines()
    assert (
        lines[0] == "subject\trating\tnote"
        and "good one\treject\tleft right" in lines
        and f"{NASTY}\tn/a\tn/a" in lines
    )
    assert found["kept"] == ["reject", "left\tright", "rating of good one"]


_STAGE = r"""
var shown = function () { return Array.prototype.filter.call(d.querySelectorAll(".stage > figure"), function (f) {
  return w.getComputedStyle(f).visibility === "visible"; }).map(function (f) { return f.dataset.name; }); };
var ticks = [];
w.setInterval = function (step) { ticks.push(step); return ticks.length; };
w.clearInterval = function (id) { ticks[id - 1] = null; };
var key = function (k, target) { (target || d).dispatchEvent(new w.KeyboardEvent("keydown", {key: k, bubbles: true})); };
var running = function () { return ticks.filter(Boolean).length; };
var out = {first: shown()};
d.querySelector("[data-show=before]").click(); out.button = shown();
key("1"); out.one = shown();
d.querySelector("[data-flick='before after']").click(); out.flick = shown(); out.running = running();
out.pressed = d.querySelector("[data-flick='before after']").getAttribute("aria-pressed");
ticks.filter(Boolean).forEach(function (t) { t(); }); out.then = shown();
key("f"); out.stopped = running(); key("g"); out.other = shown();
return out;
"""


def test_pictures_take_turns_by_button_and_key(folder):
    browser.needs_browser()
    found = browser.probe(folder / "good one" / "index.html", _STAGE)
    assert found["first"] == ["after"] and found["button"] == ["before"] and found["one"] == ["fixed"]
    assert (
        found["flick"] == ["before"]
        and found["running"] == 1
        and found["pressed"] == "true"
        and found["then"] == ["after"]
    )
    assert found["stopped"] == 0 and found["other"] == ["fixed"]


def test_who_wants_less_motion_changes_the_picture_by_hand(folder):
    browser.needs_browser()
    found = browser.probe(folder / "good one" / "index.html", _STAGE, reduced_motion=True)
    assert found["running"] == 0 and found["flick"] == ["before"] and found["then"] == ["before"]


def test_without_scripts_everything_is_there(folder):
    browser.needs_browser()
    copy = folder / "good one" / "plain.html"
    text = (folder / "good one" / "index.html").read_text(encoding="utf-8")
    copy.write_text(re.sub(r"<script>.*?</script>", "", text, flags=re.S), encoding="utf-8")
    try:
        found = browser.probe(
            copy,
            """
return {stage: Array.prototype.map.call(d.querySelectorAll(".stage > figure"), function (f) { return w.getComputedStyle(f).visibility; }),
  buttons: w.getComputedStyle(d.querySelector(".controls")).display};""",
        )
    finally:
        copy.unlink()
    assert found == {"stage": ["visible"] * 3, "buttons": "none"}


def test_a_record_of_a_later_version_is_left_out(folder, tmp_path, caplog):
    write_case(tmp_path, case())
    path = tmp_path / "a b" / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "schema": 2}), encoding="utf-8")
    assert write_pages(tmp_path) is None and "make the pictures again" in caplog.text
