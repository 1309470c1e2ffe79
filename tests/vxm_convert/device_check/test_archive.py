# SPDX-License-Identifier: Apache-2.0
"""Archives: what goes in, what is taken out, and what a hostile or damaged one does."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Dict, List

import pytest

from vxm_convert.__main__ import main
from vxm_convert.artifacts.reports import report_head
from vxm_convert.device_check.archive import ARCHIVE_NAME, CHECK_NAME, read_archive, write_archive, write_check
from vxm_convert.device_check.assumptions import ASSUMPTIONS, assumption_table
from vxm_convert.device_check.comparison import lines_of
from vxm_convert.device_check.page import build_page
from vxm_convert.device_check.points import DIFFERS, FAILED, MEASURED, Point, Rung, sentence_of
from vxm_convert.device_check.scrub import Scrubber
from vxm_convert.errors import ArtifactError, FormatError, VxmError


def unchanged(text: str) -> str:
    return text


def rungs() -> List[Rung]:
    points = [
        Point("conv3d, force_fp16: rounding", DIFFERS, "to nearest", "it rounds toward zero", "rounding"),
        Point("gather: time", DIFFERS, "20 cycles", "90 cycles", "gather_speed"),
        Point("chip", FAILED, "Ascend910A", "Ascend310", "", "pass --soc-version Ascend310"),
        Point("copies to host", MEASURED, "", "3.1 GB/s"),
    ]
    return [Rung("conv3d", "Does it?", points, 1.5)]


def written(folder: Path, simulated: bool = False) -> Path:
    head: Dict[str, Any] = report_head("device-check", {"kind": "cann", "version": "8.1"}, simulated, 4)
    check = write_check(folder, {**head, "soc_version": "Ascend910A"}, rungs(), unchanged)
    return write_archive(folder, [(CHECK_NAME, check)], unchanged)


def test_a_comparison_names_the_assumptions_and_where_they_are(tmp_path: Path, capsys: Any) -> None:
    assert main(["device-check", "--compare", str(written(tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "REAL device; toolchain 8.1, chip Ascend910A"
    assert "assumption rounding: fp32 becomes fp16 by rounding to nearest, ties to even (source)" in lines
    assert any("docs/precision.md" in line and "vxm_convert/sim/numerics.py" in line for line in lines)
    assert any("correct export/preflight/estimate/speeds.py" in line for line in lines)
    assert "touches no assumption about the device, but the installation or the run:" in lines
    assert "measured: copies to host: 3.1 GB/s" in lines


def test_the_page_of_a_device_that_differs(tmp_path: Path) -> None:
    data, found = read_archive(written(tmp_path))
    page = build_page(data, found)
    assert "Different from the prediction: 2, failed: 1, as predicted: 0" in page and "SIMULATED" not in page
    assert "it rounds toward zero" in page and "touches the assumption" in page
    assert "pass --soc-version Ascend310" in page


def test_sentences() -> None:
    assert [sentence_of(point) for point in rungs()[0].points] == [
        "conv3d, force_fp16: rounding: differs: predicted to nearest, found it rounds toward zero",
        "gather: time: differs: predicted 20 cycles, found 90 cycles",
        "chip: failed: Ascend310; do this: pass --soc-version Ascend310",
        "copies to host: measured: 3.1 GB/s",
    ]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda p: p.write_bytes(b""), "device-check.zip: "),
        (lambda p: p.write_bytes(b"PK\x03\x04 and no more"), "is no archive of a check"),
        (lambda p: p.write_bytes(b"[1, 2]"), "holds no device-check of schema 1"),
        (lambda p: p.write_text(json.dumps({"kind": "device-check", "check_schema": 1})), "has no list of rungs"),
        (
            lambda p: p.write_text(
                json.dumps({"kind": "device-check", "check_schema": 1, "rungs": [{"points": [{"state": "fine"}]}]})
            ),
            "expected a state of",
        ),
        (
            lambda p: p.write_text(
                json.dumps(
                    {
                        "kind": "device-check",
                        "check_schema": 1,
                        "rungs": [{"points": [{"state": "differs", "name": 3}]}],
                    }
                )
            ),
            "an entry that is no text",
        ),
    ],
)
def test_damaged_archives_are_refused(tmp_path: Path, make: Any, words: str) -> None:
    path = tmp_path / ARCHIVE_NAME
    make(path)
    with pytest.raises(FormatError, match=words):
        lines_of(path)


def test_an_archive_without_a_check(tmp_path: Path) -> None:
    path = tmp_path / ARCHIVE_NAME
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("something", "else")
    with pytest.raises(FormatError, match="is no archive of a check"):
        lines_of(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / ARCHIVE_NAME
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CHECK_NAME, b" " * (40 << 20))
    with pytest.raises(FormatError, match="longer than"):
        lines_of(path)


def test_a_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        lines_of(tmp_path / "none.zip")


def test_models_do_not_go_into_an_archive(tmp_path: Path) -> None:
    (tmp_path / "vxm.om").write_bytes(b"device code")
    with pytest.raises(VxmError, match="do not go into an archive"):
        write_archive(tmp_path, [("vxm.om", tmp_path / "vxm.om")], unchanged)


def test_long_logs_are_cut_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "atc.log").write_text("first\n" + "x" * (3 << 20) + "\nlast\n")
    with zipfile.ZipFile(str(write_archive(tmp_path, [("atc.log", tmp_path / "atc.log")], unchanged))) as archive:
        text = archive.read("atc.log").decode("utf-8")
    assert len(text) < 1.1 * (1 << 20) and text.startswith("first\n") and text.endswith("\nlast\n") and "cut" in text


def test_names_are_taken_out(tmp_path: Path) -> None:
    scrub = Scrubber([(tmp_path / "out", "OUT")], ["gauss", "node17", "root", "ab"])
    text = f"{tmp_path}/out/work: gauss@node17.local wrote node171 as root, ab"
    assert scrub(text) == "OUT/work: NAME@NAME.local wrote node171 as root, ab" or "OUT/work" in scrub(text)
    assert "gauss" not in scrub(text) and "node171" in scrub(text) and "as root" in scrub(text)


def test_the_table_of_the_document_is_the_list_of_assumptions(project_root: Path) -> None:
    document = (project_root / "docs" / "precision.md").read_text(encoding="utf-8")
    assert assumption_table() in document
    assert len({assumption.key for assumption in ASSUMPTIONS}) == len(ASSUMPTIONS)


def test_the_sections_and_files_that_assumptions_name_exist(project_root: Path) -> None:
    for assumption in ASSUMPTIONS:
        document, _, section = assumption.stated.partition(", ")
        text = (project_root / document).read_text(encoding="utf-8")
        assert not section or f"## {section}" in text, assumption.stated
        file = assumption.corrected.split(" and ")[0]
        assert file == "—" or (project_root / file).exists(), file
