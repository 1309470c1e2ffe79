# SPDX-License-Identifier: Apache-2.0
"""What demo and bench share: stages in processes of their own, folders that may be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.stages import StageFailed, column_mean, fresh_folder, read_table, run_stage
from vxm_convert.errors import ArtifactError

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


def test_a_stage_that_fails_hands_on_its_exit_code(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="exit code 1") as caught:
        run_stage(["vxm_convert", "verify", str(tmp_path / "none")])
    assert caught.value.exit_code == 1


def test_a_stage_that_works_is_measured(tmp_path: Path) -> None:
    ran = run_stage(["vxm_convert", "phantom", "--out", str(tmp_path / "c"), "--shape", "16,16,16", "--subjects", "1"])
    assert 0.0 < ran.seconds < 120.0
    assert ran.peak_bytes > 10 << 20


def test_only_a_folder_of_our_own_is_removed(tmp_path: Path) -> None:
    folder = fresh_folder(tmp_path / "out")
    (folder / "old.txt").write_text("x")
    assert not (fresh_folder(folder) / "old.txt").exists()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(ArtifactError, match="not made here"):
        fresh_folder(precious)
    assert (precious / "thesis.txt").exists()


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("subject\tdice\na\t0.5\nb\t0.7\n")
    assert column_mean(read_table(tmp_path / "t.tsv"), "dice") == pytest.approx(0.6)
    with pytest.raises(ArtifactError):
        read_table(tmp_path / "none.tsv")
