# SPDX-License-Identifier: Apache-2.0
"""The browser helper notices what it is there to notice."""

from __future__ import annotations

import pytest

from tests.support import browser


@pytest.fixture
def write(tmp_path):
    browser.needs_browser()

    def _write(body, head=""):
        path = tmp_path / "page.html"
        path.write_text(
            f'<!DOCTYPE html><html><head><meta charset="utf-8">{head}</head><body>{body}</body></html>',
            encoding="utf-8",
        )
        return path

    return _write


def test_a_request_that_leaves_the_page_is_seen(write):
    assert browser.requests_of(write("<p>quiet</p>")) == []
    seen = browser.requests_of(
        write('<img src="http://leak.example/x.png"><link rel="stylesheet" href="https://leak.example/x.css">')
    )
    assert "http://leak.example/x.png" in seen and any(address.startswith("leak.example:443") for address in seen)


def test_the_console_is_heard(write):
    assert browser.console_messages(write("<p>quiet</p>")) == []
    assert "broken" in browser.console_messages(write("<script>throw new Error('broken')</script>"))[0]
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
    assert "Security Policy" in browser.console_messages(write("<script>1</script>", policy))[0]


def test_what_sticks_out_is_found(write):
    page = write('<div style="width:600px">wide</div>', "<style>body{margin:0}</style>")
    browser.assert_fits(page, (768,))
    found = browser.overflow(page, 375)
    assert found["scroll"] == 600 and found["inner"] == 375 and found["wide"] == ["DIV.null"]
    with pytest.raises(AssertionError, match="at 375 px"):
        browser.assert_fits(page, (375,))


def test_a_picture_and_a_pdf(write, tmp_path):
    page = write("<p>text</p>")
    for width in (800, 375):
        assert browser.screenshot(page, tmp_path / "a.png", width, 300).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert browser.print_pdf(page, tmp_path / "a.pdf").read_bytes()[:5] == b"%PDF-"


@pytest.mark.parametrize(
    "markup, outside",
    [
        ('<img src="data:image/png;base64,AA=="><a href="#part">x</a>', False),
        ("<p>see https://example.org in words</p>", False),
        ('<img src="x.png">', True),
        ("<img src=//example.org/x.png>", True),
        ('<p title="http://example.org">x</p>', True),
        ("<style>a { background: url(data:x) }</style>", True),
    ],
)
def test_references_outside(markup, outside):
    assert bool(browser.external_references(markup)) == outside
