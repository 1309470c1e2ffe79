# SPDX-License-Identifier: Apache-2.0
"""index.html of an output folder: leads to what is there and to nothing else, in every width, on paper, and escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List
from urllib.parse import unquote

import pytest

from om_runner.results.columns import FailureRow, MetricsRow, write_failures, write_metrics
from om_runner.results.index_page import MOST_ROWS, build_index, write_index
from tests.support import browser


def row(subject: str, **more: object) -> MetricsRow:
    values = dict(dice_before=0.5, dice_after=0.75, n_labels=2, label_set="paper30", folding_fraction=0.001)
    values.update(jacobian_min=0.1, flow_max_voxel=3.25, device_seconds=0.5, total_seconds=1.0, intensity="0..255")
    values.update(toolchain="simulated", source=subject + ".nii.gz", structures={"2": [0.5, 0.75], "41": [None, 0.5]})
    return MetricsRow(subject=subject, **{**values, **more})


def fill(out: Path, rows: List[MetricsRow], failures: List[FailureRow]) -> None:
    write_metrics(out / "metrics.tsv", rows)
    write_failures(out / "failures.tsv", failures)
    for name in (
        "qc/index.html",
        "precision/report.html",
        "precision/report.json",
        "run.json",
        "SHA256SUMS",
        "a/log.txt",
        "qc/a/index.html",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x", encoding="utf-8")


def links(page: str) -> List[str]:
    return [unquote(found) for found in re.findall(r'href="([^"]+)"', page)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    hostile = row("b", warnings=("<script>alert(1)</script>", "x" * 400), dice_before=None, dice_after=None)
    fill(tmp_path, [row("a"), hostile], [FailureRow("c & d", "/my/c.nii", "read", "no header <b>")])
    return tmp_path


def test_it_leads_to_what_is_there(out: Path) -> None:
    assert write_index(out) == ["index.html"]
    page = (out / "index.html").read_text(encoding="utf-8")
    found = links(page)
    assert {
        "qc/index.html",
        "precision/report.html",
        "metrics.tsv",
        "structures.tsv",
        "failures.tsv",
        "run.json",
    } <= set(found)
    assert "qc/a/index.html" in found and "qc/b/index.html" not in found
    assert "a/log.txt" in found and "b/log.txt" not in found and "precision/report.csv" not in found
    assert all((out / name).is_file() for name in found)
    assert "2 scans registered, 1 failed." in page and "SIMULATED" in page
    assert "&lt;script&gt;alert(1)" in page and "<b>" not in page and "c &amp; d" in page


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    page = build_index(tmp_path)
    assert "0 scans registered, none failed." in page and "--outputs qc draws pictures" in page
    assert links(page) == ["SHA256SUMS"]


def test_a_large_cohort_shows_the_first_and_points_to_the_table(tmp_path: Path) -> None:
    fill(tmp_path, [row(f"sub-{n:04d}") for n in range(MOST_ROWS + 7)], [])
    page = build_index(tmp_path)
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 7} scans" in page and len(page) < 300 * MOST_ROWS
    assert len(re.findall(r">sub-\d{4}<", page)) == MOST_ROWS


@pytest.mark.parametrize(
    "content", [b"", b"subject\nx", b"a\tb\n1\t2\n", b"\xff\xfe\x00", b"subject\tdice_before\na\tb\tc\n"]
)
def test_a_damaged_table_does_not_stop_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.tsv").write_bytes(content)
    assert "Registration results" in build_index(tmp_path)


def test_it_fits_every_width_and_paper(out: Path) -> None:
    browser.needs_browser()
    write_index(out)
    browser.assert_fits(out / "index.html", (400, 768, 1280))
    assert browser.console_messages(out / "index.html") == []
    assert "prefers-color-scheme: dark" in (out / "index.html").read_text(encoding="utf-8")
    assert browser.requests_of(out / "index.html") == []
