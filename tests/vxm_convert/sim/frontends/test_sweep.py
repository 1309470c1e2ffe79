# SPDX-License-Identifier: Apache-2.0
"""Every operator type of the table as TensorFlow builds it: compiled, loaded, run, and compared with TensorFlow."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats import tf_graph
from vxm_convert.formats.om import read_om
from vxm_convert.sim.compiler.compile import CompileRequest, compile_graph, write_model
from vxm_convert.sim.engine.load import load_program

pytestmark = pytest.mark.tf
tf = pytest.importorskip("tensorflow")
from tests.support.tf_cases import CASES  # noqa: E402

#: Types of the table that no case has, and why.
ELSEWHERE = {
    # Which of the two names TensorFlow writes depends on the body.
    "Case",
    "StatelessCase",
    "If",
    "StatelessIf",
    "While",
    "StatelessWhile",
    "PartitionedCall",
    "StatefulPartitionedCall",
}


@functools.lru_cache(maxsize=None)
def _freeze(name):
    """(GraphDef, TensorFlow's results, number of outputs)."""
    feeds, function = CASES[name]
    with tf.Graph().as_default() as graph:
        tf.compat.v1.set_random_seed(1)
        inputs = [tf.compat.v1.placeholder(v.dtype, v.shape, f"in{k}") for k, v in enumerate(feeds)]
        built = function(*inputs)
        outputs = [
            tf.identity(v, f"out{k}") for k, v in enumerate(built if isinstance(built, (list, tuple)) else [built])
        ]
        outputs = [tf.identity(v, f"out{k}") if v.op.name != f"out{k}" else v for k, v in enumerate(outputs)]
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            want = session.run(outputs, dict(zip(inputs, feeds)))
            frozen = graph.as_graph_def()
            if tf.compat.v1.global_variables():
                frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
                    session, frozen, [v.op.name for v in outputs]
                )
    return frozen, want


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_operator_gives_what_tensorflow_gives(name, tmp_path):
    frozen, want = _freeze(name)
    (tmp_path / "g.pb").write_bytes(frozen.SerializeToString())
    request = CompileRequest(
        "model", "Ascend910A", "atc (test)", "force_fp16", {}, [(f"out{k}", 0) for k in range(len(want))]
    )
    write_model(tmp_path / "g.om", compile_graph(tf_graph.read_graph(tmp_path / "g.pb"), request))
    got = load_program(read_om(tmp_path / "g.om")).run(list(CASES[name][0]))
    for index, (a, b) in enumerate(zip(got, want)):
        assert a.shape == b.shape and a.dtype == b.dtype, index
        error = np.abs(a.astype(np.float64) - b) / (1 + np.abs(b.astype(np.float64)))
        assert error.max() <= 6e-3, (index, a, b)


def _types(frozen):
    functions = [node.op for function in frozen.library.function for node in function.node_def]
    return {node.op for node in frozen.node} | set(functions)


def test_the_sweep_covers_the_table():
    covered = set().union(*(_types(_freeze(name)[0]) for name in CASES))
    missing = sorted(set(OPS) - covered - ELSEWHERE)
    assert {"While", "StatelessWhile"} & covered and {"If", "StatelessIf"} & covered and {"PartitionedCall"} <= covered
    assert not missing, f"no case builds {missing}"
