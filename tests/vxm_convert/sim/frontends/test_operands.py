# SPDX-License-Identifier: Apache-2.0
"""Which operands must be constant: those that the device needs when a model is compiled, and those that only the
simulator does.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, compile_pb, conv_attrs, run_pb
from vxm_convert.sim.refusal import AtcRefusal


def test_scatter_nd_takes_computed_indices(tmp_path):
    """8.1's table of the 910 has `indices` as a tensor; only the shape is known when the model is compiled."""
    pb = PbBuilder()
    k, x = pb.placeholder("k", (4, 2), "int32"), pb.placeholder("x", (4, 2))
    pb.node("ScatterNd", "y", k, x, pb.const("shape", np.array([3, 2, 2], np.int32)))
    path = pb.save(tmp_path / "g.pb")
    index = np.array([[0, 1], [2, 0], [0, 1], [7, 0]], np.int32)
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    (got,) = run_pb(path, tmp_path / "g.om", [("y", 0)], [index, rows])
    expected = np.zeros((3, 2, 2), np.float32)
    np.add.at(expected, (index[:3, 0], index[:3, 1]), rows[:3])
    np.testing.assert_array_equal(got, expected)
    large = PbBuilder()
    k, x = large.placeholder("k", (1 << 14, 1), "int32"), large.placeholder("x", (1 << 14,))
    large.node("ScatterNd", "y", k, x, large.const("shape", np.array([1 << 13], np.int32)))
    with pytest.raises(AtcRefusal, match="up to 67108864 pairs") as caught:
        compile_pb(large.save(tmp_path / "l.pb"), tmp_path / "l.om", [("y", 0)])
    assert "910 takes them" in caught.value.cause


def test_an_operand_that_only_the_simulator_needs_constant_says_so(tmp_path):
    pb = PbBuilder()
    x, w = pb.placeholder("x", (1, 4, 4, 4, 2)), pb.placeholder("w", (3, 3, 3, 2, 2))
    pb.node("Conv3D", "y", x, w, **conv_attrs())
    with pytest.raises(AtcRefusal) as caught:
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
    assert "The 910 takes a tensor here" in caught.value.cause and "real ATC" in caught.value.solution
