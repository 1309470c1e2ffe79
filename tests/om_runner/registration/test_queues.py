# SPDX-License-Identifier: Apache-2.0
"""Two sets of buffers, threads around the device, and the timeline: overlap, order, bounds, errors, the trace file."""

from __future__ import annotations

import json
import threading
import time
import weakref

import numpy as np
import pytest

from om_runner.device.acl_runtime import AclRuntime
from om_runner.registration import loop as loop_module
from om_runner.registration import timeline as timeline_module
from om_runner.registration.finish import Finisher
from om_runner.registration.queues import HeadStart, WriteBehind
from om_runner.registration.timeline import STAGES, Span, Timeline
from tests.support import fakes
from tests.support.registration_bench import Bench
from tests.support.sim_device import feeds, runtime_of
from vxm_convert.errors import AclError, VolumeError
from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.faults import injected


def test_one_set_is_filled_while_the_other_is_executed(sim):
    with runtime_of(sim) as runtime:
        assert runtime.reserve(2) == 2
        sim.program.gate = threading.Event()
        first, second = feeds(), feeds()
        second["moving"] += 1
        staged = runtime.stage(first)
        done = []
        thread = threading.Thread(target=lambda: done.append(runtime.collect(runtime.execute(staged))))
        thread.start()
        other = runtime.stage(second)
        assert not done, "the first one is still being executed"
        sim.program.gate.set()
        thread.join()
        results = [runtime.fetch(done[0]), runtime.fetch(runtime.collect(runtime.execute(other)))]
        for fed, result in zip((first, second), results):
            np.testing.assert_array_equal(result.outputs["moved"], fed["moving"] + 2 * fed["fixed"])
        assert len(sim.program.seen) == 2
    assert sim.leftovers() == []


def test_the_fixed_image_stays_in_every_set(sim, monkeypatch):
    copied = []
    true_copy = sim.acl.rt.memcpy
    monkeypatch.setattr(sim.acl.rt, "memcpy", lambda *args: copied.append(args[-1]) or true_copy(*args))
    with runtime_of(sim) as runtime:
        runtime.reserve(2)
        sets = [runtime.stage(feeds()), runtime.stage(feeds())]
        for _ in range(2):
            copied.clear()
            sets = [
                runtime.stage(feeds())
                for done in [runtime.collect(runtime.execute(s)) for s in sets]
                if runtime.fetch(done)
            ]
        assert copied.count(1) == 2, "one moving image per run goes to the device, no fixed one"


def test_a_third_set_is_refused_until_one_is_free(sim):
    with runtime_of(sim) as runtime:
        runtime.reserve(2)
        runtime.stage(feeds()), runtime.stage(feeds())
        with pytest.raises(RuntimeError, match="all 2 sets of buffers are in use"):
            runtime.stage(feeds())


def test_a_device_without_memory_for_a_second_set_goes_on_with_one(sim, caplog):
    with runtime_of(sim) as runtime:
        used = SIM.devices[0].used_bytes
        with injected("oom_malloc:1calls"):
            assert runtime.reserve(2) == 1
        assert "continuing with 1 set of buffers" in caplog.text and SIM.devices[0].used_bytes == used
        runtime.run(feeds())
    assert sim.leftovers() == []


class SimBench(Bench):
    """A cohort on the simulated device with the scripted program."""

    def __init__(self, folder, monkeypatch, sim, n):
        super().__init__(folder, monkeypatch)
        shape = tuple(fakes.SHAPE)
        sim.program.inputs = [t._replace(shape=(1,) + shape + (1,)) for t in sim.program.inputs]
        sim.program.outputs = [t._replace(shape=(1,) + shape + t.shape[-1:]) for t in sim.program.outputs]
        for index in range(n):
            fakes.write_scan(self.inputs / f"s{index}.npz", index + 1)
        self.sim = sim

    def run(self, *extra):
        self.runtime = AclRuntime(self.sim.acl, self.sim.om_path, self.model.contract)
        return super().run(*extra)


def test_through_the_simulated_device_results_are_those_of_one_at_a_time(tmp_path, monkeypatch, sim):
    bench, sets, reserve = SimBench(tmp_path, monkeypatch, sim, 4), [], AclRuntime.reserve

    def reserved(runtime, most):
        sets.append(reserve(runtime, most))
        return sets[-1]

    monkeypatch.setattr(AclRuntime, "reserve", reserved)
    assert bench.run("--threads", "3") == 0
    overlapped = {p.name + p.parent.name: p.read_bytes() for p in bench.out.rglob("*.nii.gz")}
    monkeypatch.setattr(AclRuntime, "reserve", lambda runtime, most: reserved(runtime, 1))
    assert bench.run("--force", "--threads", "1") == 0
    assert {p.name + p.parent.name: p.read_bytes() for p in bench.out.rglob("*.nii.gz")} == overlapped
    assert len(overlapped) == 12 and sets == [2, 2, 1, 1], (
        "each run reserves before its first execution and for its loop"
    )
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["s0", "s1", "s2", "s3"]


def test_a_single_batch_needs_one_set_of_buffers(tmp_path, monkeypatch, sim):
    bench, sets, reserve = SimBench(tmp_path, monkeypatch, sim, 1), [], AclRuntime.reserve
    monkeypatch.setattr(AclRuntime, "reserve", lambda runtime, most: sets.append(most) or reserve(runtime, most))
    assert bench.run() == 0 and sets == [1, 1]
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["s0"]


@pytest.mark.parametrize(
    "fault, done, message",
    [("device_lost:2", ["s0", "s1"], "507899"), ("device_lost", [], "507899"), ("half_output", [], "unwritten")],
)
def test_faults_of_the_device_surface_and_finished_scans_stay(tmp_path, monkeypatch, sim, fault, done, message):
    bench = SimBench(tmp_path, monkeypatch, sim, 4)
    with injected(fault), pytest.raises(AclError, match=message):
        bench.run()
    assert [row["subject"] for row in bench.table("metrics.tsv")] == done
    failed = [(row["subject"], row["stage"]) for row in bench.table("failures.tsv")]
    assert failed[0] == (f"s{len(done)}", "run") and len(failed) <= 2
    assert sim.leftovers() == []


def test_the_trace_is_json_with_every_stage_of_every_subject(tmp_path, monkeypatch, sim):
    bench = SimBench(tmp_path, monkeypatch, sim, 3)
    assert bench.run("--trace", str(tmp_path / "trace.json")) == 0
    trace = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert trace["otherData"]["simulated"] is True and trace["otherData"]["toolchain"]["kind"] == "simulator"
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert all(event["ts"] >= 0 and event["dur"] >= 0 and isinstance(event["tid"], int) for event in events)
    assert {(e["args"]["subject"], e["name"]) for e in events} == {
        (f"s{n}", stage) for n in range(3) for stage in STAGES
    }
    named = {event["tid"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert {event["tid"] for event in events} <= named
    process = [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"]
    assert process == ["om_runner, SIMULATED device"]
    timing = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))["timing"]
    assert timing["scans"] == 3 and 0 < timing["device_busy"] <= 1 and timing["first_execution_seconds"] > 0


def test_a_trace_of_a_run_that_fails_is_kept_whole(tmp_path):
    path = tmp_path / "trace.json"
    with pytest.raises(ValueError):
        with Timeline(path, {"simulated": False}) as timeline:
            with timeline.span("decode", ['a "quoted" name']):
                raise ValueError
    (event,) = [e for e in json.loads(path.read_text(encoding="utf-8"))["traceEvents"] if e["ph"] == "X"]
    assert event["args"]["subject"] == 'a "quoted" name' and timeline.sums["decode"].wall > 0


def test_a_trace_tells_threads_of_one_number_apart(tmp_path, monkeypatch):
    """The system gives a number again when its thread has ended."""
    path = tmp_path / "trace.json"
    monkeypatch.setattr(timeline_module.threading, "get_ident", lambda: 7)
    with Timeline(path, {"simulated": False}) as timeline:
        for name in ("decode_0", "files_0"):
            thread = threading.Thread(target=timeline._add, args=("write", [name], 0.0, Span()), name=name)
            thread.start()
            thread.join()
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    found = [(names[event["tid"]], event["args"]["subject"]) for event in events if event["ph"] == "X"]
    assert found == [("decode_0", "decode_0"), ("files_0", "files_0")]


def test_memory_goes_back_when_a_subject_is_finished(tmp_path, monkeypatch):
    """Before, nothing of it is free; later, the next one has grown the heaps."""
    bench, done, written = Bench(tmp_path, monkeypatch), [], loop_module.Cohort._written
    fakes.write_scan(bench.inputs / "a.npz", 1)
    finish = Finisher.finish

    def slow(self, ready, outputs):
        time.sleep(0.1)
        return finish(self, ready, outputs)

    def watched(self, ready, future):
        with monkeypatch.context() as patch:
            patch.setattr(loop_module, "give_back", lambda: done.append(future.done()))
            written(self, ready, future)

    monkeypatch.setattr(Finisher, "finish", slow)
    monkeypatch.setattr(loop_module.Cohort, "_written", watched)
    assert bench.run() == 0 and done == [True]


@pytest.mark.parametrize("threads, places, works, waits", [(2, 1, 2, 1), (4, 2, 2, 0), (3, 2, 1, 0), (1, 5, 1, 0)])
def test_writing_behind_is_bounded_and_in_order(threads, places, works, waits):
    running, most, order = [], [], []

    def job(item):
        running.append(item)
        most.append(len(running))
        time.sleep(0.002 * (item % 3))
        running.remove(item)
        return item

    with WriteBehind(threads, lambda item, future: order.append(future.result()), places) as behind:
        for item in range(12):
            behind.submit(item, job)
            assert len(behind._waiting) <= works + waits
    assert order == list(range(12)) and max(most) <= works


def test_when_stopped_what_waits_is_dropped_and_what_runs_is_finished():
    gate, order = threading.Event(), []
    with pytest.raises(KeyboardInterrupt):
        with WriteBehind(1, lambda item, future: order.append(item)) as behind:
            started = threading.Event()
            behind.submit("running", lambda item: (started.set(), gate.wait(10)))
            assert started.wait(10)
            behind.submit("waiting", print)
            threading.Timer(0.05, gate.set).start()
            raise KeyboardInterrupt
    assert order == ["running"]


def test_the_first_scan_is_read_before_anyone_asks_and_once():
    read, begun = [], threading.Event()

    def load(name):
        read.append(name)
        begun.set()
        return Loaded(name)

    head = HeadStart(load, "a")
    assert begun.wait(10)
    found = head.read("a")
    assert found.name == "a" and head.read("b").name == "b" and read == ["a", "b"]
    held = weakref.ref(found)
    del found
    assert held() is None, "who reads it is the only one to have it"
    assert head.read("a").name == "a" and read == ["a", "b", "a"]


def test_the_error_of_the_first_scan_is_raised_where_it_is_read():
    def load(name):
        raise VolumeError(f"{name} cannot be read")

    head = HeadStart(load, "a")
    for name in ("b", "a"):
        with pytest.raises(VolumeError, match=f"{name} cannot be read"):
            head.read(name)


def test_the_first_scan_is_decoded_while_the_model_is_loaded(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    decoding = threading.Event()
    read = loop_module.read_scan

    def seen(*args, **kwargs):
        decoding.set()
        return read(*args, **kwargs)

    class Slow(fakes.FakeRuntime):
        def __enter__(self):
            assert decoding.wait(10)
            return super().__enter__()

    monkeypatch.setattr(loop_module, "read_scan", seen)
    bench.runtime = Slow(bench.model.contract)
    assert bench.run() == 0 and (bench.out / "a").is_dir()


def test_a_model_that_cannot_be_loaded_leaves_no_result(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1)

    class Broken(fakes.FakeRuntime):
        def __enter__(self):
            raise AclError("no device", "acl.mdl.load_from_file")

    bench.runtime = Broken(bench.model.contract)
    with pytest.raises(AclError, match="no device"):
        bench.run()
    assert not list(bench.out.glob("a*"))


class Loaded:
    """A scan that was read."""

    def __init__(self, name):
        self.name = name
