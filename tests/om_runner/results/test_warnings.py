# SPDX-License-Identifier: Apache-2.0
"""Every warning about a scan stands in the table, in its record and on both pages, with its likeliest cause."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from om_runner.__main__ import main
from om_runner.qc.cohort_page import worst_first
from om_runner.qc.record import read_records
from om_runner.results.columns import WARNINGS_JOINT, MetricsRow
from om_runner.results.subject_log import log_text, warnings_in
from tests.support import fakes
from tests.support.registration_bench import Bench
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans import checks

FLIP = "left/right flip suspected"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    fakes.write_scan(made.inputs / "flipped.npz", 1)
    fakes.write_scan(made.inputs / "plain.npz", 2, with_seg=False)
    return made


def test_a_warning_is_in_the_table_and_the_record(bench):
    assert bench.run() == 0
    flipped, plain = bench.table("metrics.tsv")
    assert flipped["warnings"].startswith(FLIP), "without level and file in front"
    assert "\t" not in flipped["warnings"] and str(bench.inputs) not in flipped["warnings"]
    assert plain["warnings"] == "n/a"
    record = json.loads((bench.out / ".om_runner" / "flipped.json").read_text(encoding="utf-8"))
    assert WARNINGS_JOINT.join(record["row"]["warnings"]) == flipped["warnings"]
    before = (bench.out / "metrics.tsv").read_bytes()
    assert bench.run() == 0 and (bench.out / "metrics.tsv").read_bytes() == before, (
        "a row that is taken over keeps them"
    )


def test_a_warning_marks_both_pages_and_sorts_the_scan_first(bench):
    assert bench.run("--outputs", "moved,warp,seg,qc") == 0
    records = {record.subject: record for record in read_records(bench.out / "qc")}
    assert any(FLIP in text for text in records["flipped"].warnings)
    assert len(set(records["flipped"].warnings)) == len(records["flipped"].warnings)
    for page in ("index.html", "flipped/index.html"):
        assert FLIP in (bench.out / "qc" / page).read_text(encoding="utf-8"), page
    assert "No warning" not in (bench.out / "qc" / "flipped" / "index.html").read_text(encoding="utf-8")
    counts = {name: len(record.warnings) for name, record in records.items()}
    assert worst_first(list(records.values()))[0].subject == max(counts, key=counts.get)
    rows = {row["subject"]: row["warnings"] for row in bench.table("metrics.tsv")}
    for name, record in records.items():
        shown = [text.replace(WARNINGS_JOINT, ", ") for text in record.warnings]
        assert rows[name] == (WARNINGS_JOINT.join(shown) or "n/a"), "what the pictures found is in the table too"


def test_pages_that_are_drawn_later_have_the_warnings_of_the_run(bench):
    assert bench.run() == 0
    assert main(["qc", "--registered", str(bench.out)]) == 0
    (record,) = [r for r in read_records(bench.out / "qc") if r.subject == "flipped"]
    assert any(text.startswith(FLIP) for text in record.warnings)


def test_one_warning_is_one_cell():
    notes = ["WARNING: /data/a\nb.nii: odd; and\todd", "WARNING: s: odd", "WARNING: s: odd", "ERROR: x: \x1b[2Jx"]
    found = warnings_in(notes, "s", (Path("/data/a\nb.nii"), None))
    assert found == ("odd, and odd", "odd", "x: \\x1b[2Jx")


def test_a_line_break_in_a_name_forges_no_line_of_the_log():
    text = log_text({"scan": "a\nregistered: dice_after 1"}, ["WARNING: a\nregistered: fine"], {}, "registered: none")
    assert [line for line in text.splitlines() if line.startswith("registered")] == ["registered: none"]


def test_a_row_from_json_equals_the_row():
    values = {name: 0.5 for name in ("dice_before", "dice_after", "folding_fraction", "jacobian_min", "flow_max_voxel")}
    values.update(subject="a", n_labels=1, label_set="x", device_seconds=1.0, total_seconds=1.0)
    values.update(intensity="i", toolchain="simulated", source="a.nii")
    assert MetricsRow(**values, warnings=["a", "b"]) == MetricsRow(**values, warnings=("a", "b"))


def labels(*ids):
    """Structures one behind the other along the left axis, the first on the right."""
    grid = Grid((16, 8, 8), np.diag([1.0, 1.0, 1.0, 1.0]))
    seg = np.zeros(grid.shape, np.int16)
    for at, label in enumerate(ids):
        seg[15 - at] = label
    return seg, grid


def test_foreign_ids_are_not_a_flip():
    """Numbers of another tool put "left" ids anywhere: the ids are the cause to name."""
    seg, grid = labels(4, 11, 23, 30, 31, 32, 36, 37, 38, 39, 44, 45, 46, 47)
    (doubt,) = checks.image_doubts(np.zeros(grid.shape, np.float32) + seg, grid, seg)
    assert "not FreeSurfer's" in doubt and "flip" not in doubt and "--orientation" not in doubt
    seg, grid = labels(2, 3, 17, 41, 42, 53)
    (doubt,) = checks.image_doubts(np.zeros(grid.shape, np.float32) + seg, grid, seg)
    assert "flip suspected" in doubt, "FreeSurfer's own ids are judged as before"


@pytest.mark.parametrize(
    "given, said, not_said",
    [
        ("none", "see --affine auto", "--affine FILE"),
        ("auto", "--affine FILE", "--affine auto"),
        ("a.lta", "check its file", "--affine auto"),
    ],
)
def test_no_doubt_advises_what_was_given(given, said, not_said):
    grid = Grid((32, 8, 8), np.diag([2.0, 1.0, 1.0, 1.0]))
    here, there = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    here[:8], there[-8:] = 1, 1
    doubt = checks.distance_doubt(here, grid, there, grid, given)
    assert said in doubt and not_said not in doubt


def test_doubts_reach_the_table_for_every_way_to_say_them(bench, monkeypatch):
    """Whatever a reading or a writing thread warns of, from whatever module."""
    from om_runner.registration import outcome

    real = outcome.register

    def saying(*args):
        logging.getLogger("anything").warning("said while products were made")
        return real(*args)

    monkeypatch.setattr(outcome, "register", saying)
    assert bench.run() == 0
    assert all("said while products were made" in row["warnings"] for row in bench.table("metrics.tsv"))
