# SPDX-License-Identifier: Apache-2.0
"""Nodes that work element by element, with broadcasting."""

from __future__ import annotations

from typing import Callable, Dict

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer, broadcast
from vxm_convert.sim.refusal import AtcRefusal


def _unary(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    attrs = {}
    if node.op == "LeakyRelu":
        alpha = node.attrs.get("alpha")
        attrs["negative_slope"] = 0.2 if alpha is None else float(alpha)
    importer.add(node, OPS[node.op].ge_type, node.inputs[:1], [(source.dtype, source.shape)], source.layout, **attrs)


def _binary(importer: Importer, node: TfNode) -> None:
    left, right = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    shape = broadcast(node, left.shape, right.shape)
    importer.add(
        node, OPS[node.op].ge_type, node.inputs[:2], [(left.dtype, shape)], _layout(importer, node, len(shape))
    )


def _whole(importer: Importer, node: TfNode) -> None:
    """TruncateDiv: TensorFlow truncates integers only."""
    if not importer.desc(node.inputs[0]).dtype.startswith("int"):
        raise AtcRefusal(
            "E20001", f"{node.name}: TruncateDiv takes integers, not {importer.desc(node.inputs[0]).dtype}"
        )
    _binary(importer, node)


def _compare(importer: Importer, node: TfNode) -> None:
    shape = broadcast(node, *(importer.desc(name).shape for name in node.inputs[:2]))
    importer.add(node, OPS[node.op].ge_type, node.inputs[:2], [("bool", shape)], _layout(importer, node, len(shape)))


def _question(importer: Importer, node: TfNode) -> None:
    """IsFinite, IsInf, IsNan: one operand, a truth value."""
    source = importer.desc(node.inputs[0])
    importer.add(node, OPS[node.op].ge_type, node.inputs[:1], [("bool", source.shape)], source.layout)


def _many(importer: Importer, node: TfNode) -> None:
    """AddN, ClipByValue: any number of operands with the type of the first."""
    names = [name for name in node.inputs if not name.startswith("^")]
    shape = broadcast(node, *(importer.desc(name).shape for name in names))
    attrs = {"N": len(names)} if node.op != "ClipByValue" else {}
    importer.add(
        node,
        OPS[node.op].ge_type,
        names,
        [(importer.desc(names[0]).dtype, shape)],
        _layout(importer, node, len(shape)),
        **attrs,
    )


def _select(importer: Importer, node: TfNode) -> None:
    """Select of version 1 takes a vector of conditions for the rows of its operands."""
    condition, left, right = (importer.desc(name) for name in node.inputs[:3])
    first = condition.shape
    if node.op == "Select" and len(first) == 1 and len(left.shape) > 1:
        first = first + (1,) * (len(left.shape) - 1)
    shape = broadcast(node, first, left.shape, right.shape)
    importer.add(node, node.op, node.inputs[:3], [(left.dtype, shape)], condition_shape=list(first))


def _cast(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    target = node.attrs["DstT"]
    if target not in ("float16", "float32", "uint8", "int8", "int32", "int64", "bool"):
        raise AtcRefusal("E20001", f"{node.name}: no kernel casts {source.dtype} to {target}")
    truncate = bool(node.attrs.get("Truncate", False))
    importer.add(node, "Cast", node.inputs[:1], [(target, source.shape)], source.layout, truncate=truncate)


def _layout(importer: Importer, node: TfNode, rank: int) -> str:
    """An element-wise result has the layout of its operands."""
    descs = [importer.desc(name) for name in node.inputs if not name.startswith("^")]
    return next((desc.layout for desc in descs if len(desc.shape) == rank), "")


_UNARY = (
    "LeakyRelu Relu Relu6 Elu Selu Sigmoid Tanh Square Sqrt Rsqrt Neg Abs Exp Expm1 Log Log1p Floor Ceil Round Rint "
    "Sign Softplus "
    "Softsign Reciprocal Inv Erf Erfc Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh LogicalNot"
)
_BINARY = (
    "Add AddV2 Sub Mul RealDiv Div DivNoNan Maximum Minimum FloorDiv FloorMod SquaredDifference Pow LogicalAnd "
    "LogicalOr "
)
_BINARY += "Mod TruncateMod Xdivy Xlogy MulNoNan"
_COMPARISONS = "Less LessEqual Greater GreaterEqual Equal NotEqual"
HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    "Cast": _cast,
    "TruncateDiv": _whole,
    "AddN": _many,
    "AccumulateNV2": _many,
    "ClipByValue": _many,
    "Select": _select,
    "SelectV2": _select,
    **{name: _question for name in "IsFinite IsInf IsNan".split()},
    **{name: _unary for name in _UNARY.split()},
    **{name: _binary for name in _BINARY.split()},
    **{name: _compare for name in _COMPARISONS.split()},
}
