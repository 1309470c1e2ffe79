# SPDX-License-Identifier: Apache-2.0
"""The benchmark of engines: who takes part, what is compared, what the table says; and the ONNX interpreter in
PyTorch.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from scripts.benchmark import contenders, inference
from vxm_convert.artifacts.names import CONTRACT_NAME
from vxm_convert.errors import ToolchainError

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


def _figures(wall, cpu, peak):
    return {"wall_seconds": wall, "cpu_seconds": cpu, "peak_bytes": peak, "version": "some 1.0"}


@pytest.fixture
def rows(tmp_path):
    flow = np.zeros((1, 2, 2, 2, 3), np.float32)
    moved = np.ones((1, 2, 2, 2, 1), np.float32)
    np.savez(str(tmp_path / "recipe.npz"), flow=flow, moved=moved)
    flow[0, 1, 0, 1, 2], moved[0, 0, 0, 1, 0] = -0.25, 0.5
    np.savez(str(tmp_path / "device.npz"), flow=flow, moved=moved)
    runs = {
        "recipe": [_figures(9, 16, 3 << 30), _figures(8, 17, 1 << 30), _figures(10, 15, 2 << 30)],
        "device": [_figures(3, 4, 1 << 30)] * 3,
    }
    return inference.summary(["recipe", "device"], runs, tmp_path)


def test_rows_hold_medians_ratios_and_differences_to_the_first(rows):
    assert rows[0]["wall_seconds"] == {"median": 9, "min": 8, "max": 10, "n": 3} and rows[0]["peak_gib"] == 3.0
    assert (rows[1]["wall_ratio"], rows[1]["cpu_ratio"]) == (3.0, 4.0)
    assert (rows[1]["flow_difference_voxel"], rows[1]["moved_difference"]) == (0.25, 0.5)
    assert rows[0]["flow_difference_voxel"] == rows[0]["moved_difference"] == 0


def test_the_table_names_who_did_not_run_and_a_busy_machine(rows):
    result = {
        "model": {"variant": "vm2", "volume_shape": [16, 16, 32], "batch": 1},
        "precision": "fast",
        "rows": rows,
        "not_run": {"torch": "torch is not installed"},
        "machine": {"idle": False, "load_per_cpu": 1.5},
    }
    text = inference.table(result)
    assert "16x16x32" in text and "n = 3" in text and "torch is not installed" in text and "load 1.50 per CPU" in text
    line = next(line for line in text.splitlines() if line.startswith("SIMULATED device"))
    assert line.split()[2:] == ["3.00", "4.00", "3.00", "4.00", "1.00", "2.5e-01", "5.0e-01"]
    result["machine"]["idle"] = True
    assert "busy" not in inference.table(result)


def test_obstacles(tmp_path, monkeypatch):
    (tmp_path / CONTRACT_NAME).write_text("{}")
    model = tmp_path / "vxm.om"
    there = contenders.Contender("x", "json", CONTRACT_NAME, contenders._device, {})
    monkeypatch.setitem(contenders.CONTENDERS, "device", there)
    assert contenders.obstacle("device", model) == ""
    monkeypatch.setitem(contenders.CONTENDERS, "device", there._replace(file="vxm.onnx"))
    assert contenders.obstacle("device", model) == "vxm.onnx is not beside the model"
    monkeypatch.setitem(contenders.CONTENDERS, "device", there._replace(package="no_such_package"))
    assert contenders.obstacle("device", model) == "no_such_package is not installed"


def test_the_second_run_is_measured():
    calls = []

    def run(pair):
        calls.append(pair)
        return {"moved": len(calls)}

    found = contenders.measure(run, {"moving": 1})
    assert (
        found["outputs"] == {"moved": 2}
        and len(calls) == 2
        and found["peak_bytes"] > 1 << 20
        and found["wall_seconds"] >= 0
    )


def test_rounding_is_off_for_one_contender_only():
    off = [
        name
        for name, contender in contenders.CONTENDERS.items()
        if contender.environment.get("VXM_SIM_ROUNDING") == "off"
    ]
    assert off == ["unrounded"] and "rounding and winograd off" in contenders.CONTENDERS["unrounded"].title


def _stand_in(tmp_path, monkeypatch, body):
    """A program in place of the contender's process."""
    script = tmp_path / "contender.py"
    script.write_text(body)
    real = inference.subprocess.run
    monkeypatch.setattr(
        inference.subprocess, "run", lambda command, **rest: real([sys.executable, str(script)], **rest)
    )


def test_the_marked_line_is_taken_whatever_else_is_printed(tmp_path, monkeypatch):
    figures = _figures(1.5, 2.5, 10)
    line = contenders.RESULT_MARK + json.dumps(figures)
    _stand_in(tmp_path, monkeypatch, f"import os\nprint('noise', os.environ['VXM_SIM_ROUNDING'])\nprint({line!r})")
    assert inference._one_run("unrounded", tmp_path / "vxm.om", tmp_path) == figures


def test_a_contender_that_fails_is_named_with_what_it_said(tmp_path, monkeypatch):
    _stand_in(tmp_path, monkeypatch, "import sys\nsys.exit('no memory left')")
    with pytest.raises(
        ToolchainError, match="(?s)frozen: ended with exit code 1; leave it out with --only.*no memory left"
    ):
        inference._one_run("frozen", tmp_path / "vxm.om", tmp_path)


@pytest.mark.parametrize(
    "arguments, words",
    [(["--n", "0"], "n: got 0, expected at least 1"), ([], "contract.json: cannot read the contract")],
)
def test_wrong_input_is_one_message(arguments, words, tmp_path, capsys):
    code = inference.main(["--model", str(tmp_path / "vxm.om"), "--out", str(tmp_path / "out")] + arguments)
    assert code == 1 and words in capsys.readouterr().err


def test_torch_runs_the_operators_of_the_graph():
    torch = pytest.importorskip("torch")
    from onnx import helper, numpy_helper

    from scripts.benchmark.torch_graph import TorchGraph

    rng = np.random.RandomState(0)
    x, kernel = rng.rand(1, 5, 6, 7, 2).astype(np.float32), rng.randn(3, 2, 3, 3, 3).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 4, 1, 2, 3]),
        helper.make_node(
            "Conv",
            ["first", "w"],
            ["y"],
            pads=[0, 0, 0, 1, 1, 1],
            strides=[2] * 3,
            dilations=[1] * 3,
            kernel_shape=[3] * 3,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(kernel, "w")],
    )
    (got,) = TorchGraph(helper.make_model(graph)).run({"x": x}).values()
    padded = torch.nn.functional.pad(torch.from_numpy(x).permute(0, 4, 1, 2, 3), [0, 1] * 3)
    np.testing.assert_allclose(
        got, torch.nn.functional.conv3d(padded, torch.from_numpy(kernel), stride=2).numpy(), atol=1e-5
    )
