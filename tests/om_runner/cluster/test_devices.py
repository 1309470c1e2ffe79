# SPDX-License-Identifier: Apache-2.0
"""Several devices of this host by ``--devices``: a lost and a hanging device, who listens where, and the options."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from om_runner import __main__ as cli
from om_runner.cluster import connect
from om_runner.cluster.engine import ClusterEngine
from om_runner.cluster.gate import Gate
from om_runner.options.cluster import devices_from
from om_runner.precision.store import CompareStore, save_arrays
from tests.support import worker_preload
from tests.support.cluster_bench import PRELOAD, ClusterBench, started_client
from vxm_convert.errors import AclError, ToolchainError


@pytest.fixture
def bench(tmp_path, monkeypatch):
    import dask

    # Its defaults would go with the setting, were they read within it.
    import distributed  # noqa: F401

    monkeypatch.setenv(worker_preload.VARIABLE, str(tmp_path / "behaviour.json"))
    with dask.config.set({"distributed.worker.preload": [PRELOAD]}):
        yield ClusterBench(tmp_path, monkeypatch, 6)


def behave(bench, **wanted):
    path = bench.out.with_name("behaviour.json")
    path.write_text(json.dumps({"log": str(bench.out.with_name("executed")), **wanted}), encoding="utf-8")


def listeners():
    """Addresses at which this process and its children listen."""
    mine = {process.pid for process in psutil.Process().children(recursive=True)} | {os.getpid()}
    return {c.laddr.ip for c in psutil.net_connections("inet") if c.pid in mine and c.status == psutil.CONN_LISTEN}


def test_scans_of_a_lost_device_go_to_the_other_and_nobody_listens_to_the_world(bench, caplog):
    behave(bench, lose=[1], sleep=0.1)
    heard = set()

    def listen():
        while not bench.out.with_name("executed").exists():
            time.sleep(0.02)
        heard.update(listeners())

    listener = threading.Thread(target=listen)
    listener.start()
    assert bench.register(ClusterEngine([0, 1])) == 0
    listener.join()
    assert heard == {connect.LOOPBACK}
    assert len(bench.table("metrics.tsv")) == 6 and not bench.table("failures.tsv")
    assert "device 1 on " in caplog.text and "is lost, its scans go to others: device 1 was lost" in caplog.text
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert [(row["device"], row["scans"]) for row in run["devices"]] == [(0, 6), (1, 0)]


@pytest.mark.slow
def test_when_all_devices_are_lost_one_message_says_so(bench):
    behave(bench, lose=[0, 1])
    with pytest.raises(AclError, match="all devices are lost: device . was lost"):
        bench.register(ClusterEngine([0, 1]))
    behave(bench)
    assert bench.run() == 0 and len(bench.table("metrics.tsv")) == 6


@pytest.mark.slow
def test_scans_of_a_hanging_device_go_to_the_other(bench, caplog):
    behave(bench, hang=[0], sleep=0.05)
    assert bench.register(ClusterEngine([0, 1]), "--device-timeout", "0.5") == 0
    assert len(bench.table("metrics.tsv")) == 6
    assert "device 0 on " in caplog.text and "has not finished an execution within 0.5 s" in caplog.text


@pytest.mark.slow
def test_a_second_sigterm_ends_the_workers_and_leaves_nothing(bench, caplog):
    behave(bench, sleep=3.0)
    with started_client(bench) as client:
        while not bench.out.with_name("executed").exists():
            assert client.poll() is None, client.stderr.read()
            time.sleep(0.02)
        client.send_signal(signal.SIGTERM)
        for line in client.stderr:
            if "send the signal again" in line:
                break
        client.send_signal(signal.SIGTERM)
        said = client.communicate(timeout=100)[1]
    assert client.returncode == 130 and "Traceback" not in said and "stopped by the user" in said
    names = [path.name for path in bench.out.rglob("*")]
    assert not [name for name in names if name.startswith(".tmp-") or name in ("claims", "owners")]
    behave(bench)
    assert bench.run() == 0 and len(bench.table("metrics.tsv")) == 6 and "was killed" not in caplog.text


def test_devices_are_named_counted_or_refused(monkeypatch, capsys):
    def parsed(*words):
        return cli.build_parser().parse_args(["--input", "i", "--atlas", "a", *words])

    assert devices_from(parsed("--devices", "0,2"), True) == [0, 2] and parsed().devices is None
    monkeypatch.setenv("VXM_SIM_DEVICES", "3")
    assert devices_from(parsed("--devices", "all"), True) == [0, 1, 2]
    monkeypatch.setattr("om_runner.options.cluster.device_nodes", lambda: (["davinci0", "davinci5"], []))
    assert devices_from(parsed("--devices", "all"), False) == [0, 5]
    monkeypatch.setattr("om_runner.options.cluster.device_nodes", lambda: ([], []))
    with pytest.raises(ToolchainError, match="this host has no device"):
        devices_from(SimpleNamespace(devices="all"), False)
    for words in (["--devices", "0,0"], ["--devices", "x"], ["--devices", "0", "--scheduler", "tcp://h:1"]):
        with pytest.raises(SystemExit):
            parsed(*words)


def test_a_worker_for_another_host_needs_an_address_to_listen_at(capsys):
    assert cli.main(["worker", "--scheduler", "tcp://192.0.2.1:8786"]) == 1
    assert "is on another host, which cannot reach a worker on 127.0.0.1" in capsys.readouterr().err


def test_a_gate_lets_many_in_or_one_alone():
    gate, inside, most, alone = Gate(), [], [], []

    def together():
        with gate.together():
            inside.append(1)
            time.sleep(0.02)
            most.append(len(inside))
            inside.pop()

    def apart():
        with gate.alone():
            alone.append(len(inside))
            time.sleep(0.02)
            alone.append(len(inside))

    threads = [threading.Thread(target=apart if n in (3, 5) else together) for n in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) > 1 and alone == [0, 0, 0, 0]


def test_arrays_of_a_worker_are_those_of_the_comparison(tmp_path):
    arrays = [np.full((2, 2, 2), value, np.float32) for value in range(5)]
    with CompareStore(tmp_path, 1) as store:
        stem = store.folder / "incoming-7"
        save_arrays(stem, arrays[0], None, arrays[1], arrays[2])
        store.adopt("s", str(stem))
        assert store.subjects == ["s"] and not store.wants_more
        assert [float(store.get("s", what)[0, 0, 0]) for what in ("moving", "moved", "flow")] == [0, 1, 2]
        assert store.get("s", "seg") is None and not list(store.folder.glob("incoming*"))
        save_arrays(stem, arrays[0], None, arrays[1], arrays[2], arrays[3], arrays[4])
        store.adopt("pair", str(stem))
        assert store.fixed("pair")[0, 0, 0] == 3 and store.get("pair", "fixed_seg")[0, 0, 0] == 4
        store.drop("pair")
        assert not list(store.folder.glob("*fixed*")) and not list(store.folder.glob("incoming*"))
