# SPDX-License-Identifier: Apache-2.0
"""Layer by layer on an exported network, batch 2, as a user starts it; TensorFlow computes the golden tensors."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.support.stages import BATCH, SHAPE, run_stage
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.formats.om import read_om
from vxm_convert.sim.compiler.compile import write_model

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

#: columns of Ascend's comparer that existing scripts read, in its order
COLUMNS = (
    "Index OpType NPUDump DataType Address GroundTruth DataType Address TensorIndex Shape OverFlow CosineSimilarity "
    "MaxAbsoluteError "
    "AccumulatedRelativeError RelativeEuclideanDistance KullbackLeiblerDivergence StandardDeviation MeanAbsoluteError "
    "RootMeanSquareError "
    "MaxRelativeError MeanRelativeError CompareFailReason"
).split()


def layers(cwd: Path, model: Path, cohort, out: Path, *extra):
    return run_stage(
        cwd,
        "om_runner",
        "layers",
        "--input",
        cohort.scans,
        "--atlas",
        cohort.atlas,
        "--model",
        model,
        "--out",
        out,
        *extra,
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory, exported, cohort):
    """Output folder and printed table of a comparison with single errors. The weights of one convolution in the .om are
    damaged.
    """
    folder = tmp_path_factory.mktemp("layers")
    model = damaged(exported, folder / "model", "conv3d_6/Conv3D")
    done = layers(folder, model, cohort, folder / "out", "--single")
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def damaged(exported: Path, folder: Path, name: str) -> Path:
    """A copy of the exported model whose contract knows the damaged file."""
    shutil.copytree(str(exported), str(folder))
    om = read_om(folder / "vxm.om")
    conv = next(op for op in om.graph if op.name == name)
    weight = next(op for op in om.graph if op.name == conv.inputs[1].rpartition(":")[0])
    weight.data = (weight.data.astype("float32") * 1.25).astype(weight.data.dtype)
    write_model(folder / "vxm.om", om.model)
    contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
    contract["hashes"]["om"] = sha256_of(folder / "vxm.om")
    (folder / "contract.json").write_text(json.dumps(contract), encoding="utf-8")
    return folder / "vxm.om"


def test_every_layer_is_there_with_the_columns_of_ascends_comparer(compared, exported):
    out, printed = compared
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) == [
        "precision",
        "precision/layers.csv",
        "precision/layers.json",
    ]
    with open(str(out / "precision" / "layers.csv"), encoding="utf-8", newline="") as handle:
        head, *rows = list(csv.reader(handle))
    assert head[: len(COLUMNS)] == COLUMNS and all(len(row) == len(head) for row in rows)
    ops = [op for op in read_om(exported / "vxm.om").graph if op.data is None and op.type != "Data"]
    assert [row[0] for row in rows] == [str(n) for n in range(sum(len(op.output_descs) for op in ops))]
    by_name = {row[8]: dict(zip(head, row)) for row in rows}
    conv = by_name["conv3d_5/Conv3D:output:0"]
    # of convolution and bias in one kernel, the bias's output is the golden tensor
    assert conv["GroundTruth"] == "conv3d_5/BiasAdd" and conv["Shape"] == str([BATCH, *(n // 8 for n in SHAPE), 32])
    assert 0 < float(conv["RelativeEuclideanDistance"]) < 5e-3 and 1e-9 < 1 - float(conv["CosineSimilarity"]) < 1e-5
    assert {row[5] for row in rows if row[1] == "TransData"} == {"*"}
    assert "SIMULATED" in printed


def test_json_for_the_report(compared):
    report = json.loads((compared[0] / "precision" / "layers.json").read_text(encoding="utf-8"))
    assert (
        report["kind"] == "layers"
        and report["simulated"] is True
        and report["n_samples"] == BATCH
        and report["layers_schema"] == 1
    )
    rows = {row["name"]: row for row in report["layers"] if row["output"] == 0}
    floor = rows["warp/Floor"]
    assert floor["discontinuous"] and floor["share"] is None and not floor["source"]
    # what flips follows the damaged layer; alone it does not
    assert floor["flip_rate"] > 0 and floor["single_flip_rate"] == 0
    conv = rows["conv3d_10/Conv3D"]
    assert (
        conv["precision"] == "fp16"
        and conv["single"]["RelativeEuclideanDistance"] < 1e-3
        and set(conv["effect"]) == {"moved", "flow"}
    )
    # each layer's own error is smaller than what has gathered up to it
    assert conv["single"]["RelativeEuclideanDistance"] < conv["entire"]["RelativeEuclideanDistance"]
    shares = [row["share"] for row in report["layers"] if row["share"] is not None]
    assert sum(shares) == pytest.approx(1.0)
    computed = [row for row in report["layers"] if row["golden"] is not None and row["type"] != "NetOutput"]
    assert len(computed) > 100 and all(row["entire"] is not None and row["single"] is not None for row in computed)


def test_a_layer_whose_weights_were_damaged_is_the_only_source(compared):
    out, printed = compared
    report = json.loads((out / "precision" / "layers.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["sources"]] == ["conv3d_6/Conv3D"]
    assert "correct when it runs alone" in report["sources"][0]["advice"]
    assert "1 sources of error" in printed and "conv3d_6/Conv3D" in printed
    # what lies in front of it knows nothing of it, what lies behind it is no source
    errors = {row["name"]: row["entire"]["RelativeEuclideanDistance"] for row in report["layers"] if row["entire"]}
    assert errors["conv3d_5/Conv3D"] < 5e-3 and errors["conv3d_6/Conv3D"] > 0.1 and errors["conv3d_7/Conv3D"] > 0.01


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda argv, folder: argv + ["--dump", folder / "none"], "no such folder of dump files"),
        (lambda argv, folder: argv + ["--dump", folder], "no dump file of this model"),
        (lambda argv, folder: argv + ["--reference-python", folder / "python"], "cannot run"),
        (lambda argv, folder: argv[:1] + [folder / "no.npz"] + argv[2:], "no such folder or file"),
    ],
)
def test_wrong_input_is_one_message(exported, cohort, tmp_path, change, says):
    argv = ["--input", cohort.scans, "--atlas", cohort.atlas, "--model", exported / "vxm.om", "--out", tmp_path / "out"]
    done = run_stage(tmp_path, "om_runner", "layers", *change(argv, tmp_path))
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "precision").exists()


def test_a_limit_that_is_no_number_is_a_usage_error(tmp_path):
    done = run_stage(
        tmp_path, "om_runner", "layers", "--input", "a", "--atlas", "b", "--out", "c", "--limit-gib", "nan"
    )
    assert done.returncode == 2 and "expected a number above 0" in done.stderr
