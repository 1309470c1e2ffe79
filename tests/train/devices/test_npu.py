# SPDX-License-Identifier: Apache-2.0
"""The path to an Ascend 910, with a stand-in for its adapter that writes down what it is given; and what never reaches
the adapter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional

import pytest

from tests.support.forked import run_python
from train.__main__ import main
from train.devices.choice import choose_device
from train.settings.npu import FUSION_SWITCHES, NpuSettings, ranks_of
from train.settings.npu_parameters import PARAMETERS, check_parameters, fill, parse_parameter
from vxm_convert.errors import ArtifactError, SpecError, TrainingError

FAKE = Path(__file__).resolve().parents[2] / "support" / "fake_npu"


def options(cohort: Path, out: Path, *more: str) -> List[str]:
    return [
        "--data",
        str(cohort / "scans"),
        "--atlas",
        str(cohort / "atlas.npz"),
        "--out",
        str(out),
        "--variant",
        "vm1",
        "--epochs",
        "1",
        "--steps-per-epoch",
        "4",
        "--lr",
        "1e-3",
        "--no-tensorboard",
        *more,
    ]


def run(
    cohort: Path, root: Path, out: Path, *more: str, environ: Optional[Dict[str, str]] = None
) -> subprocess.CompletedProcess:
    paths = os.pathsep.join([str(FAKE), str(root)])
    environment = {**os.environ, "PYTHONPATH": paths, "FAKE_NPU_LOG": str(out) + ".log", **(environ or {})}
    return run_python(["-m", "train", *options(cohort, out, "--device", "npu", *more)], root, environment)


@pytest.fixture(scope="module")
def npu_run(cohort: Path, project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the stand-in with two steps per call, mixed precision and dumps; the log of its calls lies beside it."""
    pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
    folder = tmp_path_factory.mktemp("npu")
    (folder / "mix.json").write_text('{"black-list": {"to-add": ["GatherV2"]}}')
    done = run(
        cohort,
        project_root,
        folder / "run",
        "--iterations-per-loop",
        "2",
        "--precision-mode",
        "allow_mix_precision",
        "--modify-mixlist",
        str(folder / "mix.json"),
        "--over-dump",
        "--profiling",
        "--device-id",
        "3",
        "--npu-parameter",
        "op_select_implmode=high_precision",
        "--npu-parameter",
        "deterministic=1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"checkpoint: {folder / 'run' / 'model-4'}"
    return folder / "run"


def calls(out: Path, name: str) -> List[Dict[str, Any]]:
    lines = [json.loads(line) for line in Path(str(out) + ".log").read_text().splitlines()]
    return [line for line in lines if line["call"] == name]


@pytest.mark.tf
def test_the_session_is_configured(npu_run: Path) -> None:
    (session,) = calls(npu_run, "session")
    # RewriterConfig.OFF is 2.
    assert (session["soft"], session["remapping"], session["memory"]) == (True, 2, 2)
    given = session["optimizers"]["NpuOptimizer"]
    assert json.loads(given.pop("profiling_options")[1])["output"] == str(npu_run / "npu" / "profiling")
    assert given == {
        "use_off_line": ["b", True],
        "graph_run_mode": ["i", 1],
        "precision_mode": ["s", "allow_mix_precision"],
        "iterations_per_loop": ["i", 2],
        "enable_data_pre_proc": ["b", True],
        "session_device_id": ["i", 3],
        "modify_mixlist": ["s", str(npu_run.parent / "mix.json")],
        "fusion_switch_file": ["s", str(FUSION_SWITCHES["default"])],
        "enable_dump_debug": ["b", True],
        "dump_path": ["s", str(npu_run / "npu" / "overflow")],
        "dump_debug_mode": ["s", "all"],
        "op_debug_level": ["i", 4],
        "debug_dir": ["s", str(npu_run / "npu" / "debug")],
        "profiling_mode": ["b", True],
        "op_select_implmode": ["s", "high_precision"],
        "deterministic": ["i", 1],
    }
    assert (npu_run / "npu" / "overflow").is_dir() and (npu_run / "npu" / "debug").is_dir()


@pytest.mark.tf
def test_environment_optimizer_and_loop_reach_the_adapter(npu_run: Path) -> None:
    environ = calls(npu_run, "import")[-1]["environ"]
    assert environ == {
        "JOB_ID": "10087",
        "DUMP_GE_GRAPH": "2",
        "DUMP_GRAPH_LEVEL": "3",
        "DUMP_GRAPH_PATH": str(npu_run / "npu" / "graphs"),
    }
    assert calls(npu_run, "exponential")[0]["given"] == [2.0**32, 1000, 2, 2.0, 0.5]
    assert calls(npu_run, "optimizer") == [
        {
            "call": "optimizer",
            "inner": "AdamOptimizer",
            "manager": "ExponentialUpdateLossScaleManager",
            "distributed": False,
        }
    ]
    (loop,) = calls(npu_run, "set_iteration_per_loop")
    assert loop["iterations"] == 2 and loop["same_graph"]
    assert calls(npu_run, "keep_dtype_scope") and calls(npu_run, "npu_close")
    steps = [json.loads(line) for line in (npu_run / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if "event" not in s] == [1, 3]
    epoch = steps[-1]
    assert (epoch["event"], epoch["loss_scale"], epoch["skipped"]) == ("epoch", 2.0**32, 0)


@pytest.mark.tf
def test_steps_fetch_the_same_and_pictures_train_nothing(npu_run: Path) -> None:
    """Another set of fetches is another graph for the adapter: the one of the pictures has no gradients to compile."""
    runs = [tuple(call["fetches"]) for call in calls(npu_run, "run")]
    steps = {names for names in runs if any("IterationOp" in name for name in names)}
    assert len(steps) == 1
    pictures = [names for names in runs if len(names) == 2 and not any("scale" in name for name in names)]
    assert pictures and not any("IterationOp" in name or "Adam" in name for names in pictures for name in names)
    events = [json.loads(line) for line in (npu_run / "metrics.jsonl").read_text().splitlines()]
    assert any("folding" in event for event in events)


@pytest.mark.tf
@pytest.mark.usefixtures("plain_graphs")
def test_the_run_goes_on_without_the_npu(npu_run: Path, cohort: Path) -> None:
    """Same variables, same names; the scaling of the loss is taken over without being asked for."""
    assert main(options(cohort, npu_run, "--device", "cpu", "--resume", "--epochs", "2")) == 0
    from vxm_convert.network.tf1 import tf

    before, after = (tf.train.NewCheckpointReader(str(npu_run / name)) for name in ("model-4", "model-8"))
    shapes = before.get_variable_to_shape_map()
    assert shapes == after.get_variable_to_shape_map()
    assert {"cond/beta1_power", "cond/beta2_power", "loss_scale", "good_steps", "bad_steps", "flow/kernel/Adam"} <= set(
        shapes
    )
    assert not [name for name in shapes if "npu_runconfig" in name]
    assert (before.get_tensor("global_step"), after.get_tensor("global_step")) == (4, 8)


@pytest.mark.tf
@pytest.mark.parametrize(
    "text, said", [("import os; os.abort()", "exit code -6"), ("x = npu_bridge_handle", "npu_bridge_handle")]
)
def test_an_adapter_that_aborts_ends_no_run(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, text: str, said: str
) -> None:
    package = tmp_path / "npu_bridge"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "npu_init.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(options(cohort, tmp_path / "run", "--device", "npu")) == 1
    error = capsys.readouterr().err
    assert (
        error.startswith("train: error: device: npu was requested, but npu_bridge cannot be imported") and said in error
    )
    assert "npu_bridge.npu_init" not in sys.modules and not (tmp_path / "run").exists()
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "davinci0").touch()
    device, why = choose_device("auto", tmp_path)
    assert device == "cpu" and said in why


def test_auto_takes_the_npu_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto", tmp_path) == ("cpu", "no /dev/davinci device")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "davinci1").touch()
    assert choose_device("auto", tmp_path)[0] == "cpu"
    monkeypatch.setattr("train.devices.choice.find_spec", lambda name: object())
    monkeypatch.setattr("train.devices.choice.npu_bridge_problem", lambda: None)
    assert choose_device("auto", tmp_path) == ("npu", "davinci1 and npu_bridge")
    assert choose_device("cpu", tmp_path)[0] == "cpu"


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.devices.choice.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="npu_bridge is not installed"):
        choose_device("npu")
    monkeypatch.setattr("train.devices.choice._gpus", lambda: False)
    with pytest.raises(TrainingError, match="TensorFlow sees none"):
        choose_device("gpu")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"precison_mode": "force_fp32"}, "did you mean precision_mode"),
        ({"iterations_per_loop": 0}, "got 0, expected 1 to"),
        ({"iterations_per_loop": True}, "expected an integer"),
        ({"use_off_line": 1}, "expected true or false"),
        ({"precision_mode": "fp16"}, "expected one of allow_fp32_to_fp16"),
        ({"buffer_optimize": "l3"}, "l2_optimize"),
        ({"graph_run_mode": 2}, "0 to 1"),
        ({"session_device_id": -1}, "0 to"),
        ({"dump_step": "5-", "dump_path": "x"}, "text of the form"),
        ({"graph_memory_max_size": "26G"}, "text of the form"),
        ({"precision_mode": "force_fp32", "modify_mixlist": "x"}, "mixed precision"),
        ({"precision_mode": "force_fp32", "precision_mode_v2": "fp16"}, "exclude each other"),
        ({"enable_dump": True}, "dump_path"),
        ({"optypelist_for_implmode": "Relu"}, "needs op_select_implmode"),
        ({"dynamic_dims": "1"}, "all three or none"),
        ({"mix_compile_mode": True, "iterations_per_loop": 2}, "iterations_per_loop 1"),
        ({"enable_dump": True, "enable_dump_debug": True, "dump_path": "x"}, "not both"),
        ({"enable_compress_weight": True, "compress_weight_conf": "x"}, "exclude each other"),
    ],
)
def test_what_the_adapter_would_abort_on_is_refused(values: Dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match="npu parameters: .*") as caught:
        check_parameters(values)
    assert message in str(caught.value)


def test_the_hundred_and_first_dump_step_is_refused() -> None:
    check_parameters({"dump_step": "|".join(["1-2"] * 100)})
    with pytest.raises(SpecError):
        check_parameters({"dump_step": "|".join(["1"] * 101)})


@pytest.mark.tf
def test_every_parameter_fits_its_field_of_the_configuration() -> None:
    rewriter = pytest.importorskip("tensorflow.core.protobuf.rewriter_config_pb2")
    examples = {"b": False, "i": 1, "s": "1"}
    for name, parameter in PARAMETERS.items():
        custom = rewriter.RewriterConfig().custom_optimizers.add()
        value = parameter.choices[0] if parameter.choices else examples[parameter.field]
        needs = {
            "modify_mixlist": {"precision_mode": "allow_mix_precision"},
            "optypelist_for_implmode": {"op_select_implmode": "high_precision"},
        }
        dynamic = (
            {"input_shape": "1", "dynamic_dims": "1", "dynamic_node_type": 0}
            if name.startswith(("dynamic_", "input_s"))
            else {}
        )
        fill(custom.parameter_map, {**needs.get(name, {}), **dynamic, name: value})
        assert custom.parameter_map[name].WhichOneof("value") == parameter.field, name


@pytest.mark.parametrize(
    "text, expected",
    [
        ("deterministic=1", 1),
        ("use_off_line=True", True),
        ("op_select_implmode=high_precision", "high_precision"),
        ("aoe_mode=2", "2"),
        ("session_device_id=x", "x"),
    ],
)
def test_parameters_of_the_command_line_get_their_type(text: str, expected: Any) -> None:
    name, value = parse_parameter(text)
    assert name == text.split("=")[0] and value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"Switch": {"UBFusion": {"ALL": "of"}}}', "on or off"),
        ('{"Switch": {"Fusion": {"ALL": "off"}}}', "GraphFusion or UBFusion"),
        ("[1]", "a JSON object"),
        ("{", "not JSON"),
        ('{"GraphFusion": {}}', "Switch"),
    ],
)
def test_a_wrong_fusion_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.cfg"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        NpuSettings(fusion_switch=str(path))


def test_the_fusion_files_that_ship_are_sound() -> None:
    assert json.loads(NpuSettings().fusion_file.read_text()) == {
        "Switch": {"UBFusion": {"TbeMultiOutputFusionPass": "off"}}
    }
    assert (
        NpuSettings(fusion_switch="off").fusion_file.exists() and NpuSettings(fusion_switch="none").fusion_file is None
    )
    with pytest.raises(ArtifactError, match="cannot read"):
        NpuSettings(fusion_switch="/nowhere.cfg")


CHIEF = {"CM_CHIEF_IP": "10.0.0.1", "CM_CHIEF_PORT": "6000", "CM_CHIEF_DEVICE": "0", "CM_WORKER_IP": "10.0.0.2"}


@pytest.mark.parametrize(
    "environ, message",
    [
        ({"RANK_SIZE": "8"}, "RANK_TABLE_FILE"),
        ({"RANK_TABLE_FILE": "x"}, "RANK_ID"),
        ({"CM_WORKER_SIZE": "2"}, "but not CM_CHIEF_IP, CM_CHIEF_PORT"),
        ({"CM_WORKER_SIZE": "2", "RANK_SIZE": "2"}, "CM_WORKER_SIZE and RANK_SIZE: both are set"),
        ({**CHIEF, "CM_WORKER_SIZE": "two"}, "got 'two'"),
        ({"RANK_SIZE": "2", "RANK_ID": "2"}, "from 0 below"),
        ({"RANK_SIZE": "two"}, "from 0 below"),
        ({"RANK_TABLE_FILE": "x", "RANK_ID": "0", "CM_CHIEF_IP": "1.2.3.4"}, "both are set"),
    ],
)
def test_ranks_that_do_not_fit_together_are_refused(environ: Dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        NpuSettings().environment(Path("o"), environ)


@pytest.mark.tf
def test_several_devices_share_batches_and_gradients(
    make_settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrappers go around Adam in the adapter's order: scale(distribute(Adam))."""
    pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
    import train.devices.npu as bridge
    from train.settings.run import ScaleSettings

    given = []
    fake = SimpleNamespace(
        NPUDistributedOptimizer=lambda optimizer: given.append(type(optimizer).__name__) or ("distributed", optimizer),
        NPULossScaleOptimizer=lambda optimizer, manager, is_distributed=False: (
            given.append((optimizer[0], is_distributed)) or "scaled"
        ),
        FixedLossScaleManager=lambda scale: SimpleNamespace(get_loss_scale=lambda: scale),
        ExponentialUpdateLossScaleManager=None,
    )
    monkeypatch.setattr(bridge, "_import_npu_init", lambda: fake)
    (tmp_path / "table.json").write_text("{}")
    for name, value in (
        ("RANK_SIZE", "2"),
        ("RANK_ID", "1"),
        ("RANK_TABLE_FILE", str(tmp_path / "table.json")),
        ("JOB_ID", "1"),
    ):
        monkeypatch.setenv(name, value)
    backend = bridge.NpuBackend(make_settings(device="npu", scale=ScaleSettings("fixed", 1024.0)))
    assert (backend.rank, backend.ranks) == (1, 2)
    assert backend.scaled(backend.adam(1e-4)) == ("scaled", 1024.0)
    assert given == ["AdamOptimizer", ("distributed", True)]


def test_devices_may_find_each_other_without_a_rank_table() -> None:
    environ = {**CHIEF, "CM_WORKER_SIZE": "4"}
    assert ranks_of(environ, 3) == (3, 4)
    with pytest.raises(SpecError, match="got '4' and 4"):
        ranks_of(environ, 4)
    assert NpuSettings().environment(Path("o"), {**environ, "HCCL_CONNECT_TIMEOUT": "1200"}, 1) == {
        "JOB_ID": "10087",
        "HCCL_EXEC_TIMEOUT": "5440",
    }


@pytest.mark.tf
def test_the_first_device_s_variables_are_everyone_s(cohort: Path, project_root: Path, tmp_path: Path) -> None:
    """A whole run of the second of two processes on the stand-in, to its last call."""
    pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
    (tmp_path / "hccn.conf").write_text("address_0=192.168.100.101\naddress_1=192.168.101.101\n")
    table = tmp_path / "table.json"
    hosts = f"10.0.0.1={tmp_path / 'hccn.conf'}"
    assert main(["rank-table", "--hosts", hosts, "--devices", "0-1", "--out", str(table)]) == 0
    environ = {"RANK_TABLE_FILE": str(table), "RANK_SIZE": "2", "RANK_ID": "1", "FAKE_NPU_SENT": "0.001"}
    done = run(cohort, project_root, tmp_path / "run", environ=environ)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in Path(str(tmp_path / "run") + ".log").read_text().splitlines()]
    given = calls(tmp_path / "run", "import")[-1]["environ"]
    assert given == {"JOB_ID": "10087", "HCCL_CONNECT_TIMEOUT": "600", "HCCL_EXEC_TIMEOUT": "5440"}
    sent = [line["names"][0] for line in lines if line["call"] == "broadcast"]
    assert {"conv3d/kernel:0", "flow/bias:0", "flow/kernel/Adam:0"} <= set(sent)
    assert not [name for name in sent if "global_step" in name], "HCCL takes floats"
    order = [line["call"] for line in lines if line["call"] in ("distributed", "average", "session", "broadcast")]
    assert order[:3] == ["distributed", "average", "session"] and set(order[3:]) == {"broadcast"}
    assert lines[-1]["call"] == "npu_close" and not (tmp_path / "run" / "model-4.index").exists()


def test_what_is_set_stays() -> None:
    assert NpuSettings().environment(Path("o"), {"JOB_ID": "7", "RANK_SIZE": "1"}) == {}


@pytest.mark.parametrize(
    "more, message",
    [
        (["--modify-mixlist", "x"], "mixed precision"),
        (["--iterations-per-loop", "0"], "iterations_per_loop"),
        (["--npu-parameter", "deterministic"], "NAME=VALUE"),
        (["--npu-parameter", "deterministc=1"], "did you mean deterministic"),
        (["--npu-parameter", "iterations_per_loop=2"], "--iterations-per-loop"),
        (["--loss-scale-value", "0.5"], "loss-scale-value"),
    ],
)
def test_wrong_options_are_one_message_on_any_device(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: List[str], message: str
) -> None:
    assert main(options(cohort, tmp_path / "run", *more)) == 1
    error = capsys.readouterr().err
    assert error.startswith("train: error: ") and message in error and not (tmp_path / "run").exists()
