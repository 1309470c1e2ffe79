# SPDX-License-Identifier: Apache-2.0
"""A loaded program: where its results are written."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, compile_pb
from vxm_convert.sim.engine.load import load_program

SHAPE = (1, 4, 4, 4, 2)
FEED = np.arange(128, dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def program(tmp_path):
    """Outputs: the feed plus 1, and 2 times the feed."""
    pb = PbBuilder()
    x = pb.placeholder("x", SHAPE)
    one, two = (pb.const(name, np.array([value], np.float32)) for name, value in (("one", 1), ("two", 2)))
    pb.node("AddV2", "more", x, one)
    pb.node("Mul", "twice", x, two)
    outputs = [("more", 0), ("twice", 0)]
    return load_program(compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", outputs, "force_fp32"))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_results_are_right_wherever_they_are_written(engine, request, monkeypatch):
    pytest.importorskip(engine)
    monkeypatch.setenv("VXM_SIM_ENGINE", engine)
    program = request.getfixturevalue("program")
    places = [np.zeros(SHAPE, np.float32), None]
    more, twice = program.lend([FEED], places)
    np.testing.assert_array_equal(more, FEED + 1)
    np.testing.assert_array_equal(twice, FEED * 2)


def test_openvino_writes_into_a_place_and_not_into_that_of_an_earlier_run(program):
    pytest.importorskip("openvino")
    first, second = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    more, _ = program.lend([FEED], [first, None])
    assert np.shares_memory(more, first)
    more, _ = program.lend([FEED + 1], [second, None])
    assert np.shares_memory(more, second)
    np.testing.assert_array_equal(program.run([FEED + 2])[0], FEED + 3)
    np.testing.assert_array_equal(first, FEED + 1)
    np.testing.assert_array_equal(second, FEED + 2)


def test_a_place_of_another_dtype_is_left_alone(program):
    place = np.zeros(SHAPE, np.int32)
    more, _ = program.lend([FEED], [place, None])
    np.testing.assert_array_equal(more, FEED + 1)
    assert not place.any()
