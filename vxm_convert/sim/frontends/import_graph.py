# SPDX-License-Identifier: Apache-2.0
"""Frozen TensorFlow graph → operators of the device's graph language, with static shapes, still in fp32.

Each handler turns one TensorFlow node into at most one computing operator and infers its shape. Operands that the real
parser folds into attributes (axes, target shapes, permutations) are folded here too; nodes that no output needs are
dropped.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.ge_ir import Op
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow import (
    branches,
    control_flow,
    convolution,
    elementwise,
    functions,
    inputs,
    pooling,
    rearrange,
    reduction,
    selection,
    shapes,
    tensor_array,
)
from vxm_convert.sim.frontends.tensorflow.folding import SHAPE_ONLY
from vxm_convert.sim.frontends.tensorflow.import_state import PASS_THROUGH, Importer, Shape, layout_of, original_names
from vxm_convert.sim.frontends.tensorflow.walk import reachable
from vxm_convert.sim.refusal import AtcRefusal

__all__ = ["import_graph", "layout_of", "leaves", "original_names"]

HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {}
for _room in (inputs, elementwise, rearrange, shapes, selection, convolution, pooling, reduction, tensor_array):
    HANDLERS.update(_room.HANDLERS)

#: Folded into constants before handlers are looked up; they have none.
_FOLDED = SHAPE_ONLY | {"Fill", "Range", "LinSpace", "BroadcastArgs", "MatrixDiag", "InvertPermutation", "IdentityN"}


def import_graph(
    nodes: List[TfNode], input_shapes: Dict[str, Shape], out_nodes: List[Tuple[str, int]]
) -> Tuple[List[Op], List[str]]:
    """Operators in topological order, and the tensor of each requested output.

    Parameters
    ----------
    input_shapes : dict — shapes given by ``--input_shape``; they replace the graph's shapes without a comparison.
    out_nodes : list of (node, index) — outputs in order; empty means the leaves of the graph.

    Raises
    ------
    AtcRefusal
        E13010 lists every node without a kernel; E10016/E10017 a wrong input or output name; E20001 an operand or
        attribute that the kernels cannot take.
    """
    importer = Importer(nodes, input_shapes, HANDLERS)
    importer.nodes.update(branches.pin_constants(importer.nodes))
    _check_names(importer, out_nodes)
    wanted = out_nodes or leaves(nodes)
    roots = [name for name, _ in wanted]
    needed = reachable(importer.nodes, roots)
    _check_support(needed + list(functions.bodies_of(needed)))
    control_flow.import_all(importer, roots, needed)
    return list(importer.ops.values()), [_output(importer, name, index) for name, index in wanted]


def _output(importer: Importer, name: str, index: int) -> str:
    tensor = importer.tensor(f"{name}:{index}")
    importer.desc(tensor)
    return tensor


def _check_names(importer: Importer, out_nodes: List[Tuple[str, int]]) -> None:
    for name in importer.input_shapes:
        node = importer.nodes.get(name)
        if node is None:
            raise AtcRefusal("E10016", f"--input_shape names node {name}, which the graph does not have")
        if node.op != "Placeholder":
            raise AtcRefusal("E10017", f"--input_shape names node {name}, which is a {node.op}, not an input")
    for name, _ in out_nodes:
        if name not in importer.nodes:
            raise AtcRefusal("E10016", f"--out_nodes names node {name}, which the graph does not have")


def leaves(nodes: List[TfNode]) -> List[Tuple[str, int]]:
    """The outputs of a graph without ``--out_nodes``: what nothing reads."""
    used = {name.partition(":")[0].lstrip("^") for node in nodes for name in node.inputs}
    return [(node.name, 0) for node in nodes if node.name not in used and node.op not in ("NoOp", "Const")]


def _check_support(needed: List[TfNode]) -> None:
    unknown = [node for node in needed if node.op not in OPS and node.op not in PASS_THROUGH]
    if unknown:
        listing = ", ".join(f"{node.name} ({node.op})" for node in unknown)
        raise AtcRefusal(
            "E13010",
            f"no parser or kernel is registered for {len(unknown)} operators: {listing}",
            "The 910 has no kernel of this type.",
            "Replace these operators before freezing.",
        )
    executable = set(HANDLERS) | set(PASS_THROUGH) | _FOLDED | control_flow.OPERATORS
    missing = [node for node in needed if node.op not in executable]
    if missing:
        listing = ", ".join(f"{node.name} ({node.op})" for node in missing)
        raise AtcRefusal(
            "E20001",
            f"the simulated compiler cannot execute {len(missing)} operators: {listing}",
            "The 910 supports them; the simulator does not.",
            "Compile with the real ATC (VXM_TOOLCHAIN=cann).",
        )
