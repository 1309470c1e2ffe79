# SPDX-License-Identifier: Apache-2.0
"""What must not grow with the cohort: time per scan, memory, and the time of a run over finished scans."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time

import psutil
import pytest

from om_runner.cluster.engine import ClusterEngine
from om_runner.names import STATE_FOLDER
from tests.support import fakes, worker_preload
from tests.support.cluster_bench import PRELOAD, ClusterBench
from tests.support.registration_bench import Bench

MANY, HUNDRED = 2000, 100

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_is_kept():
    """pytest keeps every line that is logged, 6 KB per scan."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def fill(bench):
    first = fakes.write_scan(bench.inputs / "s0000.npz", 1)
    for number in range(1, MANY):
        shutil.copyfile(str(first), str(bench.inputs / f"s{number:04d}.npz"))


def noting_memory(real, memory):
    """Notes the memory of this process with every call."""

    def call(*args):
        memory.append(psutil.Process().memory_info().rss)
        return real(*args)

    return call


def check_costs(bench, memory):
    """The figures are seen with ``-s``."""
    times = sorted(os.stat(str(p)).st_mtime for p in (bench.out / STATE_FOLDER).glob("s*.json"))
    assert len(times) == len(memory) == MANY
    early, late = times[2 * HUNDRED] - times[HUNDRED], times[-1] - times[-1 - HUNDRED]
    sys.stdout.write(
        f"hundred scans: {early:.2f} s early, {late:.2f} s late; memory {memory[HUNDRED] >> 20} to {memory[-1] >> 20} MiB\n"
    )
    assert late < 1.1 * early + 0.5 and memory[-1] < 1.1 * memory[HUNDRED]
    begun = time.time()
    assert bench.run("--outputs", "moved", "--model", str(bench.model.om_path)) == 0
    sys.stdout.write(f"again over finished scans: {time.time() - begun:.1f} s\n")
    assert time.time() - begun < 20


def test_two_thousand_scans_cost_the_same_from_first_to_last(tmp_path, monkeypatch):
    bench, memory = Bench(tmp_path, monkeypatch), []
    fill(bench)
    noted = noting_memory(bench.runtime._run, memory)

    def run(feeds):
        bench.runtime.fed.clear()
        return noted(feeds)

    monkeypatch.setattr(bench.runtime, "_run", run)
    assert bench.run("--outputs", "moved", "--threads", "1") == 0
    check_costs(bench, memory)


def test_two_thousand_scans_over_two_devices_cost_the_same_from_first_to_last(tmp_path, monkeypatch):
    import dask

    # Its defaults would go with the setting, were they read within it.
    import distributed  # noqa: F401

    behaviour, memory = tmp_path / "behaviour.json", []
    behaviour.write_text(json.dumps({}), encoding="utf-8")
    monkeypatch.setenv(worker_preload.VARIABLE, str(behaviour))
    monkeypatch.setattr(ClusterEngine, "_take", noting_memory(ClusterEngine._take, memory))
    with dask.config.set({"distributed.worker.preload": [PRELOAD]}):
        bench = ClusterBench(tmp_path, monkeypatch, 0)
        fill(bench)
        assert bench.register(ClusterEngine([0, 1]), "--outputs", "moved") == 0
    check_costs(bench, memory)
