# SPDX-License-Identifier: Apache-2.0
"""report.html: what it says, in which order, for every shape of report; and how it behaves in a browser."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import om_runner.precision.page.page
from om_runner.precision.page.charts import distribution
from om_runner.precision.page.limits import failure_words, judge, limits_table
from om_runner.precision.page.page import build_page
from om_runner.precision.page.quantities import figure, share_of_limit, worst_first
from om_runner.precision.page.structures import largest_change_words, structure_changes
from tests.support import browser, fakes
from tests.support.cohort import cohort
from tests.support.registration_bench import Bench
from tests.support.scripted_reference import off_by_little
from vxm_convert.artifacts.files import sha256_of

pytestmark = pytest.mark.any_python(
    "what a page says comes from its template; other tests make it on Python 3.7 as well"
)

SCHEMA = Path(om_runner.precision.page.page.__file__).with_name("report.schema.json")
NASTY = '"><script>alert(1)</script>&<b>\u8111\u90e8'
LONG = "sub_" + "x" * 300


@pytest.fixture(scope="module")
def example():
    """Two good subjects, one beyond the limits and one with NaN; names that a page must survive."""
    return cohort(n=4, bad=(1,), nan=(2,), names=["plain", NASTY, "with nan", LONG])


@pytest.fixture(scope="module")
def written(example, tmp_path_factory):
    browser.needs_browser()
    report, gallery = example
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build_page(report, gallery.kept, "LIA", "ab" * 32), encoding="utf-8")
    return path


class Outline(HTMLParser):
    """Headings in order, tags, and images without words."""

    def __init__(self, text):
        super().__init__()
        self.levels, self.tags, self.silent, self.tables, self.captions = [], set(), 0, 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.tables += tag == "table" and attrs.get("class") != "slices"
        self.captions += tag == "caption"
        self.silent += (tag == "img" and not attrs.get("alt")) or (
            tag == "svg" and not (attrs.get("aria-label") or attrs.get("aria-hidden"))
        )


def body_of(page):
    return page[page.index("<body>") : page.index("<script>")]


def test_the_verdict_comes_first_with_the_profile_and_what_failed(example):
    body = body_of(build_page(example[0]))
    order = [
        body.index(words)
        for words in (
            "SIMULATED",
            "<h1",
            "profile research",
            "What failed:",
            "NaN or Inf in 1 of 4 scans",
            "n = 4",
            "Limits and measured values",
            "The cohort, scan by scan",
        )
    ]
    assert order == sorted(order)
    assert "Moved image, largest error:" in body and "above the limit of" in body


def test_a_cohort_within_the_limits_passes_and_lists_no_failure():
    report, gallery = cohort(n=1, labels=False)
    for row in report["rows"]:
        row["failures"], row["verdict"] = [], "ok"
    report["verdict"] = "ok"
    body = body_of(build_page(report, gallery.kept))
    assert 'class="verdict passed"' in body and "What failed" not in body and "1 of 3</strong> scans" in body
    assert "no scan with labels was compared" in body, "Dice is said to be missing, not left out in silence"
    assert "not judged" in body, "a limit on Dice has nothing to judge"


def test_subjects_with_nan_come_first_and_are_shown(example):
    report, gallery = example
    rows = worst_first(report["rows"], report["profile"]["limits"])
    assert [row["subject"] for row in rows[:2]] == ["with nan", NASTY]
    body = body_of(build_page(report, gallery.kept))
    pictures = body[body.index("Pictures of the worst scans") :]
    assert pictures.index("with nan") < pictures.index("plain") and "2 values are NaN or Inf" in pictures


def test_everything_foreign_is_escaped_and_nothing_is_loaded(example):
    report = copy.deepcopy(example[0])
    for place in (
        report["model"],
        report["toolchain"],
        report["precision_plan"],
        report["profile"],
        report["reference"],
    ):
        place.update({key: NASTY for key, value in place.items() if isinstance(value, str)})
    report.update(label_set=NASTY, criterion=NASTY)
    report["layers"]["layers"][10].update(name=NASTY, advice=NASTY, type=NASTY)
    report["provenance"][0].update(role=NASTY, file=NASTY)
    report["precision_plan"].update(keep_dtype=[NASTY], reasons={NASTY: NASTY})
    page = build_page(report, example[1].kept)
    assert page.count("<script>") == 1 and "alert(1)</script>" not in page and "\u8111\u90e8" in page
    assert browser.external_references(page) == []
    assert not Outline(page).tags & {"link", "iframe", "object", "embed", "b"}


def test_it_can_be_read_without_eyes(example):
    outline = Outline(build_page(example[0], example[1].kept))
    assert outline.silent == 0 and outline.tables == outline.captions >= 6
    assert outline.levels[0] == 1 and outline.levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.levels, outline.levels[1:]))


@pytest.mark.parametrize("simulated, word, other", [(True, "SIMULATED", "REAL"), (False, "REAL", "SIMULATED")])
def test_the_badge_is_on_top_and_at_every_figure(example, simulated, word, other):
    report = {**example[0], "simulated": simulated}
    page = build_page(report, example[1].kept)
    assert page.index(f">{word}<") < page.index("<h1") and other not in page
    assert len(re.findall(r"<figcaption>", page)) - page.count('class="bar"') <= page.count(f">{word}<")


def strip(row):
    """A row as the first version of the report had it."""
    old = {key: row[key] for key in ("subject", "verdict", "moved", "flow", "epe_voxel", "epe_mm", "dice", "folding")}
    old["moved"] = {key: value for key, value in row["moved"].items() if key not in ("inside", "warp_only")}
    if old["dice"]:
        old["dice"] = {
            key: value for key, value in old["dice"].items() if key not in ("per_label", "min_change", "mean_change")
        }
    return old


def test_reports_without_the_newer_entries_are_shown(example):
    report = copy.deepcopy(example[0])
    for key in ("profile", "provenance", "precision_plan", "layers"):
        del report[key]
    report["rows"] = [strip(row) for row in report["rows"]]
    body = body_of(build_page(report))
    assert "no profile applied" in body and "n/a" in body and "What failed:" in body
    assert "no figures per structure" in body and "Layer by layer" not in body


def test_rows_of_nothing_but_a_name_and_no_rows_at_all(example):
    bare = {**example[0], "rows": [{"subject": "a", "verdict": "failed", "moved": None, "dice": None}], "n_samples": 1}
    assert "n/a" in build_page(bare)
    page = build_page({**example[0], "rows": [], "n_samples": 0})
    assert 'class="verdict judged"' in page and "Not judged" in page


def test_two_hundred_subjects_stay_complete_in_the_tables(example):
    base = example[0]["rows"][0]
    rows = [
        {
            **base,
            "subject": f"scan {n:03d}",
            "epe_voxel": {**base["epe_voxel"], "max": n},
            "failures": [],
            "verdict": "ok",
        }
        for n in range(200)
    ]
    page = build_page({**example[0], "rows": rows, "n_samples": 200}, {})
    table = page[page.index("The cohort, scan by scan") :]
    assert table.index("scan 199") < table.index("scan 000")
    assert all(f"scan {n:03d}" in table for n in range(200)) and len(page.encode()) < 3_000_000


@pytest.mark.parametrize(
    "value, relation, limit, share",
    [
        (0.5, "<=", 1.0, 0.5),
        (2.0, "<=", 1.0, 2.0),
        (-1.0, "<=", 1.0, 0.0),
        (0.0, "<=", 0.0, 0.0),
        (1.0, "<=", 0.0, float("inf")),
        (80.0, ">=", 60.0, 0.75),
        (30.0, ">=", 60.0, 2.0),
        (0.0, ">=", 60.0, float("inf")),
        (-0.01, ">=", -0.005, 2.0),
        (0.2, ">=", -0.005, 0.0),
        (-1.0, ">=", 0.0, float("inf")),
        (None, "<=", 1.0, None),
    ],
)
def test_share_of_a_limit(value, relation, limit, share):
    assert share_of_limit(value, relation, limit) == share


@pytest.mark.parametrize(
    "value, limit, name, share",
    [(86.0206, 80.0, "moved.psnr_db", 0.5), (73.9794, 80.0, "flow.snr_db", 2.0), (0.9999, 0.999, "flow.cosine", 0.1)],
)
def test_decibels_and_cosines_count_by_the_error(value, limit, name, share):
    assert share_of_limit(value, ">=", limit, name) == pytest.approx(share, rel=1e-4)


def test_an_image_far_from_its_limit_in_decibels_is_not_the_worst():
    limits = [
        {"figure": "moved.psnr_db", "relation": ">=", "limit": 75.0},
        {"figure": "moved.max_abs", "relation": "<=", "limit": 0.01},
    ]
    good = {"subject": "good", "moved": {"psnr_db": 86.2, "max_abs": 0.004}}
    bad = {"subject": "bad", "moved": {"psnr_db": 90.0, "max_abs": 0.0085}}
    assert [row["subject"] for row in worst_first([good, bad], limits)] == ["bad", "good"]


def test_limits_are_judged_by_the_rows_failures_or_else_by_the_values(example):
    report = copy.deepcopy(example[0])
    judged = {item.name: item for item in judge(report)}
    assert judged["moved.max_abs"].passed is False and judged["moved.max_abs"].subject == NASTY
    assert judged["dice.min_change"].n_undefined == 1
    for row in report["rows"]:
        del row["failures"]
    by_value = {item.name: item for item in judge(report)}
    assert {name: item.n_failed for name, item in by_value.items()} == {
        name: item.n_failed for name, item in judged.items()
    }
    report["rows"][0]["failures"] = [{"figure": "dice.min_change", "value": None, "text": "undefined"}]
    report["rows"][0]["dice"] = None
    assert any("undefined in" in words for words in failure_words(report))


def test_limits_on_means_over_the_cohort_are_listed_and_told(example):
    report = copy.deepcopy(example[0])
    report["profile"]["cohort"] = [{"figure": "epe_voxel.mean", "relation": "<=", "limit": 1e-9}]
    failure = {
        "figure": "epe_voxel.mean",
        "value": 0.01,
        "limit": 1e-9,
        "relation": "<=",
        "text": "mean over n = 4 scans is 0.01",
    }
    report["cohort"] = {"verdict": "failed", "failures": [failure], "skipped": [], "values": {"epe_voxel.mean": 0.01}}
    body = body_of(build_page(report))
    assert (
        "Over the cohort: mean over n = 4 scans is 0.01." in body
        and "mean over n = 4 scans: end-point error, mean" in body
    )
    report["cohort"] = {"verdict": "ok", "failures": [], "skipped": [], "values": {}}
    assert "not judged" in body_of(build_page(report)) and "Over the cohort" not in body_of(build_page(report))


def test_figures_that_only_the_profiles_know_get_their_words():
    assert figure("moved.ascend.CosineSimilarity").label == "moved image: CosineSimilarity of Ascend's comparer"
    assert figure("something.else").label == "something.else"


def test_a_report_of_the_runner_validates_and_is_shown(tmp_path, monkeypatch, scripted):  # noqa: F811
    jsonschema = pytest.importorskip("jsonschema")
    bench = Bench(tmp_path, monkeypatch, spoil=off_by_little)
    for seed, name in enumerate("ab", 1):
        fakes.write_scan(bench.inputs / f"{name}.npz", seed)
    assert bench.run("--compare", "all", "--profile", "none") == 0
    folder = bench.out / "precision"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).iter_errors(report)
    assert [error.message for error in errors] == []
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "which judges only NaN and Inf" in page and sha256_of(folder / "report.json") in page
    assert page.count("<img ") == 2 * 3 * 5


def test_two_thousand_scans_draw_a_few_hundred_marks(example):
    row = example[0]["rows"][0]
    rows = [
        {**row, "subject": str(n), "failures": [], "moved": {**row["moved"], "max_abs": 10 ** (-5 + n / 500)}}
        for n in range(2000)
    ]
    report = {**example[0], "rows": rows}
    strip = limits_table(report)
    drawn = [len(re.findall("<path ", svg)) for svg in re.findall(r"<svg.*?</svg>", strip, re.S)]
    assert 100 < max(drawn) < 300


def test_histograms_on_one_grid_are_put_together():
    rows = [
        {"histograms": {"e": {"edges": [1, 2, 4], "counts": [3, 1], "below": 4}}},
        {"histograms": {"e": {"edges": [2, 4, 8], "counts": [0, 8]}}},
        {"histograms": {"e": {"edges": [1, 4, 8], "counts": [1, 1]}}},
        {"histograms": None},
        {},
    ]
    found = distribution(rows, "e")
    assert found.edges == (1.0, 2.0, 4.0, 8.0) and (found.n, found.left_out) == (2, 1)
    assert (
        found.mean == pytest.approx((3 / 16, 1 / 16, 0.5))
        and found.high == (3 / 8, 1 / 8, 1.0)
        and found.low == (0, 0, 0)
    )
    assert distribution([{"histograms": {"e": {"edges": [1, 2], "counts": [0], "below": 9}}}], "e") is None


def test_structures_are_sorted_by_their_change():
    rows = [
        {"dice": {"per_label": {"a": {"change": 0.1}, "b": {"change": -0.2}}}},
        {"dice": {"per_label": {"a": {"change": 0.3}, "b": {"change": None}}}},
        {"dice": None},
    ]
    changes = structure_changes(rows)
    assert [(c.name, c.n) for c in changes] == [("b", 1), ("a", 2)]
    assert (changes[1].mean, changes[1].low, changes[1].high) == pytest.approx((0.2, 0.1, 0.3))
    assert largest_change_words(rows) == (
        "Largest change: b, whose Dice falls by 0.20000 in the mean over n = 1 scans. In a single scan: a, whose Dice "
        "rises by 0.30000."
    )
    equal = [{"dice": {"per_label": {"a": {"change": 0.0}, "b": {"change": 0.0}}}}]
    assert largest_change_words(equal) == "Largest change: none, the Dice of all 2 structures is the same."
    assert largest_change_words([{"dice": None}]) == ""


def test_the_report_validates(example):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    report = json.loads(json.dumps(example[0], allow_nan=False))
    assert list(validator.iter_errors(report)) == []
    for spoil in (
        lambda r: r.update(schema=2),
        lambda r: r.pop("verdict"),
        lambda r: r["rows"][0].update(verdict="fine"),
        lambda r: r["rows"][0]["moved"].update(max_abs="0.1"),
        lambda r: r["model"].update(om_sha256="ab"),
        lambda r: r["profile"]["limits"][0].update(relation="<"),
        lambda r: r["rows"][0]["epe_mm"].update(max=-1),
    ):
        broken = copy.deepcopy(report)
        spoil(broken)
        assert list(validator.iter_errors(broken)), "every broken report is refused"


def test_it_opens_quietly_and_asks_nobody(written):
    assert browser.console_messages(written) == []
    assert browser.requests_of(written) == []


def test_nothing_overflows_at_three_widths(written):
    browser.assert_fits(written, (375, 768, 1280))


def test_no_table_is_clipped_on_paper(written):
    boxes = browser.probe(
        written,
        """
        return Array.prototype.map.call(d.querySelectorAll(".scroll"), function (e) { return e.scrollWidth - e.clientWidth; });
    """,
        width=695,
        as_printed=True,
    )
    assert len(boxes) > 8 and max(boxes) <= 0


def test_the_cohort_sorts_by_a_click(written):
    found = browser.probe(
        written,
        """
        var table = d.querySelector("#cohort table"), seen = [];
        function first() { return table.tBodies[0].rows[0].cells[0].textContent; }
        seen.push(first());
        var button = table.tHead.rows[0].cells[0].querySelector("button");
        button.click(); seen.push(first()); button.click(); seen.push(first());
        return seen;
    """,
    )
    assert found == ["with nan", NASTY, "with nan"]
