# SPDX-License-Identifier: Apache-2.0
"""What must not grow with the cohort: time per scan, memory, and the time of a run over finished scans."""

from __future__ import annotations

import os
import shutil
import sys
import time

import psutil
import pytest

from om_runner.names import STATE_FOLDER
from tests.support import fakes
from tests.support.registration_bench import Bench

MANY, HUNDRED = 2000, 100


def say(text: str) -> None:
    """The measured figures, seen with ``-s``."""
    sys.stdout.write(text + "\n")


@pytest.mark.slow
def test_two_thousand_scans_cost_the_same_from_first_to_last(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    first = fakes.write_scan(bench.inputs / "s0000.npz", 1)
    for number in range(1, MANY):
        shutil.copyfile(str(first), str(bench.inputs / f"s{number:04d}.npz"))
    memory = []
    real = bench.runtime._run

    def run(feeds):
        bench.runtime.fed.clear()
        memory.append(psutil.Process().memory_info().rss)
        return real(feeds)

    monkeypatch.setattr(bench.runtime, "_run", run)
    assert bench.run("--outputs", "moved", "--threads", "1") == 0
    times = sorted(os.stat(str(p)).st_mtime for p in (bench.out / STATE_FOLDER).glob("s*.json"))
    early, late = times[2 * HUNDRED] - times[HUNDRED], times[-1] - times[-1 - HUNDRED]
    say(
        f"hundred scans: {early:.2f} s early, {late:.2f} s late; memory {memory[HUNDRED] >> 20} to {memory[-1] >> 20} MiB"
    )
    assert late < 1.1 * early + 0.5 and memory[-1] < 1.1 * memory[HUNDRED]
    begun = time.time()
    assert bench.run("--outputs", "moved") == 0
    say(f"again over finished scans: {time.time() - begun:.1f} s")
    assert time.time() - begun < 20
