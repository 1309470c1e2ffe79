# SPDX-License-Identifier: Apache-2.0
"""Pairs of random shapes: deterministic, all different, and their true flows really register them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.support.overlaps import mean_dice, pull
from vxm_convert.__main__ import main
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.metrics.labels import label_set
from vxm_convert.synthetic.heads import PhantomSettings
from vxm_convert.synthetic.shapes import make_pair, write_pairs

SMALL = PhantomSettings((32, 32, 48), subjects=2, seed=3)


def test_same_seed_same_files(tmp_path: Path) -> None:
    for name in "ab":
        assert write_pairs(tmp_path / name, SMALL) == tmp_path / name / "pairs.csv"
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 8
    for name in files:
        assert sha256_of(tmp_path / "a" / name) == sha256_of(tmp_path / "b" / name), name
    with open(str(tmp_path / "a" / "pairs.csv"), newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["moving"] for row in rows] == ["scans/pair-01_moving.npz", "scans/pair-02_moving.npz"]
    assert all((tmp_path / "a" / row[column]).is_file() for row in rows for column in ("moving", "fixed"))


def test_pairs_differ_and_each_shares_its_contrast() -> None:
    (moving, fixed), (_, other) = make_pair(SMALL, 0), make_pair(SMALL, 1)
    assert not np.array_equal(fixed.vol, other.vol)
    assert set(np.unique(fixed.seg)) <= set(label_set("paper30")) | {0}
    assert np.median(fixed.vol[fixed.seg == 0]) == 0 and fixed.vol.dtype == np.uint8
    large = [n for n in np.unique(fixed.seg)[1:] if min(np.sum(fixed.seg == n), np.sum(moving.seg == n)) > 150]
    means = [[float(head.vol[head.seg == n].mean()) for n in large] for head in (moving, fixed)]
    assert len(large) >= 8 and np.corrcoef(*means)[0, 1] > 0.95


@pytest.mark.parametrize("index", [0, 1])
def test_true_flow_registers(index: int) -> None:
    moving, fixed = make_pair(PhantomSettings((48, 48, 48), seed=1), index)
    before, after = mean_dice(fixed.seg, moving.seg), mean_dice(fixed.seg, pull(moving.seg, moving.flow, 0))
    assert after > before + 0.15 and after > 0.8
    error = np.abs(pull(moving.vol.astype(float), moving.flow, 1) - fixed.vol)
    assert error.mean() < 0.5 * np.abs(moving.vol.astype(float) - fixed.vol).mean()


def test_the_command_says_where_the_manifest_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    argv = ["phantom", "--kind", "shapes", "--out", str(tmp_path / "c"), "--shape", "16,16,32", "--subjects", "1", "-q"]
    assert main(argv) == 0
    assert f"pairs: {tmp_path / 'c' / 'pairs.csv'} (1)" in capsys.readouterr().out
