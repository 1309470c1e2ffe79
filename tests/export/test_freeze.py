# SPDX-License-Identifier: Apache-2.0
"""The frozen graph: equal bytes in every process, nothing of training in it, and no graph that breaks the rules."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.support.stages import ROOT
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import ContractError
from vxm_convert.formats.tf_graph import placeholders, read_graph

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

from export import freeze  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402

_FREEZE_ELSEWHERE = """
import sys
from pathlib import Path
from vxm_convert.weights.files import find_checkpoint
from export.contracts import build_contract
from export.freeze import freeze, write_pb
from vxm_convert.network.restore import load_weights
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec
contract = build_contract(ModelSpec("vm2", (16, 16, 32)), PLANS["fast"], "Ascend910A")
write_pb(freeze(contract, load_weights(find_checkpoint(Path(sys.argv[1])), contract.model)), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def frozen(contract, weights):
    return freeze.freeze(contract, weights)


def copy_of(graph_def):
    copy = tf.GraphDef()
    copy.CopyFrom(graph_def)
    return copy


def test_bytes_are_the_same_in_every_process(tmp_path, checkpoint, frozen):
    freeze.write_pb(frozen, tmp_path / "here.pb")
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONHASHSEED="1")
    subprocess.run(
        [sys.executable, "-c", _FREEZE_ELSEWHERE, str(checkpoint), str(tmp_path / "there.pb")],
        check=True,
        env=environment,
    )
    assert sha256_of(tmp_path / "there.pb") == sha256_of(tmp_path / "here.pb")


def test_nothing_of_training_is_left(frozen):
    for node in frozen.node:
        assert node.device == ""
        assert not [k for k in node.attr if k.startswith("_")], node.name
    assert [n.name for n in frozen.node if n.op == "Identity"] == ["moved", "flow_field"]
    assert not freeze.FORBIDDEN_OPS & {n.op for n in frozen.node}
    assert not frozen.library.function


def test_weights_are_in_it_bit_for_bit(tmp_path, frozen, weights):
    freeze.write_pb(frozen, tmp_path / "frozen.pb")
    constants = {n.name: n.attrs["value"] for n in read_graph(tmp_path / "frozen.pb") if n.op == "Const"}
    for name, value in weights.items():
        np.testing.assert_array_equal(constants[name], value)


def test_placeholders_carry_the_contract_shapes(tmp_path, frozen, contract):
    freeze.write_pb(frozen, tmp_path / "frozen.pb")
    expected = ("float32", (1, 16, 16, 32, 1))
    assert placeholders(read_graph(tmp_path / "frozen.pb")) == {"moving": expected, "fixed": expected}


def test_a_graph_of_another_shape_breaks_the_contract(frozen, contract):
    other = replace(contract, inputs=tuple(replace(t, shape=(2,) + t.shape[1:]) for t in contract.inputs))
    with pytest.raises(ContractError, match="moving:0 is float32"):
        freeze.check_frozen(frozen, other)


def test_a_dynamic_shape_is_refused(frozen, contract):
    graph = copy_of(frozen)
    for name in ("moving", "fixed"):
        next(n for n in graph.node if n.name == name).attr["shape"].shape.dim[0].size = -1
    with pytest.raises(ContractError, match="expected a static one"):
        freeze.check_frozen(graph, contract)


def test_dead_nodes_are_refused(frozen, contract):
    graph = copy_of(frozen)
    dead = graph.node.add()
    dead.CopyFrom(next(n for n in graph.node if n.op == "Const"))
    dead.name = "leftover"
    with pytest.raises(ContractError, match="dead nodes leftover"):
        freeze.check_frozen(graph, contract)


def test_forbidden_ops_and_control_edges_are_refused(frozen, contract):
    graph = copy_of(frozen)
    graph.node.add(name="init", op="NoOp")
    with pytest.raises(ContractError, match="init is a NoOp"):
        freeze.check_frozen(graph, contract)
    graph = copy_of(frozen)
    graph.node[-1].input.append("^moving")
    with pytest.raises(ContractError, match="control dependency"):
        freeze.check_frozen(graph, contract)
