# SPDX-License-Identifier: Apache-2.0
"""Each injected fault ends in the code a device would give; the runner says so once, leaves nothing half-written and
does not hang.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from om_runner import __main__ as runner_cli
from om_runner.device.acl_runtime import AclRuntime
from tests.support import fakes
from tests.support.graphs import PbBuilder, compile_pb
from tests.support.sim_device import SHAPE, contract, dataset, io_spans
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import AclError
from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.faults import FAULTS, injected, parse_faults

ROOT = Path(__file__).resolve().parents[4]
NAMES = {
    "device_lost",
    "oom_load",
    "oom_malloc",
    "wrong_soc",
    "corrupt_output",
    "half_output",
    "unsteady_output",
    "hang",
    "slow",
}


def feeds(seed=0):
    random = np.random.RandomState(seed)
    return {name: random.rand(*SHAPE).astype(np.float32) for name in ("moving", "fixed")}


def ready(sim, acl):
    """A loaded model and its two datasets."""
    return [sim.load_model()] + [dataset(acl, spans) for spans in io_spans(acl)]


# --- grammar ---------------------------------------------------------------------------------------------------------


def test_all_names_and_defaults_parse():
    assert set(parse_faults(",".join(sorted(NAMES)))) == NAMES
    assert parse_faults(" slow:3 , oom_malloc:2calls,") == {"slow": "3", "oom_malloc": "2calls"}
    assert parse_faults("") == {}


@pytest.mark.parametrize("text", ["fire", "slow:0", "slow:x", "hang:-1", "oom_malloc:3x", "device_lost:1.5"])
def test_malformed_faults(sim, monkeypatch, text):
    with pytest.raises(ValueError):
        parse_faults(text)
    monkeypatch.setenv("VXM_SIM_FAULT", text)
    assert sim.acl.init() == 100000
    assert "VXM_SIM_FAULT" in sim.acl.get_recent_err_msg()


@pytest.mark.parametrize(
    "name, value",
    [
        ("VXM_SIM_SPEED", "0"),
        ("VXM_SIM_SPEED", "fast"),
        ("VXM_SIM_HANG_SECONDS", "x"),
        ("VXM_SIM_LATENCY", "-1"),
        ("VXM_SIM_LATENCY", "nan"),
        ("VXM_SIM_LATENCY", "long"),
    ],
)
def test_malformed_settings(sim, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert sim.acl.init() == 100000


def test_faults_end_with_their_block_and_with_their_process(sim, monkeypatch):
    with injected("oom_load"):
        assert FAULTS.argument("oom_load") == "0"
    assert FAULTS.argument("oom_load") is None
    monkeypatch.setenv("VXM_SIM_FAULT", "oom_load")
    sim.start()
    assert FAULTS.argument("oom_load") == "0"
    assert sim.acl.finalize() == 0
    monkeypatch.delenv("VXM_SIM_FAULT")
    sim.start()
    assert FAULTS.argument("oom_load") is None


# --- the codes -------------------------------------------------------------------------------------------------------


def test_device_lost(sim, monkeypatch):
    monkeypatch.setenv("VXM_SIM_FAULT", "device_lost:2")
    monkeypatch.setenv("VXM_SIM_DEVICES", "2")
    acl = sim.start()
    model_id, inputs, outputs = ready(sim, acl)
    spare, _ = acl.rt.malloc(64, 0)
    stream, _ = acl.rt.create_stream()
    assert [acl.mdl.execute(model_id, inputs, outputs) for _ in range(4)] == [0, 0, 507899, 507899]
    assert acl.rt.malloc(64, 0) == (0, 507899)
    assert acl.rt.synchronize_stream(stream) == 507899
    assert acl.rt.memset(spare, 64, 0, 64) == 507899
    # Giving back works, so that a client can leave; opening again does not
    assert [acl.rt.free(spare), acl.rt.destroy_stream(stream), acl.mdl.unload(model_id), acl.rt.reset_device(0)] == [
        0
    ] * 4
    assert acl.rt.set_device(0) == 507033
    assert acl.rt.set_device(1) == 0


def test_out_of_memory(sim):
    acl = sim.start()
    with injected("oom_load:1"):
        sim.load_model()
        assert acl.mdl.load_from_file(str(sim.om_path)) == (0, 245000)
    with injected("oom_malloc:1000"):
        assert acl.rt.malloc(600, 0)[1] == 0
        assert acl.rt.malloc(600, 0) == (0, 207001)
    with injected("oom_malloc:2calls"):
        assert [acl.rt.malloc(64, 0)[1] for _ in range(3)] == [0, 0, 207001]
    assert acl.rt.malloc(64, 0)[1] == 0


def test_wrong_soc(sim):
    acl = sim.start()
    with injected("wrong_soc"):
        assert acl.get_soc_name() == "Ascend310"
        assert acl.mdl.load_from_file(str(sim.om_path)) == (0, 545001)
    with injected("wrong_soc:Ascend910B2"):
        assert acl.mdl.load_from_file(str(sim.om_path)) == (0, 545001)
        assert "this device is Ascend910B2" in acl.get_recent_err_msg()
    assert acl.mdl.load_from_file(str(sim.om_path))[1] == 0


@pytest.mark.parametrize("index", [0, 1])
def test_corrupt_output_changes_one_output_silently(sim, index):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    for address, size in inputs:
        acl.rt.memset(address, size, 0, size)
    sets = dataset(acl, inputs), dataset(acl, outputs)
    model_id = sim.load_model()
    with injected(f"corrupt_output:{index}"):
        assert acl.mdl.execute(model_id, *sets) == 0
    changed = [any(acl.util.ptr_to_bytes(address, size)) for address, size in outputs]
    assert changed == [index == 0, index == 1]


def test_hang_times_out_and_can_be_released(sim):
    acl = sim.start()
    model_id, inputs, outputs = ready(sim, acl)
    stream, _ = acl.rt.create_stream()
    with injected("hang:1") as faults:
        assert acl.mdl.execute_async(model_id, inputs, outputs, stream) == 0
        assert acl.rt.synchronize_stream_with_timeout(stream, 5000) == 0
        assert acl.mdl.execute_async(model_id, inputs, outputs, stream) == 0
        assert acl.rt.synchronize_stream_with_timeout(stream, 30) == 507046
        assert acl.rt.stream_query(stream) == (1, 0)
        threading.Timer(0.05, faults.released.set).start()
        assert acl.rt.synchronize_stream(stream) == 0
    assert len(sim.program.seen) == 2


def test_hang_ends_at_its_bound_as_an_ai_core_timeout(sim):
    acl = sim.start()
    model_id, inputs, outputs = ready(sim, acl)
    with injected("hang", hang_seconds=0.1):
        started = time.perf_counter()
        assert acl.mdl.execute(model_id, inputs, outputs) == 507014
        assert 0.1 <= time.perf_counter() - started < 5


def test_destroying_a_stream_ends_its_hang(sim):
    acl = sim.start()
    model_id, inputs, outputs = ready(sim, acl)
    stream, _ = acl.rt.create_stream()
    with injected("hang", hang_seconds=60):
        assert acl.mdl.execute_async(model_id, inputs, outputs, stream) == 0
        started = time.perf_counter()
        assert acl.rt.destroy_stream(stream) == 0
        assert time.perf_counter() - started < 5


@pytest.mark.parametrize("fault, speed, factor", [("slow:3", "1", 3), ("", "0.25", 4), ("slow:2", "0.5", 4)])
def test_slow_devices(sim, monkeypatch, fault, speed, factor):
    monkeypatch.setenv("VXM_SIM_FAULT", fault)
    monkeypatch.setenv("VXM_SIM_SPEED", speed)
    sim.program.seconds = 0.04
    acl = sim.start()
    model_id, inputs, outputs = ready(sim, acl)
    started = time.perf_counter()
    assert acl.mdl.execute(model_id, inputs, outputs) == 0
    assert time.perf_counter() - started >= 0.04 * factor


def test_latency_is_sleep(sim, monkeypatch):
    monkeypatch.setenv("VXM_SIM_LATENCY", "0.2")
    acl = sim.start()
    model_id, inputs, outputs = ready(sim, acl)
    started, cpu = time.perf_counter(), time.process_time()
    assert acl.mdl.execute(model_id, inputs, outputs) == 0
    assert time.perf_counter() - started >= 0.2 > 2 * (time.process_time() - cpu)


# --- through AclRuntime ----------------------------------------------------------------------------------------------

RUNTIME = {
    "device_lost:1": (507899, "npu-smi info"),
    "oom_load": (245000, "smaller batch"),
    "oom_malloc:20000": (207001, "smaller batch"),
    "oom_malloc:1calls": (207001, "smaller batch"),
    "hang": (507014, "device log"),
}


@pytest.mark.parametrize("fault", sorted(RUNTIME))
def test_the_runtime_reports_each_fault_and_leaves_nothing(sim, caplog, fault):
    code, advice = RUNTIME[fault]
    with injected(fault, hang_seconds=0.1):
        with pytest.raises(AclError, match=fault.split(":")[0]) as caught:
            with AclRuntime(sim.acl, sim.om_path, contract()) as runtime:
                for _ in range(2):
                    runtime.run(feeds())
    assert caught.value.ret == code
    assert advice in str(caught.value)
    assert sim.leftovers() == [] and not SIM.initialised
    # The same process may go on with a healthy device
    with AclRuntime(sim.acl, sim.om_path, contract()) as runtime:
        runtime.run(feeds())


def test_corruption_passes_the_runtime_which_only_a_comparison_can_notice(sim):
    arrays = feeds()
    with injected("corrupt_output:1"), AclRuntime(sim.acl, sim.om_path, contract()) as runtime:
        moved = runtime.run(arrays).outputs["moved"]
    expected = arrays["moving"] + 2 * arrays["fixed"]
    assert 0 < np.count_nonzero(moved != expected) <= 16


# --- through the runner ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A compiled model with its contract, two scans and an atlas."""
    folder = tmp_path_factory.mktemp("cohort")
    pb = PbBuilder()
    kind = np.dtype(np.float32)
    moving, fixed = (pb.placeholder(name, (1,) + fakes.SHAPE + (1,)) for name in ("moving", "fixed"))
    total = pb.node("Add", "total", moving, fixed, T=kind)
    pb.node("Mul", "moved", total, pb.const("half", np.array(0.5, np.float32)), T=kind)
    flow = pb.node("Sub", "difference", moving, fixed, T=kind)
    pb.node(
        "ConcatV2",
        "flow_field",
        flow,
        flow,
        flow,
        pb.const("axis", np.array(-1, np.int32)),
        N=3,
        T=kind,
        Tidx=np.dtype(np.int32),
    )
    compile_pb(pb.save(folder / "frozen.pb"), folder / "vxm.om", [("moved", 0), ("flow_field", 0)])
    fakes.contract(1, om=sha256_of(folder / "vxm.om"), frozen_pb=sha256_of(folder / "frozen.pb")).save(
        folder / "contract.json"
    )
    fakes.write_scan(folder / "atlas.npz", 0)
    for number in (1, 2):
        fakes.write_scan(folder / "scans" / f"sub-{number}.npz", number)
    return folder


def arguments(cohort, out, compare="none"):
    return [
        "--input",
        str(cohort / "scans"),
        "--atlas",
        str(cohort / "atlas.npz"),
        "--model",
        str(cohort / "vxm.om"),
        "--out",
        str(out),
        "--compare",
        compare,
        "--toolchain",
        "sim",
        # The model is no warp: only NaN and Inf can be judged.
        "--profile",
        "none",
    ]


def finished(out):
    return sorted(p.name for p in out.glob("sub-*") if (p / "moved.nii.gz").is_file())


@pytest.fixture
def clean(sim, monkeypatch):
    """The simulated acl with the real engine."""
    from vxm_convert.sim.acl.models import loading as model_module

    monkeypatch.setattr(model_module, "PROGRAM_LOADER", model_module.load_from_bytes)
    return sim


def test_the_runner_is_well_without_faults(clean, cohort, tmp_path):
    assert runner_cli.main(arguments(cohort, tmp_path / "out")) == 0
    assert finished(tmp_path / "out") == ["sub-1", "sub-2"]


@pytest.mark.parametrize(
    "fault, code, done",
    [
        ("device_lost:1", "507899", ["sub-1"]),
        ("oom_load", "245000", []),
        ("oom_malloc:100", "207001", []),
        ("wrong_soc", "export again with --soc-version Ascend310", []),
        ("hang:1", "507014", ["sub-1"]),
    ],
)
def test_the_runner_ends_with_one_message_and_whole_files(
    clean, cohort, tmp_path, monkeypatch, capsys, fault, code, done
):
    monkeypatch.setenv("VXM_SIM_FAULT", fault)
    monkeypatch.setenv("VXM_SIM_HANG_SECONDS", "0.1")
    out = tmp_path / "out"
    assert runner_cli.main(arguments(cohort, out)) == 1
    said = capsys.readouterr().err
    assert code in said and "Traceback" not in said
    assert said.count("error: ") == 1
    assert finished(out) == done
    assert not list(tmp_path.rglob(".tmp-*"))
    assert clean.leftovers() == []


@pytest.mark.parametrize("fault", ["slow:2", "corrupt_output:0"])
def test_the_runner_survives_what_a_device_does_not_report(clean, cohort, tmp_path, monkeypatch, fault):
    monkeypatch.setenv("VXM_SIM_FAULT", fault)
    code = runner_cli.main(arguments(cohort, tmp_path / "out"))
    assert code in (0, 1)
    assert clean.leftovers() == [] and not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.tf
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="the reference of a comparison is TensorFlow 1.15")
def test_the_comparison_shows_a_corrupt_output(clean, cohort, tmp_path, monkeypatch):
    """The device said success; the precision report is where the damage appears. Zeros become NaN."""
    monkeypatch.setenv("VXM_SIM_FAULT", "corrupt_output:1")
    out = tmp_path / "out"
    assert runner_cli.main(arguments(cohort, out, "all")) == 3
    rows = json.loads((out / "precision" / "report.json").read_text(encoding="utf-8"))["rows"]
    assert [row["flow"]["nan_count"] for row in rows] == [16, 16] and [row["moved"]["nan_count"] for row in rows] == [
        0,
        0,
    ]
    assert finished(out) == []


def test_the_runner_as_a_process_with_a_lost_device(cohort, tmp_path):
    environment = dict(os.environ, PYTHONPATH=str(ROOT), VXM_SIM_FAULT="device_lost:1")
    command = [sys.executable, "-m", "om_runner"] + arguments(cohort, tmp_path / "out")
    done = subprocess.run(command, cwd=str(tmp_path), env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "507899" in done.stderr and "Traceback" not in done.stderr
    assert finished(tmp_path / "out") == ["sub-1"]
