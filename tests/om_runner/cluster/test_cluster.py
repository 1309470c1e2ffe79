# SPDX-License-Identifier: Apache-2.0
"""A real scheduler and two workers in processes of their own: the bytes of one device, and what happens when workers,
devices and the scheduler are lost.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from om_runner.cluster import connect, engine
from om_runner.cluster.engine import ClusterEngine
from tests.support.cluster_bench import ClusterBench, Processes, started_client
from vxm_convert.errors import ToolchainError
from vxm_convert.inspection.verify import first_broken, verify_folders


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    made = Processes(tmp_path_factory.mktemp("cluster"))
    made.start_scheduler()
    for device in (0, 1):
        made.start_worker(device)
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path, monkeypatch, processes):
    processes.behave()
    processes.executed()
    return ClusterBench(tmp_path, monkeypatch, 8)


def wait_for_workers(address, count):
    with connect.running_cluster(address) as client:
        while len(connect.workers_of(client)) < count:
            time.sleep(0.05)


@contextmanager
def started(bench, processes):
    """A client in a process of its own, from the moment at which a device has begun."""
    with started_client(bench, processes.address) as client:
        while not processes.log.read_text(encoding="utf-8"):
            assert client.poll() is None, client.stderr.read()
            time.sleep(0.02)
        yield client


def nothing_left(out):
    names = [path.name for path in out.rglob("*")]
    return not [name for name in names if name.startswith(".tmp-") or name in ("claims", "owners")]


def test_two_devices_give_the_bytes_of_one(bench, processes, tmp_path, caplog):
    wait_for_workers(processes.address, 2)
    processes.behave(sleep=0.05)
    (bench.inputs / "s03.npz").write_bytes(b"broken")
    trace = tmp_path / "trace.json"
    with caplog.at_level("INFO"):
        assert bench.register(ClusterEngine(None, processes.address), "--trace", str(trace)) == 1
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["s01", "s02", "s04", "s05", "s06", "s07", "s08"]
    assert [(row["subject"], row["stage"]) for row in bench.table("failures.tsv")] == [("s03", "read")]
    executed = processes.executed()
    assert len(executed) == len({value for value, _, _ in executed}) == 7, "every scan once"
    assert {device for _, device, _ in executed} == {"0", "1"}
    assert nothing_left(bench.out) and first_broken(verify_folders([bench.out])) is None
    several = bench.volumes()
    bench.out = bench.out.with_name("single")
    assert bench.run() == 1 and bench.volumes("single") == several
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert [row["device"] for row in run["devices"]] == [0, 1] and sum(row["scans"] for row in run["devices"]) == 7
    assert sum(row["failed"] for row in run["devices"]) == 1 and all(0 < row["busy"] < 1 for row in run["devices"])
    assert "device 0 on " in caplog.text and "2 workers, all with the same versions, model and atlas" in caplog.text
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    lanes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert sorted(lanes.values())[:2] == [f"device {n} on {run['devices'][n]['host']}, SIMULATED" for n in (0, 1)]
    assert {lanes[event["pid"]][:8] for event in events if event["name"] == "execute"} == {"device 0", "device 1"}


def test_pairs_on_two_devices_give_the_bytes_of_one(bench, processes):
    wait_for_workers(processes.address, 2)
    names = ("s01", "s02", "s03")
    lines = [f"in/{a}.npz\tin/{b}.npz" for a in names for b in names if a != b]
    table = bench.inputs.with_name("pairs.tsv")
    table.write_text("\n".join(["moving\tfixed", *lines]))
    assert bench.register(ClusterEngine(None, processes.address), "--pairs", str(table)) == 0
    assert [row["subject"] for row in bench.table("metrics.tsv")] == [
        f"{a}__{b}" for a in names for b in names if a != b
    ]
    assert len(processes.executed()) == 6
    assert nothing_left(bench.out) and first_broken(verify_folders([bench.out])) is None
    several = bench.volumes()
    bench.out = bench.out.with_name("single")
    assert bench.run("--pairs", str(table)) == 0 and bench.volumes("single") == several


def test_a_scan_that_kills_two_workers_is_a_failure_and_the_others_are_done(bench, processes):
    processes.behave(kill=[bench.sums["s04"]], sleep=0.02)
    assert bench.register(ClusterEngine(None, processes.address)) == 1
    (failure,) = bench.table("failures.tsv")
    assert failure["subject"] == "s04" and "2 workers died while they registered it" in failure["reason"]
    assert len(bench.table("metrics.tsv")) == 7
    assert [value for value, _, _ in processes.executed()].count(f"{bench.sums['s04']:.3f}") == 2, "nobody's third"
    assert nothing_left(bench.out) and first_broken(verify_folders([bench.out])) is None
    wait_for_workers(processes.address, 2)


def test_scans_of_a_killed_worker_go_to_another(bench, processes):
    processes.behave(sleep=0.2)

    def kill():
        while "\n" not in processes.log.read_text(encoding="utf-8"):
            time.sleep(0.01)
        os.kill(int(processes.log.read_text(encoding="utf-8").split()[2]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert bench.register(ClusterEngine(None, processes.address)) == 0
    killer.join()
    assert len(bench.table("metrics.tsv")) == 8 and nothing_left(bench.out)
    wait_for_workers(processes.address, 2)


def test_a_scan_whose_worker_died_after_its_record_is_not_registered_again(bench, processes):
    processes.behave(kill_after=["s03"], sleep=0.02)
    assert bench.register(ClusterEngine(None, processes.address)) == 0
    executed = [value for value, _, _ in processes.executed()]
    assert executed.count(f"{bench.sums['s03']:.3f}") == 1 and len(bench.table("metrics.tsv")) == 8
    assert nothing_left(bench.out) and first_broken(verify_folders([bench.out])) is None
    wait_for_workers(processes.address, 2)


def test_two_runs_at_the_same_time_have_a_device_one_after_the_other(bench, processes, caplog):
    wait_for_workers(processes.address, 2)
    processes.behave(sleep=0.2)
    with started(bench, processes) as client:
        assert bench.register(ClusterEngine(None, processes.address), out="second") == 0
        said = client.communicate(timeout=120)[1]
    assert client.returncode == 0, said
    assert "another run works on this device; the scans of this one wait until it has ended" in caplog.text
    assert len(processes.executed()) == 16 and bench.volumes() == bench.volumes("second")
    assert (
        len(bench.table("metrics.tsv")) == 8 and nothing_left(bench.out) and nothing_left(bench.out.with_name("second"))
    )


def test_a_worker_with_another_model_is_named(bench, processes):
    wait_for_workers(processes.address, 2)
    processes.behave(other=[1])
    with pytest.raises(ToolchainError) as caught:
        bench.register(ClusterEngine(None, processes.address))
    said = str(caught.value)
    assert re.match(
        r"1 of 2 workers differ from this client: tcp://127.0.0.1:\d+ on \S+: om is ffffffffffff… there ", said
    )
    assert f"and {'0' * 12}… here" in said and said.endswith(
        "give all of them the same software and files, or stop these"
    )
    assert not bench.out.exists()


def test_a_worker_with_another_version_is_named(bench, processes, monkeypatch):
    true = engine.task.versions
    monkeypatch.setattr(engine.task, "versions", lambda: {**true(), "numpy": "0.1"})
    with pytest.raises(
        ToolchainError, match=r"2 of 2 workers differ from this client: tcp://.*numpy is .* there and 0.1"
    ):
        bench.register(ClusterEngine(None, processes.address))
    monkeypatch.undo()
    assert not bench.out.exists()


def test_a_worker_that_does_not_see_the_output_folder_is_named(bench, processes, monkeypatch):
    monkeypatch.setattr(engine, "OWNERS_FOLDER", "elsewhere")
    with pytest.raises(
        ToolchainError, match=rf"2 of 2 workers differ .* it does not see the output folder {bench.out}"
    ):
        bench.register(ClusterEngine(None, processes.address))


def test_sigterm_finishes_what_is_in_work_and_a_second_one_gives_it_back(bench, processes):
    for seed in range(9, 17):
        bench.add(f"s{seed:02d}", seed)
    processes.behave(sleep=0.3)
    with started(bench, processes) as client:
        client.send_signal(signal.SIGTERM)
        said = client.communicate(timeout=60)[1]
    assert client.returncode == 130 and "Traceback" not in said
    assert "stopping after the batch on the device and the results being written; send the signal again" in said
    executed = processes.executed()
    done = [row["subject"] for row in bench.table("metrics.tsv")]
    assert len(executed) == len(done) <= 6, "of two workers with two scans each; the others are not begun"
    assert f"{16 - len(done)} of 16 scans are still missing" in said and "stopped by the user; finished results" in said
    assert nothing_left(bench.out) and first_broken(verify_folders([bench.out])) is None

    processes.behave(sleep=2.0)
    with started(bench, processes) as client:
        client.send_signal(signal.SIGTERM)
        for line in client.stderr:
            if "send the signal again" in line:
                break
        client.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        said = client.communicate(timeout=60)[1]
    assert client.returncode == 130 and time.monotonic() - begun < 15 and "Traceback" not in said
    assert [row["subject"] for row in bench.table("metrics.tsv")] == done
    processes.behave()
    assert bench.register(ClusterEngine(None, processes.address)) == 0 and len(bench.table("metrics.tsv")) == 16
    assert nothing_left(bench.out) and first_broken(verify_folders([bench.out])) is None


def test_a_lost_scheduler_ends_the_client_with_one_message(bench, processes, monkeypatch):
    """The last test of this module: the scheduler ends."""
    monkeypatch.setattr(engine, "_WITHOUT_SCHEDULER", 1.0)
    processes.behave(sleep=0.3)

    def kill():
        while not processes.log.read_text(encoding="utf-8"):
            time.sleep(0.01)
        processes.scheduler.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(
        ToolchainError, match="the Dask scheduler is lost; finished scans are kept; .* run the same command"
    ):
        bench.register(ClusterEngine(None, processes.address))
    killer.join()
    for worker in processes.workers:
        worker.terminate()
        worker.wait(30)
    assert bench.run("--model", str(bench.model.om_path)) == 0 and len(bench.table("metrics.tsv")) == 8
    assert first_broken(verify_folders([bench.out])) is None


def test_no_scheduler_is_one_message(bench, monkeypatch):
    monkeypatch.setattr(connect, "_PATIENCE", 1)
    with pytest.raises(ToolchainError, match="no Dask scheduler answers there"):
        bench.register(ClusterEngine(None, "tcp://127.0.0.1:9"))
