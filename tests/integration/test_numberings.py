# SPDX-License-Identifier: Apache-2.0
"""Segmentations with the numbers of another tool, and scans on another scale than the atlas: the runner, the training,
its evaluation and the preparation say so, and none of them scores structures under the names of others.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.support import fakes
from tests.support.foreign_labels import other
from tests.support.registration_bench import Bench
from train.__main__ import main
from train.data.checks import check_cohort
from train.data.cohort import read_cohort
from train.prepare.loaded import to_unit
from train.settings.run import DataSettings
from vxm_convert.errors import VolumeError
from vxm_convert.metrics import numbering
from vxm_convert.metrics.labels import load_label_set
from vxm_convert.metrics.numbering import ids_in
from vxm_convert.scans.scan_file import ScanFile


def test_ids_in_any_array():
    assert ids_in(np.array([[3, 0], [3, 70000]])) == [0, 3, 70000] and ids_in(np.array([5, -2, 5])) == [-2, 5]
    assert ids_in(np.array([[4, 1], [1, 0]], np.int16)) == [0, 1, 4] and ids_in(np.zeros(0, np.int16)) == []


def test_ids_of_a_large_array_are_counted_in_parts(monkeypatch):
    seg = np.zeros((7, 5, 3), np.uint8)
    seg[0, 0, 0], seg[3, 2, 1], seg[6, 4, 2] = 9, 4, 200
    monkeypatch.setattr(numbering, "_AT_A_TIME", 8)
    assert ids_in(seg) == ids_in(seg.transpose()) == [0, 4, 9, 200]


def test_the_runner_makes_no_dice_of_other_structures(tmp_path, monkeypatch, caplog):
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "ours.npz", 1)
    fakes.write_scan(bench.inputs / "theirs.npz", 2, seg=other(2))
    assert bench.run() == 0
    ours, theirs = bench.table("metrics.tsv")
    assert float(ours["dice_after"]) > 0.5 and theirs["dice_after"] in ("", "n/a")
    assert "not FreeSurfer's" in theirs["warnings"] and "no Dice is computed" in theirs["warnings"]
    assert "flip" not in theirs["warnings"]


def test_an_atlas_of_other_numbers_makes_no_dice_at_all(tmp_path, monkeypatch, caplog):
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.atlas, 0, seg=other(0))
    fakes.write_scan(bench.inputs / "a.npz", 1)
    assert bench.run() == 0
    assert bench.table("metrics.tsv")[0]["dice_after"] in ("", "n/a")
    assert [r for r in caplog.records if "atlas.npz: label ids 1, 20, 35 are not FreeSurfer's" in r.getMessage()]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    fakes.write_scan(tmp_path / "atlas.npz", 0)
    fakes.write_scan(tmp_path / "scans" / "a.npz", 1)
    fakes.write_scan(tmp_path / "scans" / "b.npz", 2, seg=other(2))
    return tmp_path


def check(scans: Path, labels: str = "") -> None:
    atlas = scans / "atlas.npz"
    cohort = read_cohort(DataSettings(scans / "scans", atlas), 0)
    check_cohort(cohort, atlas, atlas, fakes.SHAPE, False, load_label_set(labels) if labels else None)


def test_training_and_evaluation_refuse_to_score_them(scans, capsys):
    check(scans)
    with pytest.raises(VolumeError, match="b.npz +ids 1, 20, 35 are not FreeSurfer's"):
        check(scans, "paper30")
    (scans / "mine.txt").write_text("1 left\n20 right\n35 middle\n2 a\n41 b\n16 c\n")
    check(scans, str(scans / "mine.txt"))
    words = ["--data", str(scans / "scans"), "--atlas", str(scans / "atlas.npz"), "--out", str(scans / "out")]
    assert main(words + ["--device", "cpu", "--dice-weight", "1"]) == 1
    assert "are not FreeSurfer's" in capsys.readouterr().err and not (scans / "out").exists()


@pytest.mark.parametrize("factor, said", [(0.1, "times apart"), (0.5, "times apart"), (0.65, ""), (1.0, "")])
def test_a_scan_on_another_scale_than_the_atlas(scans, factor, said, caplog):
    """Values of 0..0.05 lie within 0..1 and are no brain for the network."""
    (scans / "scans" / "b.npz").unlink()
    image = fakes.brain(1)[0].astype(np.float32) / 255 * factor
    fakes.write_scan(scans / "scans" / "c.npz", 1, vol=image)
    if said:
        with pytest.raises(
            VolumeError, match="c.npz +the median of its brain is .* times apart; scale the scans alike"
        ):
            check(scans)
        return
    check(scans)
    doubted = [r for r in caplog.records if "times apart" in r.getMessage() and r.levelno == logging.WARNING]
    assert bool(doubted) == (factor < 1 / 1.4)


def test_the_preparation_takes_the_percentile_for_such_a_scan(scans, caplog):
    image = fakes.brain(1)[0].astype(np.float32) / 255
    np.savez(str(scans / "dim.npz"), vol=image * np.float32(0.05))
    dim, normal = ScanFile(scans / "dim.npz").image(), ScanFile(scans / "atlas.npz").image()
    beside, rule = to_unit(normal, "convention")
    assert rule.startswith("0..255")
    with pytest.raises(VolumeError, match="times apart; pass --intensity percentile"):
        to_unit(dim, "convention", beside)
    scaled, rule = to_unit(dim, "auto", beside)
    assert "99.9 %" in rule and 0.4 < np.percentile(scaled[scaled > 0], 99) < 0.6
    assert "scaled by its own percentile instead" in caplog.text


def test_the_preparation_makes_no_dice_of_other_structures(scans):
    pytest.importorskip("SimpleITK")
    words = ["prepare", "--data", str(scans / "scans"), "--out", str(scans / "out"), "--shape", "16,16,32"]
    words += ["--reference", str(scans / "atlas.npz"), "--tool", "simpleitk", "--transform", "rigid", "--jobs", "0"]
    assert main(words) == 0
    ours, theirs = (json.loads((scans / "out" / "scans" / f"{name}.npz.json").read_text()) for name in "ab")
    assert ours["after"]["dice"] is not None and theirs["after"]["dice"] is None
    assert any("not FreeSurfer's" in warning for warning in theirs["warnings"])
