# SPDX-License-Identifier: Apache-2.0
"""Programs written for a real device (tests/programs) run unmodified, in processes of their own, as `sim env` sets them
up.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.forked import VARIABLE, forking
from tests.support.graphs import PbBuilder, compile_pb, up_conv_graph
from vxm_convert.sim.atc.__main__ import main as atc
from vxm_convert.sim.engine.load import load_program

ROOT = Path(__file__).resolve().parents[4]
PROGRAMS = sorted(ROOT.joinpath("tests", "programs").glob("*.py"))
#: Programs that leave things behind. Of all others, which do nothing a device could mind, strict mode must have nothing
#: to say.
CARELESS = {"careless", "no_farewell"}
MINUTE = 60


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """(environment of `sim env`, offline model, folder with inputs, expected output)."""
    folder = tmp_path_factory.mktemp("programs")
    script = 'eval "$("$0" -m vxm_convert sim env)" && printf "%s" "$PYTHONPATH"'
    base = {name: value for name, value in os.environ.items() if not name.startswith("VXM_SIM_")}
    base = forking(dict(base, PYTHONPATH=str(ROOT)))
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=str(folder), env=base, capture_output=True, text=True, timeout=MINUTE
    )
    assert done.returncode == 0, done.stderr
    rng = np.random.RandomState(3)
    om = compile_pb(up_conv_graph(rng).save(folder / "g.pb"), folder / "net.om", [("y", 0)])
    program = load_program(om)
    arrays = [rng.rand(*desc.shape).astype(np.float32) for desc in program.inputs]
    for number, array in enumerate(arrays):
        np.save(str(folder / f"input_{number}.npy"), array)
    return dict(base, PYTHONPATH=done.stdout), folder, program.run(arrays)[0]


def start(bench, name, out, **settings):
    environment, folder, _ = bench
    if name in CARELESS:  # the end of a process is theirs to get wrong
        environment = {key: value for key, value in environment.items() if key != VARIABLE}
    command = [
        sys.executable,
        str(ROOT / "tests" / "programs" / f"{name}.py"),
        str(folder / "net.om"),
        str(folder),
        str(out),
    ]
    return subprocess.run(
        command, cwd=str(out), env=dict(environment, **settings), capture_output=True, text=True, timeout=MINUTE
    )


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_know_nothing_of_us(path):
    modules = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert "acl" in modules and not any(name.startswith(("vxm_convert", "tests")) for name in modules)


@pytest.mark.parametrize("name", [path.stem for path in PROGRAMS if path.stem not in CARELESS])
def test_a_program_gives_what_the_engine_gives_and_is_clean(bench, tmp_path, name):
    done = start(bench, name, tmp_path, VXM_SIM_STRICT="1", VXM_SIM_DEVICES="2" if name == "device_threads" else "1")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(str(tmp_path / "output_0.npy")), bench[2])
    assert "SIMULATED" in done.stderr
    assert "simulated device:" not in done.stderr, done.stderr
    if name == "device_threads":
        assert "devices: 2" in done.stdout
    if name == "latency_tool":
        assert done.stdout.count("Inference time:") == 5 and "without first time" in done.stdout
    if name == "benchmark_loop":
        times = json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))
        assert len(times["times"]) == 10 and 0 < sum(times["times"]) <= times["wall"] + 1


def other_model(bench, folder, arrays):
    """The bench with the model ``net.om`` of `folder`, and what it is fed."""
    for number, array in enumerate(arrays):
        np.save(str(folder / f"input_{number}.npy"), array)
    return bench[0], folder, None


def test_a_program_finds_outputs_by_the_keys_of_an_onnx_model(bench, tmp_path):
    helper = pytest.importorskip("onnx.helper")
    nodes = [helper.make_node("Relu", ["x"], ["a:0"], "r"), helper.make_node("Neg", ["a:0"], ["b:0"], "n")]
    ends = [[helper.make_tensor_value_info(name, 1, [2])] for name in ("x", "b:0")]
    model = helper.make_model(helper.make_graph(nodes, "g", *ends), opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    flags = ["--framework=5", f"--output={tmp_path / 'net'}", "--soc_version=Ascend910A", "--out_nodes=n:0;a:0"]
    assert atc([f"--model={tmp_path / 'm.onnx'}", *flags]) == 0
    done = start(other_model(bench, tmp_path, [np.float32([-1, 2])]), "named_outputs", tmp_path, VXM_SIM_STRICT="1")
    assert done.returncode == 0 and "simulated device:" not in done.stderr, done.stderr
    assert done.stdout.splitlines()[-1] == "keys: n:0:b:0 r:0:a:0", "node:index:tensor, as real ATC has them"
    assert [np.load(str(tmp_path / f"output_{i}.npy")).tolist() for i in (0, 1)] == [[0, -2], [0, 2]]


def test_a_program_feeds_a_sparse_tensor_as_indices_and_values(bench, tmp_path):
    pb = PbBuilder()
    k, x = pb.placeholder("k", (3, 2), "int32"), pb.placeholder("x", (3,))
    pb.node("ScatterNd", "dense", k, x, pb.const("shape", np.array([4, 5], np.int32)))
    compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "net.om", [("dense", 0)])
    index, values = np.array([[0, 1], [3, 4], [2, 0]], np.int32), np.float32([1, 2, 3])
    done = start(other_model(bench, tmp_path, [index, values]), "named_outputs", tmp_path, VXM_SIM_STRICT="1")
    assert done.returncode == 0 and "simulated device:" not in done.stderr, done.stderr
    expected = np.zeros((4, 5), np.float32)
    expected[tuple(index.T)] = values
    np.testing.assert_array_equal(np.load(str(tmp_path / "output_0.npy")), expected)


def test_a_careless_program_works_and_is_told_so_when_strict(bench, tmp_path):
    done = start(bench, "careless", tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(str(tmp_path / "output_0.npy")), bench[2])
    assert "memcpy of kind 3 has a host source" in done.stderr
    strict = start(bench, "careless", tmp_path, VXM_SIM_STRICT="1")
    for said in (
        "memcpy of kind 3",
        "1 streams of a context",
        "3 blocks of device memory",
        "2 datasets",
        "3 data buffers",
        "1 model descriptions",
    ):
        assert said in strict.stderr, (said, strict.stderr)
    leaks = [line for line in strict.stderr.splitlines() if "not released" in line]
    assert len(leaks) == len(set(leaks)) == 5, "each kind once"


@pytest.mark.parametrize("strict", ["", "1"])
def test_a_program_may_end_without_finalize_and_with_work_on_its_stream(bench, tmp_path, strict):
    done = start(bench, "no_farewell", tmp_path, VXM_SIM_STRICT=strict)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Fatal" not in done.stderr, done.stderr
    np.testing.assert_array_equal(np.load(str(tmp_path / "output_0.npy")), bench[2])


def test_parts_of_pyacl_that_are_not_simulated_say_so(bench):
    environment, folder, _ = bench
    program = (
        "import acl\nassert 'dvpp_malloc' in dir(acl.media) and not hasattr(acl.media, 'vpc_resize_async')\n"
        "for name in ('op', 'himpi', 'blas', 'fv'):\n"
        "    assert not hasattr(acl, name) and name not in dir(acl)\n"
        "try:\n    acl.media.dvpp_create_channel_desc()\nexcept AttributeError as exc:\n    print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=MINUTE,
        cwd=str(folder),
    )
    assert done.returncode == 0, done.stderr
    assert "acl.media" in done.stdout and "not simulated" in done.stdout


@pytest.mark.parametrize(
    "fault, said",
    [("oom_load", "245000"), ("wrong_soc", "545001"), ("device_lost", "507899"), ("oom_malloc", "207001")],
)
def test_a_program_ends_with_its_own_error_when_the_device_fails(bench, tmp_path, fault, said):
    done = start(bench, "classic_sample", tmp_path, VXM_SIM_FAULT=fault)
    assert done.returncode == 1
    assert f"failed ret={said}" in done.stderr
    assert not list(tmp_path.iterdir())
