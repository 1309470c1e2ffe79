# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's results for a frozen graph, from the process of the precision report; imports no TensorFlow itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Dict, Mapping, Sequence, Tuple

import numpy as np

from om_runner.device_check.climb import Climb
from om_runner.layers.golden import GoldenStore
from om_runner.layers.matching import GoldenGraph, tensor_name
from om_runner.precision.reference import ReferenceProcess, check_reference_python, reference_python
from om_runner.precision.store import CompareStore
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import ToolchainError
from vxm_convert.formats.tf_graph import read_graph
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec


def why_missing(climb: Climb) -> str:
    """Why there is no TensorFlow to compare with, or ""."""
    python = reference_python(climb.request.reference_python)
    try:
        check_reference_python(python)
    except ToolchainError as exc:
        return str(exc)
    return ""


def run_graph(
    climb: Climb, pb: Path, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
) -> Tuple[Dict[str, np.ndarray], str]:
    """Tensors ``node:index`` of a frozen graph for inputs by node, and TensorFlow's version; raises VxmError."""
    contract = _contract(pb, feeds)
    path = pb.with_suffix(".contract.json")
    contract.save(path)
    graph = GoldenGraph(read_graph(pb))
    python = reference_python(climb.request.reference_python)
    with CompareStore(climb.folder("tensorflow"), 0) as store:
        with ReferenceProcess(python, pb, path, store, inner=True) as process:
            golden = GoldenStore(store.folder, process, graph)
            for node, value in feeds.items():
                golden.put(tensor_name(node), value)
            for tensor in fetches:
                golden.compute(tensor)
            found = {tensor: np.array(golden.get(tensor)) for tensor in fetches}
            return found, process.tensorflow_version


def _contract(pb: Path, feeds: Mapping[str, np.ndarray]) -> GraphContract:
    """The process reads names, shapes and the graph's hash; the rest of the contract has no part here."""
    specs = tuple(TensorSpec(n, n, 0, tuple(v.shape), v.dtype.name, "ND") for n, v in feeds.items())
    bare = GraphContract(ModelSpec("vm2", (16, 16, 16), 1), specs, (), PLANS["balanced"], "Ascend910A")
    return replace(bare, hashes={"frozen_pb": sha256_of(pb)})
