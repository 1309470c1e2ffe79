# SPDX-License-Identifier: Apache-2.0
"""Computations of an ONNX model on constants and shapes alone, which exporters write to compute sizes.

ONNX's own reference implementation computes it. A new constant can make shapes known, and a new shape other constants,
so shape inference and folding alternate until nothing changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, List, Tuple

import numpy as np

from vxm_convert.sim.frontends.onnx.ops import OnnxNode
from vxm_convert.sim.refusal import AtcRefusal

if TYPE_CHECKING:
    import onnx

Shapes = Dict[str, Tuple[int, ...]]
#: Operators that only folding executes.
KNOWN = ("Constant", "Shape", "Size", "ConstantOfShape", "Range")
#: Largest number of elements of a folded constant; a larger constant belongs into the file.
MAX_FOLDED = 1 << 24
#: Constants with up to this many elements may be sizes, and are passed to the shape inference.
_MAX_SIZES = 64


def fold_known(
    model: onnx.ModelProto,
    nodes: List[OnnxNode],
    consts: Dict[str, np.ndarray],
    opset: int,
    infer: Callable[[onnx.ModelProto], Shapes],
) -> Shapes:
    """Add known values to `consts`, in place; returns the static shapes of all tensors. `model` loses the folded nodes."""
    from onnx import numpy_helper

    while True:
        shapes = infer(model)
        found: Dict[str, np.ndarray] = {}
        for node in nodes:
            if node.outputs[0] not in consts:
                values = _values(node, consts, shapes, opset)
                found.update(values)
                consts.update(values)
        if not found:
            return shapes
        # A large constant is not a size; its node stays, so that the shape inference knows its shape.
        small = {name: value for name, value in found.items() if value.size <= _MAX_SIZES}
        kept = [node for node in model.graph.node if not set(node.output) <= set(small)]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in small.items())


def _values(node: OnnxNode, consts: Dict[str, np.ndarray], shapes: Shapes, opset: int) -> Dict[str, np.ndarray]:
    """Outputs if they are known by now, else empty."""
    if node.type in ("Shape", "Size"):
        source = node.inputs[0] if node.inputs else ""
        shape = consts[source].shape if source in consts else shapes.get(source)
        if shape is None:
            return {}
        picked = shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
        return {
            node.outputs[0]: np.array(picked, np.int64)
            if node.type == "Shape"
            else np.array(np.prod(shape, dtype=np.int64))
        }
    if not node.inputs or not all(name in consts for name in node.inputs if name):
        return {}
    _check_size(node, consts, shapes)
    return _compute(node, consts, opset)


def _check_size(node: OnnxNode, consts: Dict[str, np.ndarray], shapes: Shapes) -> None:
    counts = [int(np.prod(shapes[name], dtype=np.float64)) for name in node.outputs if name in shapes]
    if node.type == "ConstantOfShape" or node.type == "Expand":
        counts.append(int(np.prod(np.maximum(consts[node.inputs[-1]], 1), dtype=np.float64)))
    if node.type == "Tile":
        counts.append(
            int(consts[node.inputs[0]].size * np.prod(np.maximum(consts[node.inputs[1]], 1), dtype=np.float64))
        )
    if node.type == "Range":
        start, limit, delta = (float(consts[name]) for name in node.inputs)
        counts.append(int(abs((limit - start) / delta)) if delta else MAX_FOLDED + 1)
    if max(counts or [0]) > MAX_FOLDED:
        raise AtcRefusal(
            "E20001",
            f"{node.name} ({node.type}): a computed constant of {max(counts)} elements, expected at most {MAX_FOLDED}",
        )


def _compute(node: OnnxNode, consts: Dict[str, np.ndarray], opset: int) -> Dict[str, np.ndarray]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    given = [name for name in dict.fromkeys(node.inputs) if name]
    graph = helper.make_graph(
        [helper.make_node(node.type, node.inputs, node.outputs, **node.attrs)],
        "fold",
        [helper.make_empty_tensor_value_info(name) for name in given],
        [helper.make_empty_tensor_value_info(name) for name in node.outputs],
    )
    single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        values = ReferenceEvaluator(single).run(None, {name: consts[name] for name in given})
    except Exception as exc:  # the reference implementation raises its own errors and those of NumPy
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.type}): its constant operands do not fit together ({exc})"
        ) from exc
    return {name: np.asarray(value) for name, value in zip(node.outputs, values)}
