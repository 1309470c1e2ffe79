# SPDX-License-Identifier: Apache-2.0
"""Label sets by name and from files."""

from __future__ import annotations

import pytest

from vxm_convert.errors import VolumeError
from vxm_convert.metrics.labels import load_label_set


def test_label_sets_by_name_and_from_files(tmp_path):
    assert (
        len(load_label_set("paper30").ids) == 30 and load_label_set("common24").names[2] == "Left-Cerebral-White-Matter"
    )
    (tmp_path / "lut.txt").write_text("# FreeSurfer\n17 Left-Hippocampus 220 216 20 0\n\n2\n", encoding="utf-8")
    (tmp_path / "dseg.tsv").write_text("index\tname\tcolor\n5\tmine\t#ff0000\n", encoding="utf-8")
    found = load_label_set(str(tmp_path / "lut.txt"))
    assert found.ids == (2, 17) and found.names == {2: "Left-Cerebral-White-Matter", 17: "Left-Hippocampus"}
    assert load_label_set(str(tmp_path / "dseg.tsv")).names == {5: "mine"}
    for text, message in (("", "0 labels"), ("a b\nc d\n", "expected a label id"), ("1 x\n1 y\n", "appears twice")):
        (tmp_path / "bad.txt").write_text(text, encoding="utf-8")
        with pytest.raises(VolumeError, match=message):
            load_label_set(str(tmp_path / "bad.txt"))
    with pytest.raises(VolumeError, match="expected one of common24"):
        load_label_set("paper31")
