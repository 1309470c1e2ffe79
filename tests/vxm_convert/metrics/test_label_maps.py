# SPDX-License-Identifier: Apache-2.0
"""Labels of one tool as those of another: the packaged tables against names of the tools, files, what is lost."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest

from vxm_convert.errors import VolumeError
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.metrics.labels import LABEL_MAPS, LABEL_NAMES
from vxm_convert.metrics.numbering import are_foreign

pytestmark = pytest.mark.any_python("text and NumPy arrays")


def rows(name: str):
    path = Path(__file__).resolve().parents[3] / "vxm_convert" / "metrics" / f"{name}.tsv"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_names_of_packaged_tables_are_those_of_freesurfer(name: str) -> None:
    for row in rows(name):
        known = LABEL_NAMES.get(int(row["to"]))
        assert known is None or known == row["name"], row
        assert ("Left" in row["name"]) == (int(row["to"]) in (2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 17, 18, 26, 28)), row


def test_synthseg() -> None:
    """Its 32 structures have FreeSurfer's ids; every parcel of the cortex is cortex of its side."""
    found = load_label_map("synthseg").to
    assert len(set(found.values())) == 32 and len(found) == 32 + 2 * 34
    assert all(found[label] == label for label in found if label < 1000)
    assert {found[label] for label in found if 1000 < label < 2000} == {3}
    assert {found[label] for label in found if label > 2000} == {42}


def test_neuromorphometrics() -> None:
    """Of the 134 labels, right ones of the cortex are even; 30 others have a structure in FreeSurfer."""
    found = load_label_map("neuromorphometrics").to
    cortex = [label for label in found if label >= 100]
    assert len(cortex) == 98 and all(found[label] == (3 if label % 2 else 42) for label in cortex)
    assert len(found) == 98 + 30 and len(set(found.values())) == 32
    pairs = [
        (47, 48),
        (31, 32),
        (36, 37),
        (57, 58),
        (59, 60),
        (51, 52),
        (55, 56),
        (23, 30),
        (61, 62),
        (44, 45),
        (38, 39),
    ]
    names = {int(row["from"]): row["name"] for row in rows("neuromorphometrics")}
    for right, left in pairs:
        assert names[right].replace("Right-", "Left-") == names[left] != names[right]
    assert names[47] == "Right-Hippocampus" and names[35] == "Brain-Stem" and names[4] == "3rd-Ventricle"
    assert are_foreign(found) and not are_foreign(found.values())


def test_what_a_table_does_not_have_is_counted_and_said(tmp_path: Path, caplog) -> None:
    (tmp_path / "m.tsv").write_text("# mine\nTO\tfrom\n  # the left side\n17\t1\n17\t2\n0\t5\n53\t900000\n")
    mapped = load_label_map(str(tmp_path / "m.tsv"))
    seg = np.array([[0, 1, 2, 5], [7, 7, 900000, 12]])
    with caplog.at_level(logging.WARNING):
        assert mapped.apply(seg, "x.nii").tolist() == [[0, 17, 17, 0], [0, 0, 53, 0]]
    assert (
        "x.nii: 2 of its 6 labels (3 voxels) are not in the label map m.tsv and become background: 7, 12" in caplog.text
    )
    caplog.clear()
    assert not mapped.apply(np.full((2, 2), 7), "y", quiet=True).any() and not caplog.records
    assert mapped.apply(np.array([1, 5, 900000]), "z").dtype == np.int32 and not caplog.records


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "its first line says nothing, expected the columns from, to"),
        (b"a\tb\n1\t2\n", "its first line says a, b"),
        (b"from\tto\tfrom\n1\t2\t3\n", "expected the columns"),
        (b"from\tto\n", "maps no label"),
        (b"from\tto\n1\n", "line 2: 1 cells, expected 2"),
        (b"from\tto\nx\t2\n", "line 2: from 'x', expected a label"),
        (b"from\tto\n1\t-2\n", "line 2: to '-2'"),
        (b"from\tto\n1\t99999999999\n", "line 2: to '99999999999'"),
        (b"from\tto\n1\t2\n1\t3\n", "line 3: label 1 appears twice; remove the line"),
        (b"from\tto\n0\t3\n", "line 2: label 0 is background"),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.tsv"
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=said):
        load_label_map(str(path))


def test_a_name_that_is_none() -> None:
    with pytest.raises(VolumeError, match="got 'synthsegg', expected one of neuromorphometrics, synthseg or a file"):
        load_label_map("synthsegg")
