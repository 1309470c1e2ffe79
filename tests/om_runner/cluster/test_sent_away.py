# SPDX-License-Identifier: Apache-2.0
"""Workers whose device has too little memory or whose disk is full are sent away, with the reason; and what is said when
none is left.
"""

from __future__ import annotations

import threading
import time

import pytest

from om_runner.cluster import connect, engine
from om_runner.cluster.engine import ClusterEngine
from tests.support.cluster_bench import ClusterBench, Processes
from vxm_convert.errors import AclError, ArtifactError, ToolchainError
from vxm_convert.inspection.verify import first_broken, verify_folders

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    made = Processes(tmp_path_factory.mktemp("cluster"))
    made.start_scheduler()
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path, monkeypatch, processes):
    """Two workers that behave, and a cohort of eight."""
    processes.behave()
    processes.executed()
    processes.workers[:] = [worker for worker in processes.workers if worker.poll() is None]
    with connect.running_cluster(processes.address) as client:
        there = [name for _, name in connect.workers_of(client)]
        for device in (0, 1):
            if not any(name.startswith(f"device-{device}-") for name in there):
                processes.start_worker(device)
        while len(connect.workers_of(client)) < 2:
            time.sleep(0.05)
    return ClusterBench(tmp_path, monkeypatch, 8)


def clean(out):
    names = [path.name for path in out.rglob("*")]
    left = [name for name in names if name.startswith(".tmp-") or name in ("claims", "owners")]
    return not left and first_broken(verify_folders([out])) is None


def ended(processes):
    """The worker process that has ended, once there is one."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for worker in processes.workers:
            if worker.poll() is not None:
                return worker
        time.sleep(0.05)
    raise AssertionError("no worker has ended")


def test_a_device_with_too_little_memory_gets_no_scans(bench, processes, caplog):
    processes.behave(refuse=[1], sleep=0.02)
    assert bench.register(ClusterEngine(None, processes.address)) == 0
    assert len(bench.table("metrics.tsv")) == 8 and clean(bench.out)
    assert {device for _, device, _ in processes.executed()} == {"0"}
    assert "device 1 on " in caplog.text and "gets no scans: vxm.om: acl.rt.malloc returned 207001" in caplog.text
    assert ended(processes).returncode == 0
    assert "device 1: the scheduler has ended, or a run has sent this worker away" in processes.said()


def test_with_memory_for_one_set_of_buffers_a_device_is_slower_which_is_said_once(bench, processes, caplog):
    processes.behave(single=[1])
    assert bench.register(ClusterEngine(None, processes.address)) == 0
    assert [r.getMessage() for r in caplog.records if "continuing with 1 set of buffers" in r.getMessage()] == [
        next(r.getMessage() for r in caplog.records if r.getMessage().startswith("device 1 on "))
    ]


def test_a_worker_that_comes_later_with_too_little_memory_fails_no_scan(bench, processes, caplog):
    """Its scans would have lost a device each, and the next such worker would have failed them."""
    processes.workers.pop().terminate()
    processes.behave(refuse=[1], wait=True)

    def come():
        processes.start_worker(1)
        end = time.monotonic() + 180
        while "gets no scans" not in caplog.text and time.monotonic() < end:
            time.sleep(0.02)
        processes.behave(refuse=[1])

    comer = threading.Thread(target=come)
    comer.start()
    assert bench.register(ClusterEngine(None, processes.address)) == 0
    comer.join()
    assert len(bench.table("metrics.tsv")) == 8 and not bench.table("failures.tsv") and clean(bench.out)
    assert "device 1 on " in caplog.text and "gets no scans: vxm.om: acl.rt.malloc returned 207001" in caplog.text


def test_when_every_device_has_too_little_memory_nothing_starts(bench, processes):
    processes.behave(refuse=[0, 1])
    with pytest.raises(AclError, match="acl.rt.malloc returned 207001"):
        bench.register(ClusterEngine(None, processes.address))
    assert not bench.out.exists()


def test_a_full_disk_on_one_worker_sends_it_away_and_fails_no_scan(bench, processes, caplog):
    processes.behave(full=[1], sleep=0.1)
    assert bench.register(ClusterEngine(None, processes.address)) == 0
    assert len(bench.table("metrics.tsv")) == 8 and not bench.table("failures.tsv") and clean(bench.out)
    assert "device 1 on " in caplog.text and "has no room for results, its scans go to others: " in caplog.text
    assert "No space left on device" in caplog.text


def test_a_full_disk_on_all_workers_stops_the_run_with_one_message(bench, processes, caplog):
    for seed in range(9, 21):
        bench.add(f"s{seed:02d}", seed)
    processes.behave(full=[0, 1])
    with pytest.raises(
        ArtifactError, match=r"no room is left: \d scans in a row .*; free space and run the same command"
    ):
        bench.register(ClusterEngine(None, processes.address))
    assert len(processes.executed()) <= 12 and not bench.table("metrics.tsv")
    assert "goes to others" not in caplog.text and [worker.poll() for worker in processes.workers][-2:] == [None, None]
    processes.behave()
    assert bench.register(ClusterEngine(None, processes.address)) == 0
    assert len(bench.table("metrics.tsv")) == 20 and clean(bench.out)


def test_when_no_worker_is_left_it_is_said_at_once_and_ends_the_run_later(bench, processes, monkeypatch, caplog):
    monkeypatch.setattr(engine, "_WITHOUT_WORKERS", 3.0)
    processes.behave(sleep=0.3)

    def end():
        while not processes.log.read_text(encoding="utf-8"):
            time.sleep(0.02)
        for worker in processes.workers:
            worker.terminate()

    ender = threading.Thread(target=end)
    ender.start()
    with pytest.raises(
        ToolchainError, match="no worker is left; finished scans are kept; start workers again and run the"
    ):
        bench.register(ClusterEngine(None, processes.address))
    ender.join()
    assert f"{processes.address}: no worker is left; waiting 3 s for one" in caplog.text
