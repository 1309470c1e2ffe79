# SPDX-License-Identifier: Apache-2.0
"""The benchmark of growth: each run gets exactly the scans that its row counts. Times are not tested."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import List

import pytest

from scripts.benchmark import scaling

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


@pytest.mark.parametrize("count", [1, 3])
def test_a_run_gets_the_first_scans(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = tmp_path / "cohort" / "scans"
    scans.mkdir(parents=True)
    for number in range(4):
        (scans / f"sub-{number}.npz").write_bytes(b"")
    asked: List[List[str]] = []
    monkeypatch.setattr(
        scaling,
        "run_stage",
        lambda words: asked.append(words) or SimpleNamespace(seconds=2.0, cpu_seconds=1.0, peak_bytes=1 << 30),
    )
    monkeypatch.setattr(scaling, "read_table", lambda path: [{"device_seconds": "0.25"}] * count)
    figures = scaling._register(tmp_path, count)
    given = asked[0][asked[0].index("--input") + 1 : asked[0].index("--atlas")]
    assert given == [str(scans / f"sub-{number}.npz") for number in range(count)]
    # A run that considers a part of a folder ends with an error: scans are missing.
    assert "--limit" not in asked[0]
    assert figures == {"seconds": 2.0, "cpu_seconds": 1.0, "peak_gib": 1.0, "device_seconds": 0.25 * count}
