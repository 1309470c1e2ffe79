# SPDX-License-Identifier: Apache-2.0
"""Static shapes of a frozen graph: a small walker for the operators of our graphs, or TensorFlow's own where it is
there.

A shape is a tuple (−1 for an unknown side) or None for "unknown". What the walker does not know stays unknown; it
never guesses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from export.preflight.view.loop_shapes import MORE_RULES, Walker
from vxm_convert.formats.tf_graph import TfNode

Shape = Optional[Tuple[int, ...]]
Shapes = Dict[str, Shape]

MAX_FOLDED = 64
#: a loop's body is walked before the shapes that go round are known; the third look sees where the second contradicted
#: the first
_LOOP_WALKS = 3


def tensor_name(entry: str) -> str:
    """An input as ``node:index``."""
    return entry if ":" in entry else entry + ":0"


def count(shape: Sequence[int]) -> int:
    """Number of elements; exact for absurd sides too."""
    total = 1
    for side in shape:
        total *= int(side)
    return total


def data_inputs(node: TfNode) -> List[str]:
    """Inputs that carry data, as ``node:index``; control edges are left out."""
    return [tensor_name(entry) for entry in node.inputs if not entry.startswith("^")]


def tensorflow_shapes(path: Path, input_shapes: Optional[Mapping[str, Tuple[int, ...]]] = None) -> Shapes:
    """What TensorFlow 1.15 infers when it imports the graph; raises ToolchainError where it is missing.

    Parameters
    ----------
    input_shapes : dict or None — placeholder → shape that replaces the graph's.
    """
    from vxm_convert.network.tf1 import tf

    graph_def = tf.GraphDef()
    graph_def.ParseFromString(Path(path).read_bytes())
    for node in graph_def.node:
        if node.op == "Placeholder" and node.name in (input_shapes or {}):
            sides = (input_shapes or {})[node.name]
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(sides).as_proto())
            # Shapes that the graph records for readers would contradict the new ones.
            node.attr.pop("_output_shapes", None)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    shapes: Shapes = {}
    for op in graph.get_operations():
        for index, output in enumerate(op.outputs):
            known = output.shape.rank is not None
            shapes[f"{op.name}:{index}"] = (
                tuple(-1 if n is None else n for n in output.shape.as_list()) if known else None
            )
    return shapes


def infer_shapes(ordered: Sequence[TfNode], known: Optional[Shapes] = None) -> Shapes:
    """Walk the nodes in execution order.

    Parameters
    ----------
    ordered : sequence of TfNode — producers before readers; a reader of something not yet walked (a loop) gets None.
    known : dict or None — e.g. TensorFlow's; where it has all sides it is believed, and outputs that it names are
        there.
    """
    walker = _Walker(known or {})
    for _ in range(_LOOP_WALKS if any(node.op == "Merge" for node in ordered) else 1):
        for node in ordered:
            walker.visit(node)
    return walker.shapes


class _Walker(Walker):
    def __init__(self, known: Shapes) -> None:
        super().__init__()
        self.known = known
        self.shapes: Shapes = {}

    def visit(self, node: TfNode) -> None:
        rule = _RULES.get(node.op)
        try:
            outputs = rule(self, node) if rule else [None]
        except (IndexError, KeyError, ValueError, TypeError, ZeroDivisionError, OverflowError):
            # Malformed or of unknown parts: whoever checks the node will say so, the walker only does not know.
            outputs = [None]
        index = 0
        while index < len(outputs) or f"{node.name}:{index}" in self.known:
            name = f"{node.name}:{index}"
            given, own = self.known.get(name), outputs[index] if index < len(outputs) else None
            self.shapes[name] = given if own is None or (given is not None and -1 not in given) else own
            index += 1

    def shape(self, node: TfNode, position: int) -> Tuple[int, ...]:
        found = self.shapes.get(data_inputs(node)[position])
        if found is None:
            raise ValueError("unknown shape")
        return found

    def value(self, node: TfNode, position: int) -> np.ndarray:
        return self.values[self.source(node, position)]

    def source(self, node: TfNode, position: int) -> str:
        return data_inputs(node)[position]

    def keep_value(self, node: TfNode, value: object) -> None:
        self.values[node.name + ":0"] = np.asarray(value)

    def passed_on(self, node: TfNode, position: int, outputs: Tuple[int, ...]) -> Shape:
        source = self.source(node, position)
        for index in outputs:
            name = f"{node.name}:{index}"
            if source in self.sizes:
                self.sizes[name] = self.sizes[source]
            if source in self.elements:
                self.elements[name] = self.elements[source]
        return self.shapes.get(source)


def _constant(walker: _Walker, node: TfNode) -> List[Shape]:
    value = np.asarray(node.attrs["value"])
    if value.size <= MAX_FOLDED:
        walker.values[node.name + ":0"] = value
    return [value.shape]


def _placeholder(walker: _Walker, node: TfNode) -> List[Shape]:
    return [node.attrs.get("shape")]


def _same(walker: _Walker, node: TfNode) -> List[Shape]:
    source = data_inputs(node)[0]
    if node.op == "Identity" and source in walker.values:
        walker.values[node.name + ":0"] = walker.values[source]
    return [walker.passed_on(node, 0, (0,))]


def _broadcast(walker: _Walker, node: TfNode) -> List[Shape]:
    left, right = walker.shape(node, 0), walker.shape(node, 1)
    rank = max(len(left), len(right))
    sides = []
    for a, b in zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right):
        if a != b and 1 not in (a, b) and -1 not in (a, b):
            raise ValueError("no broadcast")
        sides.append(b if a == 1 else a if b in (1, a) else max(a, b))
    return [tuple(sides)]


def conv_sides(node: TfNode, sides: Sequence[int], kernel: Sequence[int]) -> Tuple[int, ...]:
    """Output sides of a convolution or pooling over the middle axes, −1 where the input's is unknown."""
    strides, dilations = node.attrs["strides"], node.attrs.get("dilations") or (1,) * (len(sides) + 2)
    if not len(sides) == len(kernel) == len(strides) - 2 == len(dilations) - 2:
        raise ValueError("axes do not fit")
    out = []
    for side, width, stride, dilation in zip(sides, kernel, strides[1:-1], dilations[1:-1]):
        reach = (width - 1) * dilation + 1
        count = -(-side // stride) if node.attrs.get("padding") == "SAME" else (side - reach) // stride + 1
        out.append(-1 if side < 0 else count)
    return tuple(out)


def _conv(walker: _Walker, node: TfNode) -> List[Shape]:
    source, filters = walker.shape(node, 0), walker.shape(node, 1)
    if node.attrs.get("data_format", "NDHWC") not in ("NDHWC", "NHWC"):
        raise ValueError("channels first")
    return [source[:1] + conv_sides(node, source[1:-1], filters[:-2]) + filters[-1:]]


def _pool(walker: _Walker, node: TfNode) -> List[Shape]:
    source = walker.shape(node, 0)
    return [source[:1] + conv_sides(node, source[1:-1], node.attrs["ksize"][1:-1]) + source[-1:]]


def _concat(walker: _Walker, node: TfNode) -> List[Shape]:
    parts = [walker.shape(node, k) for k in range(len(data_inputs(node)) - 1)]
    axis = _axis(walker.value(node, -1), len(parts[0]))
    along = [part[axis] for part in parts]
    return [parts[0][:axis] + (-1 if -1 in along else sum(along),) + parts[0][axis + 1 :]]


def _axis(value: object, rank: int) -> int:
    axis: int = int(value)  # type: ignore[call-overload]
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis < rank:
        raise ValueError("axis")
    return axis


def _reshape(walker: _Walker, node: TfNode) -> List[Shape]:
    shape = tuple(int(n) for n in walker.value(node, 1))
    if -1 in shape:
        source = walker.shape(node, 0)
        if -1 in source:
            return [shape]
        known = count([n for n in shape if n != -1])
        shape = tuple(count(source) // max(known, 1) if n == -1 else n for n in shape)
    return [shape]


def _squeeze(walker: _Walker, node: TfNode) -> List[Shape]:
    source = walker.shape(node, 0)
    axes = [_axis(a, len(source)) for a in node.attrs.get("squeeze_dims") or ()] or [
        i for i, n in enumerate(source) if n == 1
    ]
    return [tuple(n for i, n in enumerate(source) if i not in axes)]


def _expand_dims(walker: _Walker, node: TfNode) -> List[Shape]:
    source = walker.shape(node, 0)
    axis = _axis(walker.value(node, 1), len(source) + 1)
    return [source[:axis] + (1,) + source[axis:]]


def _transpose(walker: _Walker, node: TfNode) -> List[Shape]:
    source = walker.shape(node, 0)
    return [tuple(source[int(p)] for p in walker.value(node, 1))]


def _gather(walker: _Walker, node: TfNode) -> List[Shape]:
    source, indices = walker.shape(node, 0), walker.shape(node, 1)
    axis = _axis(walker.value(node, 2), len(source)) if node.op == "GatherV2" else 0
    return [source[:axis] + indices + source[axis + 1 :]]


def _gather_nd(walker: _Walker, node: TfNode) -> List[Shape]:
    source, indices = walker.shape(node, 0), walker.shape(node, 1)
    return [indices[:-1] + source[indices[-1] :]]


def _unpack(walker: _Walker, node: TfNode) -> List[Shape]:
    source = walker.shape(node, 0)
    axis = _axis(node.attrs.get("axis", 0), len(source))
    return [source[:axis] + source[axis + 1 :]] * int(node.attrs["num"])


def _split(walker: _Walker, node: TfNode) -> List[Shape]:
    source, count = walker.shape(node, 1), int(node.attrs["num_split"])
    axis = _axis(walker.value(node, 0), len(source))
    return [source[:axis] + (source[axis] // count,) + source[axis + 1 :]] * count


def _tile(walker: _Walker, node: TfNode) -> List[Shape]:
    return [tuple(-1 if n < 0 else n * int(m) for n, m in zip(walker.shape(node, 0), walker.value(node, 1)))]


def _pad(walker: _Walker, node: TfNode) -> List[Shape]:
    return [
        tuple(-1 if n < 0 else n + int(a) + int(b) for n, (a, b) in zip(walker.shape(node, 0), walker.value(node, 1)))
    ]


def _slice(walker: _Walker, node: TfNode) -> List[Shape]:
    begin, size = walker.value(node, 1), walker.value(node, 2)
    return [tuple(int(s) if s != -1 else n - int(b) for n, b, s in zip(walker.shape(node, 0), begin, size))]


def _fill(walker: _Walker, node: TfNode) -> List[Shape]:
    return [tuple(int(n) for n in walker.value(node, 0))]


def _reduce(walker: _Walker, node: TfNode) -> List[Shape]:
    source = walker.shape(node, 0)
    axes = [_axis(a, len(source)) for a in np.atleast_1d(walker.value(node, 1))]
    kept = node.attrs.get("keep_dims", False)
    return [tuple(1 if i in axes else n for i, n in enumerate(source) if kept or i not in axes)]


def _matmul(walker: _Walker, node: TfNode) -> List[Shape]:
    left, right = walker.shape(node, 0), walker.shape(node, 1)
    return [(left[1 if node.attrs.get("transpose_a") else 0], right[0 if node.attrs.get("transpose_b") else 1])]


_UNARY = (
    "Identity BiasAdd LeakyRelu Relu Elu Sigmoid Tanh Square Sqrt Rsqrt Neg Abs Exp Floor Round Cast ZerosLike "
    "OnesLike Softmax "
    "StopGradient Snapshot PreventGradient LogicalNot Relu6 LogSoftmax Log Log1p Expm1 Ceil Rint Sign Reciprocal Inv "
    "Softplus Softsign "
    "Selu Erf Sin Cos ClipByValue AddN PlaceholderWithDefault Enter Exit NextIteration "
    "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3"
)
_BINARY = (
    "Add AddV2 Sub Mul RealDiv Div DivNoNan Maximum Minimum FloorDiv FloorMod Less LessEqual Greater GreaterEqual "
    "Equal NotEqual "
    "LogicalAnd LogicalOr Pow SquaredDifference"
)
_RULES: Dict[str, Callable[[_Walker, TfNode], List[Shape]]] = {
    "Const": _constant,
    "Placeholder": _placeholder,
    "Conv3D": _conv,
    "Conv2D": _conv,
    "MaxPool3D": _pool,
    "AvgPool3D": _pool,
    "MaxPool": _pool,
    "AvgPool": _pool,
    "ConcatV2": _concat,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "ExpandDims": _expand_dims,
    "Transpose": _transpose,
    "GatherV2": _gather,
    "Gather": _gather,
    "GatherNd": _gather_nd,
    "Unpack": _unpack,
    "Split": _split,
    "Tile": _tile,
    "Pad": _pad,
    "PadV2": _pad,
    "MirrorPad": _pad,
    "Slice": _slice,
    "MatMul": _matmul,
    # Their first input is the shape of the result.
    **{name: _fill for name in "Fill RandomStandardNormal Conv2DBackpropInput Conv3DBackpropInputV2".split()},
    **{name: _reduce for name in "Mean Sum Prod Max Min".split()},
    **MORE_RULES,
    **{name: _same for name in _UNARY.split()},
    **{name: _broadcast for name in _BINARY.split()},
}
