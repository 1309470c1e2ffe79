# SPDX-License-Identifier: Apache-2.0
"""The cohort benchmark's own parts: scans as .nii.gz, what a run's figures come to, the table. Its runs are not
repeated here.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from scripts.benchmark import cohort
from scripts.stages import Ran
from vxm_convert.errors import ArtifactError
from vxm_convert.scans.scan_file import ScanFile

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


def figures(wall: float, device: float) -> dict:
    return {
        "simulated": True,
        "peak_gib": 0.2,
        "scans": 8,
        "wall_seconds": wall,
        "scans_per_second": 8 / wall,
        "device_seconds": device,
        "device_busy": device / wall,
        "host_cpu_seconds": 1.0,
        "model_load_seconds": 1.5,
        "first_execution_seconds": 0.7,
    }


def test_phantoms_become_scans_with_a_segmentation_beside_them(tmp_path):
    vol = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez_compressed(str(tmp_path / "sub-01.npz"), vol=vol, seg=vol.astype(np.int16) // 8)
    cohort._as_nifti(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sub-01.nii.gz", "sub-01_seg.nii.gz"]
    np.testing.assert_array_equal(ScanFile(tmp_path / "sub-01.nii.gz").image().data, vol)
    np.testing.assert_array_equal(ScanFile(tmp_path / "sub-01_seg.nii.gz").labels().data, vol // 8)


def test_a_run_without_timing_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "run_stage", lambda arguments: Ran(*[1.0] * len(Ran._fields)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(json.dumps({"simulated": True, "timing": None}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="no timing in run.json"):
        cohort._register(tmp_path, tmp_path / "vxm.om", tmp_path / "out")


def test_the_table_says_what_is_beyond_a_limit():
    result = {
        "machine": {"cpus": 2, "idle": False, "load_per_cpu": 3.0},
        "end_to_end": {"shape": [32, 32, 32], "over_bound": 1.25, **figures(10.0, 8.0)},
        "sleeping": {"seconds_per_scan": 0.3, **figures(10.0, 9.5)},
        "memory": {"few": figures(1, 1), "many": figures(1, 1), "growth": 0.01},
        "limits": {"over_bound": 1.1, "busy": 0.9, "growth": 0.05},
        "within": {"over_bound": False, "busy": True, "growth": True},
    }
    text = cohort.table(result)
    assert "wall over bound 1.250, BEYOND the limit of 1.1" in text and "busy 95.0 % of the time, within" in text
    assert "SIMULATED device" in text and "compare ratios, not seconds" in text
