# SPDX-License-Identifier: Apache-2.0
"""Parity checkpoint graph ↔ frozen.pb ↔ ONNX: passes for the same network, and notices when it is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import PrecisionError, ToolchainError
from vxm_convert.model.spec import ModelSpec

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("forked_commands")]

from export import freeze, onnx_model, parity  # noqa: E402
from tests.support.forked import VARIABLE  # noqa: E402

NAMES = ("one", "other")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, contract, weights):
    path = tmp_path_factory.mktemp("parity")
    freeze.write_pb(freeze.freeze(contract, weights), path / "frozen.pb")
    contract.save(path / "contract.json")
    return path


@pytest.fixture(scope="module")
def pair(contract):
    return parity.smooth_pair(contract.model)


@pytest.fixture(scope="module")
def from_pb(folder, contract, pair):
    return parity.run_pb(folder / "frozen.pb", contract, pair)


def test_the_pair_is_smooth_and_the_same_every_time(contract, pair):
    again = parity.smooth_pair(contract.model)
    for name in ("moving", "fixed"):
        assert pair[name].shape == contract.model.image_shape and pair[name].dtype == np.float32
        assert 0 <= pair[name].min() < 0.4 and 0.6 < pair[name].max() <= 1
        assert np.abs(np.diff(pair[name], axis=3)).max() < 0.2
        np.testing.assert_array_equal(pair[name], again[name])
    assert np.abs(pair["moving"] - pair["fixed"]).max() > 0.1
    two = parity.smooth_pair(ModelSpec("vm2", (16, 16, 16), 2))["moving"]
    assert np.abs(two[0] - two[1]).max() > 0.1


def test_checkpoint_graph_and_pb_agree(contract, weights, pair, from_pb):
    row = parity.compare("frozen_pb", parity.run_checkpoint_graph(contract, weights, pair), from_pb, NAMES)
    assert row["passed"] and row["flow"]["n"] == 16 * 16 * 32 * 3
    assert np.abs(from_pb["flow"]).max() > 0.5, "a network that moves nothing proves nothing"


def test_a_changed_weight_is_noticed(contract, weights, pair, from_pb):
    other = {**weights, "conv3d_4/bias": weights["conv3d_4/bias"] + np.float32(1e-3)}
    with pytest.raises(PrecisionError, match="flow_max_voxel"):
        parity.compare("frozen_pb", parity.run_checkpoint_graph(contract, other, pair), from_pb, NAMES)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["moved", "flow"])
def test_nan_and_inf_fail_on_either_side(from_pb, bad, name):
    broken = {key: value.copy() for key, value in from_pb.items()}
    broken[name].flat[5] = bad
    for reference, test in ((from_pb, broken), (broken, from_pb), (broken, broken)):
        with pytest.raises(PrecisionError, match=f"{name} has"):
            parity.compare("onnx", reference, test, NAMES)


def test_what_is_not_deterministic_is_noticed(folder, tmp_path, from_pb):
    (tmp_path / "other.pb").write_bytes((folder / "frozen.pb").read_bytes() + b"\n")
    parity.check_same_bytes(folder / "frozen.pb", folder / "frozen.pb")
    with pytest.raises(PrecisionError, match="different bytes"):
        parity.check_same_bytes(folder / "frozen.pb", tmp_path / "other.pb")
    other = {**from_pb, "flow": np.nextafter(from_pb["flow"], np.float32(9))}
    parity.check_same_bits(from_pb, from_pb)
    with pytest.raises(PrecisionError, match="flow of two runs"):
        parity.check_same_bits(from_pb, other)


def test_onnx_agrees_and_its_bytes_repeat(folder, contract, pair, from_pb, monkeypatch):
    results = onnx_model.make_onnx(folder / "frozen.pb", folder / "contract.json", folder / "vxm.onnx", pair)
    row = parity.compare("onnx", from_pb, results, NAMES)
    assert row["passed"] and 0 < row["flow"]["max_abs"]
    assert results["engine"].split()[0] in ("onnxruntime", "openvino")
    # The second one in an interpreter of its own, as users have it.
    monkeypatch.delenv(VARIABLE)
    onnx_model.make_onnx(folder / "frozen.pb", folder / "contract.json", folder / "again.onnx", pair)
    assert sha256_of(folder / "vxm.onnx") == sha256_of(folder / "again.onnx")
    assert not list(folder.glob(".onnx_*"))


def test_onnx_runtime_checks_where_openvino_is_missing(folder, contract, pair, from_pb, monkeypatch):
    pytest.importorskip("onnxruntime")
    if not (folder / "vxm.onnx").is_file():
        onnx_model.make_onnx(folder / "frozen.pb", folder / "contract.json", folder / "vxm.onnx", pair)
    assert onnx_model.run_onnx(folder / "vxm.onnx", contract, pair)["engine"].startswith("openvino")
    monkeypatch.setitem(sys.modules, "openvino.runtime", None)
    results = onnx_model.run_onnx(folder / "vxm.onnx", contract, pair)
    assert results["engine"].startswith("onnxruntime")
    assert parity.compare("onnx", from_pb, results, NAMES)["passed"]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ToolchainError, match="neither openvino nor onnxruntime"):
        onnx_model.run_onnx(folder / "vxm.onnx", contract, pair)


def test_a_failing_conversion_shows_the_last_words(folder, tmp_path, pair):
    (tmp_path / "bad.pb").write_bytes(b"\x00not a graph")
    with pytest.raises(ToolchainError, match="--skip-onnx"):
        onnx_model.make_onnx(tmp_path / "bad.pb", folder / "contract.json", tmp_path / "vxm.onnx", pair)
    assert not list(tmp_path.glob("*.onnx"))
