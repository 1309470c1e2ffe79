# SPDX-License-Identifier: Apache-2.0
"""Graph passes: the interface never changes, the function does not either, and the pattern is what the docstring
says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vxm_convert.errors import ContractError
from vxm_convert.model.precision import PLANS

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

from export import freeze, parity  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402


def _with_plan(contract, **changes):
    return replace(contract, precision=replace(PLANS["fast"], **changes))


def _constants(graph_def):
    return {n.name: tf.make_ndarray(n.attr["value"].tensor) for n in graph_def.node if n.op == "Const"}


@pytest.fixture(scope="module")
def plain(contract, weights):
    return freeze.freeze(_with_plan(contract), weights)


@pytest.fixture(scope="module")
def split(contract, weights):
    return freeze.freeze(_with_plan(contract, split_weights=("conv3d", "flow")), weights)


def test_a_plan_without_split_leaves_the_weights_alone(plain, weights):
    np.testing.assert_array_equal(_constants(plain)["conv3d/kernel"], weights["conv3d/kernel"])
    assert not [node.name for node in plain.node if node.name.endswith("rest")]


def test_each_part_is_what_fp16_can_hold(split, weights):
    values = _constants(split)
    for layer in ("conv3d", "flow"):
        held, rest = values[f"{layer}/kernel"], values[f"{layer}/kernel_rest"]
        np.testing.assert_array_equal(held, weights[f"{layer}/kernel"].astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(held + rest, weights[f"{layer}/kernel"])
        once = np.abs(held - weights[f"{layer}/kernel"]).max()
        twice = np.abs(held + rest.astype(np.float16) - weights[f"{layer}/kernel"]).max()
        assert 0 < twice < once / 100
    assert "conv3d_1/kernel_rest" not in values


def test_the_interface_and_the_operators(split, plain, contract):
    freeze.check_frozen(split, contract)
    added = Counter(node.op for node in split.node) - Counter(node.op for node in plain.node)
    assert added == {"Conv3D": 2, "AddV2": 2, "Const": 2} and len(split.node) - len(plain.node) == 6


def test_the_function_does_not_change(split, plain, contract, tmp_path):
    pair = parity.smooth_pair(contract.model)
    results = []
    for name, graph_def in (("split", split), ("plain", plain)):
        freeze.write_pb(graph_def, tmp_path / f"{name}.pb")
        results.append(parity.run_pb(tmp_path / f"{name}.pb", contract, pair))
    assert np.abs(results[1]["flow"]).max() > 0.5
    row = parity.compare("frozen_pb_split", results[1], results[0], ("plain", "split"))
    assert 0 < row["flow_end_point_error"]["max"]


def test_a_layer_that_does_not_exist_is_named(contract, weights):
    with pytest.raises(ContractError, match="conv3d_99"):
        freeze.freeze(_with_plan(contract, split_weights=("conv3d_99",)), weights)
