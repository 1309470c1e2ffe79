# SPDX-License-Identifier: Apache-2.0
"""``python -m export`` from end to end on a small grid, and what it says and leaves when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import build_parser, main
from tests.support.checkpoints import write_h5
from tests.support.stages import ROOT
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.model.contract import GraphContract

# What is started with an environment of its own here is started as users do it.
pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("forked_commands")]
ARTEFACTS = [
    "SHA256SUMS",
    "atc.log",
    "atc_manifest.json",
    "contract.json",
    "frozen.pb",
    "frozen.pb.json",
    "parity.json",
    "preflight.csv",
    "preflight.json",
    "vxm.om",
    "vxm.om.json",
]
SMALL = ["--shape", "16,16,32", "--toolchain", "sim"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, checkpoint):
    """An export with everything, made in a process of its own from another folder."""
    out = tmp_path_factory.mktemp("cli") / "new" / "out"
    command = [sys.executable, "-m", "export", "--checkpoint", str(checkpoint), "--out", str(out)] + SMALL
    return out, subprocess.run(
        command, env=dict(os.environ, PYTHONPATH=str(ROOT)), cwd=str(out.parent.parent), capture_output=True
    )


def names_in(folder: Path):
    return sorted(p.name for p in folder.iterdir())


def test_all_artefacts_are_made_and_named(exported):
    out, done = exported
    stdout, stderr = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, stderr
    assert names_in(out) == sorted(ARTEFACTS + ["vxm.onnx", "vxm.onnx.json"])
    for name in ("frozen.pb", "vxm.onnx", "vxm.om", "contract.json", "parity.json", "preflight.json"):
        assert str(out / name) in stdout
    assert "SIMULATED" in stdout and "SIMULATED" in stderr
    assert "Warning" not in stderr and "Traceback" not in stderr, stderr


def test_the_chain_of_hashes_holds(exported, checkpoint):
    out, _ = exported
    contract = GraphContract.load(out / "contract.json")
    files = {"frozen_pb": "frozen.pb", "onnx": "vxm.onnx", "om": "vxm.om"}
    assert {role: sha256_of(out / name) for role, name in files.items()} == {
        role: contract.hashes[role] for role in files
    }
    assert contract.hashes["checkpoint"] == sha256_of(Path(str(checkpoint) + ".data-00000-of-00001"))
    assert set(contract.tools) == {
        "vxm_convert",
        "python",
        "tensorflow",
        "numpy",
        "onnx",
        "tf2onnx",
        "onnx_engine",
        "atc",
    }
    assert contract.tools["tensorflow"].startswith("1.15")
    sides = {name: json.loads((out / (name + ".json")).read_text()) for name in files.values()}
    assert sides["frozen.pb"]["made_from"] == {r: contract.hashes[r] for r in ("checkpoint", "checkpoint_index")}
    assert sides["vxm.om"]["made_from"] == sides["vxm.onnx"]["made_from"] == {"frozen_pb": contract.hashes["frozen_pb"]}
    assert sides["vxm.om"]["toolchain"]["kind"] == "simulator"


def test_parity_is_recorded_with_its_sample_count(exported):
    report = json.loads((exported[0] / "parity.json").read_text())
    assert report["n_samples"] == 1
    assert [row["test"].split(",")[0] for row in report["comparisons"]] == ["vxm.onnx"]
    assert [text.split(":")[0] for text in report["not_checked"]] == ["frozen.pb was not run itself", "determinism"]
    assert all(row["flow"]["n"] == 16 * 16 * 32 * 3 and row["passed"] for row in report["comparisons"])


def test_the_offline_model_registers_as_the_pb_does(exported):
    from export.parity import run_pb, smooth_pair
    from vxm_convert.formats.om import read_om
    from vxm_convert.sim.engine.load import load_program

    out, _ = exported
    contract = GraphContract.load(out / "contract.json")
    pair = smooth_pair(contract.model, seed=3)
    expected = run_pb(out / "frozen.pb", contract, pair)
    program = load_program(read_om(out / "vxm.om"))
    by_name = {t.node: pair[t.meaning] for t in contract.inputs}
    results = program.run([by_name[d.name] for d in program.inputs])
    for spec in contract.outputs:
        position = next(
            i for i, d in enumerate(program.outputs) if d.name.split(":")[0] == spec.node or spec.tensor_name in d.name
        )
        error = np.abs(np.asarray(results[position], np.float64).reshape(spec.shape) - expected[spec.meaning])
        scale = np.abs(expected[spec.meaning]).max()
        assert 0 < error.max() <= 2e-2 * scale, spec.meaning


def test_a_second_run_gives_the_same_bytes_and_drops_what_it_did_not_make(exported, checkpoint, tmp_path, capsys):
    out, _ = exported
    target = tmp_path / "out"
    target.mkdir()
    for name in ("vxm.onnx", "vxm.onnx.json", "keep_dtype.cfg"):
        (target / name).write_text("from an earlier export")
    (target / "notes.txt").write_text("mine")
    assert (
        main(["--checkpoint", str(checkpoint), "--out", str(target), "--skip-onnx", "--check-determinism"] + SMALL) == 0
    )
    assert names_in(target) == sorted(ARTEFACTS + ["notes.txt"])
    for name in ("frozen.pb", "vxm.om"):
        assert sha256_of(target / name) == sha256_of(out / name)
    assert "ONNX " not in capsys.readouterr().out
    report = json.loads((target / "parity.json").read_text())
    (row,) = report["comparisons"]
    assert row["test"] == "frozen.pb, TensorFlow" and row["limits"]["flow_max_voxel"] < 1e-3
    assert set(row["determinism"]) == {"frozen_twice", "run_twice"} and report["not_checked"] == []


def test_h5_indexing_reaches_the_graph(tmp_path, weights):
    pytest.importorskip("tensorflow")
    path = write_h5(tmp_path / "weights.h5", weights)
    swapped = dict(weights)
    swapped["flow/kernel"], swapped["flow/bias"] = (
        weights["flow/kernel"][..., [1, 0, 2]],
        weights["flow/bias"][[1, 0, 2]],
    )
    other = write_h5(tmp_path / "swapped.h5", swapped)
    base = ["--skip-onnx"] + SMALL
    assert main(["--checkpoint", str(path), "--out", str(tmp_path / "a"), "--h5-indexing", "xy"] + base) == 0
    assert main(["--checkpoint", str(other), "--out", str(tmp_path / "b")] + base) == 0
    assert sha256_of(tmp_path / "a/frozen.pb") == sha256_of(tmp_path / "b/frozen.pb")


ERRORS = {
    "no checkpoint": (["--checkpoint", "{tmp}/gone/model"], "no such checkpoint"),
    "wrong variant": (["--variant", "vm1"], "these weights fit --variant vm2"),
    "odd shape": (["--shape", "100,16,16"], "multiple of 16"),
    "no shape": (["--shape", "16x16x16"], "three whole numbers"),
    "no batch": (["--batch", "0"], "at least 1"),
    "foreign chip": (["--soc-version", "Ascend910A; rm"], "npu-smi"),
    "unknown chip": (["--soc-version", "Ascend999"], "E20101"),
    "no folder": (["--out", "{tmp}/file/out"], "cannot write there"),
    "no write": (["--out", "/proc/nowhere/out"], "cannot write there"),
    "xy of a checkpoint": (["--h5-indexing", "xy"], "Keras .h5"),
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_are_one_message_and_leave_nothing(name, checkpoint, tmp_path, capsys):
    options, message = ERRORS[name]
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "out"
    base = ["--checkpoint", str(checkpoint), "--out", str(out), "--skip-onnx"] + SMALL
    assert main(base + [o.format(tmp=tmp_path) for o in options]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("export: error: ") == 1 and message in captured.err
    assert "Traceback" not in captured.err and captured.out == ""
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p.name not in ("file", "atc-failed.log")]
    assert not left
    if name != "unknown chip":
        assert not out.exists()


def test_a_failed_run_leaves_an_earlier_export_as_it_was(exported, checkpoint, capsys):
    out, _ = exported
    before = {p.name: sha256_of(p) for p in out.iterdir()}
    assert main(["--checkpoint", str(checkpoint), "--out", str(out), "--variant", "vm1"] + SMALL) == 1
    assert {p.name: sha256_of(p) for p in out.iterdir()} == before


def test_sigterm_clears_what_was_half_made(checkpoint, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "export", "--checkpoint", str(checkpoint), "--out", str(out)] + SMALL
    process = subprocess.Popen(command, env=dict(os.environ, PYTHONPATH=str(ROOT)), stderr=subprocess.PIPE)
    for line in process.stderr:
        if b"[5/6]" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_refused(checkpoint, tmp_path, capsys):
    tmp_path.chmod(0o500)
    try:
        assert main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")] + SMALL) == 1
        assert "Permission denied" in capsys.readouterr().err
    finally:
        tmp_path.chmod(0o700)


def without_tensorflow(tmp_path, *arguments):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("raise ImportError('not installed here')\n")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    command = [sys.executable, "-m", "export"] + list(arguments)
    return subprocess.run(command, env=environment, cwd=str(tmp_path), capture_output=True)


def test_help_needs_no_tensorflow(tmp_path):
    done = without_tensorflow(tmp_path, "--help")
    assert done.returncode == 0 and b"--h5-indexing" in done.stdout


def test_missing_tensorflow_is_one_message(tmp_path, checkpoint):
    done = without_tensorflow(tmp_path, "--checkpoint", str(checkpoint), "--out", "out", *SMALL)
    assert done.returncode == 1
    assert (
        b"TensorFlow: cannot import it" in done.stderr
        and b"make setup" in done.stderr
        and b"Traceback" not in done.stderr
    )
    assert not (tmp_path / "out").exists()


def test_usage_errors_exit_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--out", "x"])
    assert caught.value.code == 2


def test_every_option_says_its_default():
    for action in build_parser()._actions:
        if action.option_strings and not {"--help", "--help-all"} & {*action.option_strings}:
            assert "default" in action.help or "required" in action.help, action.option_strings


@pytest.mark.real_data
def test_the_checkpoint_of_a_real_910_exports(shared_data, tmp_path, capsys):
    pytest.importorskip("tensorflow")
    folder = shared_data / "weights" / "vm2_mse_ascend910"
    options = ["--out", str(tmp_path / "out"), "--shape", "32,32,32", "--skip-onnx", "--toolchain", "sim"]
    assert main(["--checkpoint", str(folder)] + options) == 0
    assert GraphContract.load(tmp_path / "out/contract.json").model.volume_shape == (32, 32, 32)
