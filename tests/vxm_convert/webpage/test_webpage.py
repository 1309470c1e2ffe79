# SPDX-License-Identifier: Apache-2.0
"""What all pages share: escaping, tables, the security policy, and how it behaves in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import re

import pytest

from tests.support import browser
from vxm_convert.webpage.document import page
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import Html, fragment, parts, readable

NASTY = "<script>alert('x')</script>&\"\u0000\ud800\u4e2d\u6587"


TEMPLATE = """{% extends "page.html" %}
{% block main %}
<h1>Title</h1>
{% for title, content in sections %}
<section><h2>{{ title }}</h2>{{ content }}</section>
{% endfor %}
{% endblock %}
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("templates") / "example.html"
    path.write_text(TEMPLATE, encoding="utf-8")
    return path


@pytest.fixture
def example(template):
    rows = [["beta", 2.0], ["alpha", None], ["<i>10</i>", 10.0], ["a9", 9.5]]
    long_name = "sub-" + "very_long_" * 30
    columns = [Column("name", "name")] + [f"figure {n}, mm" for n in range(1, 12)]
    wide = table("eleven figures, n = 2", columns, [[long_name] + [1.0 / n for n in range(1, 12)], ["b"] + [0.5] * 11])
    narrow = table("errors, n = 4", [Column("name", "name"), "error, mm"], rows)

    def make(simulated=True, **options):
        return page(template, "a & b", simulated, sections=[("Part <one>", narrow), ("Part two", wide)], **options)

    return make


@pytest.fixture
def written(tmp_path, example):
    browser.needs_browser()
    path = tmp_path / "page.html"
    path.write_text(example(details="version <1>"), encoding="utf-8")
    return path


def test_everything_is_escaped_once(template):
    escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&#34;\ufffd\ufffd\u4e2d\u6587"
    macros = parts()
    pieces = [
        table(NASTY, [NASTY, NASTY], [[NASTY, NASTY], [Cell(NASTY), None]]),
        macros.definitions([(NASTY, NASTY)]),
        macros.toolchain(True, NASTY),
        macros.verdict(False, NASTY),
        macros.bullets([NASTY]),
        macros.code(NASTY),
        macros.explained(NASTY, NASTY),
        macros.image(NASTY, (1, 2), NASTY),
        macros.figure(NASTY, NASTY, NASTY),
        macros.scrolling(NASTY, NASTY),
    ]
    text = page(template, NASTY, True, NASTY, sections=[(NASTY, piece) for piece in pieces] + [(NASTY, NASTY)])
    assert text.count("<script>") == 1, "the one script is ours"
    assert "alert('x')" not in text and text.encode("utf-8")
    assert text.count(escaped) == 36 and text.count("alert") == 36 and "&amp;lt;" not in text
    assert readable(NASTY) == NASTY[:-4] + "\ufffd\ufffd\u4e2d\u6587"


def test_only_templates_make_markup(tmp_path):
    (tmp_path / "x.html").write_text("<b>{{ value }}</b>", encoding="utf-8")
    assert fragment(tmp_path, "x.html", value="<i>") == "<b>&lt;i&gt;</b>"
    assert fragment(tmp_path, "x.html", value=Html("<i>")) == "<b><i></b>"
    with pytest.raises(Exception, match="'value' is undefined"):
        fragment(tmp_path, "x.html")


def test_the_policy_allows_our_style_and_script_by_hash_and_nothing_else(template, tmp_path):
    script, style = tmp_path / "a.js", tmp_path / "a.css"
    script.write_text("var a = 1 && 2;")
    style.write_text("p > b { color: red; }")
    text = page(template, "t", True, styles=[style], scripts=[script], sections=[])
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:" and "unsafe" not in policy
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        hashes = [
            "'sha256-" + base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() + "'" for body in bodies
        ]
        assert rules[rule].split() == hashes
    assert len(re.findall("<script>", text)) == 2
    assert "var a = 1 && 2;</script>" in text and "p > b { color: red; }" in text
    for bad in ("</script><script>", "<!-- x"):
        script.write_text(bad)
        with pytest.raises(ValueError, match="must not hold"):
            page(template, "t", True, scripts=[script], sections=[])


@pytest.mark.parametrize("simulated, word, other", [(True, "SIMULATED", "REAL"), (False, "REAL", "SIMULATED")])
def test_the_badge_is_on_top_and_in_the_print_rules(example, simulated, word, other):
    text = example(simulated=simulated)
    assert text.index(f">{word}<") < text.index("<h1>")
    assert f'@top-left {{ content: "{word}"' in text and f'content: "{word}"; float: right' in text
    assert other not in text


def test_cells_that_are_no_number():
    text = table("c", ["a", "b", "c"], [[1.5, float("nan"), None], ["x", float("inf"), True]])
    assert text.count(">n/a<") == 3 and 'data-v="1.5"' in text and ">True<" in text
    assert "nothing to list" in table("c", ["a"], [])
    with pytest.raises(ValueError, match="2 entries, expected 1"):
        table("c", ["a"], [[1, 2]])


def test_no_reference_leaves_the_page(example):
    assert browser.external_references(example()) == []


def test_it_opens_without_a_complaint_and_asks_nobody(written):
    assert browser.console_messages(written) == []
    assert browser.requests_of(written) == []


def test_nothing_overflows_on_screens_and_on_paper(written):
    browser.assert_fits(written, (375, 1280))
    paper = browser.probe(
        written,
        """
        return Array.prototype.map.call(d.querySelectorAll(".scroll"), function (e) { return e.scrollWidth - e.clientWidth; });
    """,
        width=695,
        as_printed=True,
    )
    assert len(paper) == 2 and max(paper) <= 0, "no table is clipped at A4's width"


_SORT = """
function names() { return Array.prototype.map.call(d.querySelectorAll("tbody")[0].rows, function (r) { return r.cells[0].textContent; }); }
var buttons = d.querySelectorAll("thead")[0].querySelectorAll("button"), seen = [names()];
[1, 1, 0, 0].forEach(function (column) { buttons[column].click(); seen.push(names()); });
return {seen: seen, sorted: d.querySelectorAll("th[aria-sort]").length, aria: buttons[0].parentNode.getAttribute("aria-sort")};
"""


def test_headings_sort_and_missing_figures_stay_last(written):
    found = browser.probe(written, _SORT)
    assert found["seen"] == [
        ["beta", "alpha", "<i>10</i>", "a9"],
        ["<i>10</i>", "a9", "beta", "alpha"],
        ["beta", "a9", "<i>10</i>", "alpha"],
        ["<i>10</i>", "a9", "alpha", "beta"],
        ["beta", "alpha", "a9", "<i>10</i>"],
    ]
    assert (found["sorted"], found["aria"]) == (1, "descending")
