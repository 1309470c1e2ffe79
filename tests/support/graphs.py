# SPDX-License-Identifier: Apache-2.0
"""Small frozen graphs built without TensorFlow, so that compiler and device are tested where TensorFlow is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from export.contracts import build_contract
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.formats import tf_graph
from vxm_convert.formats.om import read_om
from vxm_convert.formats.tf_graph_writer import GraphWriter
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec
from vxm_convert.sim.compiler.compile import CompileRequest, compile_graph, write_model
from vxm_convert.sim.compiler.node_flags import CustomDtypes
from vxm_convert.sim.engine.load import load_program
from vxm_convert.sim.engine.program import Program


class PbBuilder(GraphWriter):
    """The product's writer, with the word for constants that tests use hundreds of times."""

    const = GraphWriter.constant


def compile_pb(
    path: Path,
    out: Path,
    outputs: List[Tuple[str, int]],
    mode: str = "force_fp16",
    keep: Sequence[str] = (),
    results: Sequence[str] = (),
    soc: str = "Ascend910A",
) -> Any:
    """Compile with the simulated compiler and read the file back: an OmModel; `results` are convolutions that return
    fp32.
    """
    custom = tuple(CustomDtypes(name, False, ("float16", "float16"), ("float32",)) for name in results)
    request = CompileRequest("model", soc, "atc (test)", mode, {}, outputs, frozenset(keep), custom_dtypes=custom)
    write_model(out, compile_graph(tf_graph.read_graph(path), request))
    return read_om(out)


def run_pb(
    path: Path, out: Path, outputs: List[Tuple[str, int]], feeds: List[np.ndarray], mode: str = "force_fp16"
) -> List[np.ndarray]:
    """Compile, load, run once."""
    program: Program = load_program(compile_pb(path, out, outputs, mode))
    return program.run(feeds)


def conv_attrs(stride: int = 1) -> Dict[str, Any]:
    """Attributes of a SAME convolution over volumes with channels last."""
    return {
        "strides": [1, stride, stride, stride, 1],
        "padding": "SAME",
        "data_format": "NDHWC",
        "dilations": [1, 1, 1, 1, 1],
    }


def image_conv_attrs(layout: str = "NHWC", stride: int = 1) -> Dict[str, Any]:
    """Attributes of a SAME convolution over images."""
    strides = [1, stride, stride, 1] if layout == "NHWC" else [1, 1, stride, stride]
    return {"strides": strides, "padding": "SAME", "data_format": layout, "dilations": [1, 1, 1, 1]}


def up_conv_graph(
    rng: np.random.RandomState, side: int = 4, channels: int = 8, skip: int = 2, filters: int = 5
) -> PbBuilder:
    """x → nearest upsampling as three concatenations → concat with a skip → Conv3D + bias → LeakyRelu, as the network
    has it.
    """
    pb = PbBuilder()
    x, other = (
        pb.placeholder("x", (1, side, side, side, channels)),
        pb.placeholder("skip", (1, 2 * side, 2 * side, 2 * side, skip)),
    )
    row = side * channels
    axis = pb.const("axis", np.array(-1, np.int32))
    z = pb.node("ConcatV2", "dz", x, x, axis, N=2)
    z = pb.node("Reshape", "rz", z, pb.const("sz", np.array([1, side, side, 2 * row], np.int32)))
    y = pb.node("ConcatV2", "dy", z, z, axis, N=2)
    y = pb.node("Reshape", "ry", y, pb.const("sy", np.array([1, side, 4 * side * row], np.int32)))
    up = pb.node("ConcatV2", "dx", y, y, axis, N=2)
    up = pb.node("Reshape", "up", up, pb.const("sx", np.array([1, 2 * side, 2 * side, 2 * side, channels], np.int32)))
    both = pb.node("ConcatV2", "both", up, other, axis, N=2)
    kernel = pb.const("kernel", (rng.randn(3, 3, 3, channels + skip, filters) * 0.1).astype(np.float32))
    conv = pb.node("Conv3D", "conv", both, kernel, **conv_attrs())
    conv = pb.node(
        "BiasAdd", "bias_add", conv, pb.const("bias", rng.randn(filters).astype(np.float32)), data_format="NHWC"
    )
    pb.node("LeakyRelu", "y", conv, alpha=0.2)
    return pb


def identity_model(folder: Path, shape: Tuple[int, int, int]) -> Path:
    """``vxm.om`` with its contract, of a network that moves nothing: what a machine without TensorFlow can make."""
    contract = build_contract(ModelSpec("vm2", shape), PLANS["accurate"], "Ascend910A")
    folder.mkdir(parents=True, exist_ok=True)
    moved, flow = contract.outputs
    build = PbBuilder()
    for tensor in contract.inputs:
        build.placeholder(tensor.node, tensor.shape)
    moving, fixed = (tensor.node for tensor in contract.inputs)
    build.const("axis", np.array(4, dtype=np.int32))
    build.const("nothing", np.array(0, dtype=np.float32))
    still = dict(T=np.dtype(np.float32))
    build.node("Mul", "fixed_nothing", fixed, "nothing", **still)
    build.node("Add", moved.node, moving, "fixed_nothing", **still)
    build.node("ConcatV2", "three", moving, moving, fixed, "axis", N=3, Tidx=np.dtype(np.int32), **still)
    build.node("Mul", flow.node, "three", "nothing", **still)
    outputs = [(tensor.node, 0) for tensor in contract.outputs]
    compile_pb(build.save(folder / "frozen.pb"), folder / "vxm.om", outputs, "force_fp32")
    hashes = {"om": sha256_of(folder / "vxm.om"), "frozen_pb": sha256_of(folder / "frozen.pb")}
    replace(contract, hashes=hashes).save(folder / "contract.json")
    return folder / "vxm.om"
