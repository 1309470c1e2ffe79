# SPDX-License-Identifier: Apache-2.0
"""ONNX operators → nodes of a frozen TensorFlow graph, so that one importer and one set of kernels serve both.

ONNX has channels first, the kernels have them last. A transposition therefore adds no node: every value records the
order of its axes, and a node appears only if a reader needs the order of ONNX.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.refusal import AtcRefusal

Order = Tuple[int, ...]
#: onnx.TensorProto.DataType → NumPy name
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


#: No device holds a larger tensor; sizes from a damaged file are never allocated.
MAX_ELEMENTS = 1 << 34


class Value(NamedTuple):
    """A tensor of the new graph; axis i of the ONNX tensor is axis ``order[i]`` of it."""

    tensor: str
    order: Order


class OnnxNode(NamedTuple):
    """One ONNX node with a name that is unique and has no colon."""

    name: str
    type: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    attrs: Dict[str, Any]


class Translator:
    """Nodes made so far, and the tensor of each ONNX tensor."""

    #: opset of the model's default operators; determines the meaning of Softmax
    opset = 13

    def __init__(self, shapes: Dict[str, Tuple[int, ...]], consts: Dict[str, np.ndarray]) -> None:
        self.shapes = shapes
        self.consts = consts
        self.nodes: List[TfNode] = []
        self.values: Dict[str, Value] = {}
        self._names: Dict[str, int] = {}
        self._made: Dict[Tuple[str, Order], str] = {}

    def unique(self, hint: str) -> str:
        """`hint` without colons, numbered if it is already used."""
        name = hint.replace(":", "_")
        count = self._names[name] = self._names.get(name, -1) + 1
        return self.unique(f"{name}__{count}") if count else name

    def emit(self, op: str, hint: str, inputs: Sequence[str], **attrs: object) -> str:
        name = self.unique(hint)
        self.nodes.append(TfNode(name, op, tuple(inputs), attrs))
        return name

    def constant(self, hint: str, value: np.ndarray) -> str:
        array = np.asarray(value)
        return self.emit("Const", hint, [], value=array, dtype=array.dtype.name)

    def shape(self, name: str, node: OnnxNode) -> Tuple[int, ...]:
        if name in self.consts:
            return tuple(self.consts[name].shape)
        if name not in self.shapes:
            raise AtcRefusal(
                "E20001",
                f"{node.name} ({node.type}): the shape of {name} is not known when the model is compiled",
                solution="Export with static shapes or pass --input_shape.",
            )
        count = 1
        for side in self.shapes[name]:
            count *= side
        if count > MAX_ELEMENTS:
            raise AtcRefusal(
                "E20001", f"{node.name} ({node.type}): {name} has shape {self.shapes[name]}, too large for a device"
            )
        return self.shapes[name]

    def const(self, node: OnnxNode, position: int) -> Optional[np.ndarray]:
        """Value of an operand, None if it is omitted; E20001 if it is not constant."""
        if position >= len(node.inputs) or not node.inputs[position]:
            return None
        if node.inputs[position] not in self.consts:
            raise AtcRefusal("E20001", f"{node.name} ({node.type}): operand {position} is not a constant")
        return self.consts[node.inputs[position]]

    def order(self, name: str, rank: int) -> Order:
        return self.values[name].order if name in self.values else tuple(range(rank))

    def get(self, name: str, order: Optional[Order] = None) -> str:
        """The tensor of an ONNX value with its axes in `order` (None: ONNX order)."""
        if name in self.consts:
            return self._constant_in_order(name, order)
        value = self.values[name]
        wanted = order if order is not None else tuple(range(len(value.order)))
        if value.order == wanted:
            return value.tensor
        # Axis k of the result is the ONNX axis that `wanted` puts there.
        perm = [value.order[wanted.index(k)] for k in range(len(wanted))]
        key = (value.tensor, tuple(perm))
        if key not in self._made:
            hint = value.tensor.replace(":", "_")
            self._made[key] = self.emit(
                "Transpose", f"{hint}/order", [value.tensor, self.constant(f"{hint}/perm", np.int32(perm))]
            )
        return self._made[key]

    def _constant_in_order(self, name: str, order: Optional[Order]) -> str:
        array = self.consts[name]
        if order is not None and len(order) == array.ndim:
            array = np.ascontiguousarray(array.transpose([order.index(k) for k in range(array.ndim)]))
        key = (name, order or ())
        if key not in self._made:
            self._made[key] = self.constant(name, array)
        return self._made[key]

    def put(self, node: OnnxNode, tensor: str, order: Optional[Order] = None, index: int = 0) -> None:
        """Record the tensor of an output of `node`."""
        rank = len(self.shape(node.outputs[index], node))
        self.values[node.outputs[index]] = Value(tensor, order if order is not None else tuple(range(rank)))


def unary(op: str, **attrs: str) -> Callable[[Translator, OnnxNode], None]:
    def build(made: Translator, node: OnnxNode) -> None:
        order = made.order(node.inputs[0], len(made.shape(node.inputs[0], node)))
        given = {theirs: node.attrs[ours] for ours, theirs in attrs.items() if ours in node.attrs}
        made.put(node, made.emit(op, node.name, [made.get(node.inputs[0], order)], **given), order)

    return build


def _leaky_relu(made: Translator, node: OnnxNode) -> None:
    unary("LeakyRelu", alpha="alpha")(made, node._replace(attrs={"alpha": node.attrs.get("alpha", 0.01)}))


def _cast(made: Translator, node: OnnxNode) -> None:
    if node.attrs.get("to") not in DTYPES:
        raise AtcRefusal(
            "E20001", f"{node.name} (Cast): to data type {node.attrs.get('to')}, expected one of {sorted(DTYPES)}"
        )
    unary("Cast", to="DstT")(made, node._replace(attrs={"to": DTYPES[node.attrs["to"]]}))


def _alias(made: Translator, node: OnnxNode) -> None:
    made.values[node.outputs[0]] = Value(made.get(node.inputs[0]), tuple(range(len(made.shape(node.inputs[0], node)))))


def binary(op: str) -> Callable[[Translator, OnnxNode], None]:
    """Two or more operands (Max and Min take any number); operands of one rank take the order of the first transposed
    one.
    """

    def build(made: Translator, node: OnnxNode) -> None:
        rank = len(made.shape(node.outputs[0], node))
        ranks = [len(made.shape(name, node)) for name in node.inputs]
        turned = [
            made.order(name, rank) for name, own in zip(node.inputs, ranks) if name in made.values and own == rank
        ]
        order = next((order for order in turned if order != tuple(range(rank))), tuple(range(rank)))
        small = [name in made.consts and made.consts[name].size == 1 for name in node.inputs]
        if not all(own == rank or one for own, one in zip(ranks, small)):
            order = tuple(range(rank))
        operands = [made.get(name, order if own == rank else None) for name, own in zip(node.inputs, ranks)]
        result = operands[0]
        for operand in operands[1:]:
            result = made.emit(op, node.name, [result, operand])
        made.put(node, result, order)

    return build


def _clip(made: Translator, node: OnnxNode) -> None:
    order = made.order(node.inputs[0], len(made.shape(node.inputs[0], node)))
    tensor = made.get(node.inputs[0], order)
    for position, (key, op) in enumerate((("min", "Maximum"), ("max", "Minimum")), 1):
        bound = made.const(node, position)
        if bound is None and key in node.attrs:
            bound = np.float32(node.attrs[key])
        if bound is not None:
            tensor = made.emit(
                op, node.name, [tensor, made.constant(f"{node.name}/{key}", np.asarray(bound).reshape(()))]
            )
    made.put(node, tensor, order)


def padding_of(
    node: OnnxNode, sides: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Tuple[str, Tuple[int, ...]]:
    """(TensorFlow's padding mode, pads to add); ONNX lists all pads before, then all after."""
    auto = node.attrs.get("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if auto in ("SAME_UPPER", "VALID"):
        return auto.partition("_")[0], ()
    if auto == "SAME_LOWER":
        before, after = _same(sides, kernel, strides, dilations)
        # The odd voxel goes first.
        return "VALID", tuple(after + before)
    if auto != "NOTSET":
        raise AtcRefusal("E20001", f"{node.name} ({node.type}): auto_pad {auto} is not supported")
    pads = tuple(node.attrs.get("pads") or (0,) * (2 * len(sides)))
    if not any(pads):
        return "VALID", ()
    before, after = _same(sides, kernel, strides, dilations)
    ceiled = bool(node.attrs.get("ceil_mode"))
    return ("SAME", ()) if pads == tuple(before + after) and not ceiled else ("VALID", pads)


def _same(
    sides: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Tuple[List[int], List[int]]:
    """Padding of SAME before and after each axis."""
    before, after = [], []
    for side, width, stride, dilation in zip(sides, kernel, strides, dilations):
        total = max((-(-side // stride) - 1) * stride + (width - 1) * dilation + 1 - side, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before, after


def _concat(made: Translator, node: OnnxNode) -> None:
    rank = len(made.shape(node.outputs[0], node))
    orders = {made.order(name, rank) for name in node.inputs if name in made.values}
    order = orders.pop() if len(orders) == 1 else tuple(range(rank))
    axis = order[node.attrs["axis"] % rank]
    inputs = [made.get(name, order) for name in node.inputs] + [made.constant(f"{node.name}/axis", np.int32(axis))]
    made.put(node, made.emit("ConcatV2", node.name, inputs, N=len(node.inputs)), order)


def _reshape(made: Translator, node: OnnxNode) -> None:
    """Reshape, Squeeze, Unsqueeze, Flatten: the shape of the result is known."""
    shape = made.constant(f"{node.name}/shape", np.int32(made.shape(node.outputs[0], node)))
    made.put(node, made.emit("Reshape", node.name, [made.get(node.inputs[0]), shape]))


def _transpose(made: Translator, node: OnnxNode) -> None:
    rank = len(made.shape(node.inputs[0], node))
    perm = node.attrs.get("perm") or tuple(reversed(range(rank)))
    if node.inputs[0] in made.consts:
        made.consts[node.outputs[0]] = made.consts[node.inputs[0]].transpose(perm)
        return
    value = made.values[node.inputs[0]]
    made.values[node.outputs[0]] = Value(value.tensor, tuple(value.order[k] for k in perm))


def _cut(made: Translator, hint: str, tensor: str, begin: Sequence[int], size: Sequence[int]) -> str:
    operands = [made.constant(f"{hint}/begin", np.int32(begin)), made.constant(f"{hint}/size", np.int32(size))]
    return made.emit("Slice", hint, [tensor] + operands)


def _split(made: Translator, node: OnnxNode) -> None:
    shape = made.shape(node.inputs[0], node)
    axis = node.attrs.get("axis", 0) % len(shape)
    order = made.order(node.inputs[0], len(shape))
    tensor, begin = made.get(node.inputs[0], order), 0
    for index, name in enumerate(node.outputs):
        size = list(shape)
        size[axis] = made.shape(name, node)[axis]
        start = [begin if i == axis else 0 for i in range(len(shape))]
        places = [order.index(k) for k in range(len(shape))]
        part = _cut(made, node.name, tensor, [start[i] for i in places], [size[i] for i in places])
        made.put(node, part, order, index)
        begin += size[axis]


def _tile(made: Translator, node: OnnxNode) -> None:
    """Tile and Expand: both repeat; the result's shape is known."""
    source, target = made.shape(node.inputs[0], node), made.shape(node.outputs[0], node)
    padded = (1,) * (len(target) - len(source)) + source
    tensor = made.get(node.inputs[0])
    if padded != source:
        tensor = made.emit(
            "Reshape", f"{node.name}/rank", [tensor, made.constant(f"{node.name}/shape", np.int32(padded))]
        )
    repeats = made.constant(f"{node.name}/repeats", np.int32([t // s for t, s in zip(target, padded)]))
    made.put(node, made.emit("Tile", node.name, [tensor, repeats]))


def _batch_norm(made: Translator, node: OnnxNode) -> None:
    """In inference it is a factor and an offset per channel."""
    scale, offset, mean, variance = (np.asarray(made.const(node, position), np.float64) for position in (1, 2, 3, 4))
    factor = scale / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    rank = len(made.shape(node.inputs[0], node))
    last = (0, rank - 1) + tuple(range(1, rank - 1))
    tensor = made.get(node.inputs[0], last)
    for op, value in (("Mul", factor), ("AddV2", offset - mean * factor)):
        tensor = made.emit(op, node.name, [tensor, made.constant(f"{node.name}/{op}", value.astype(np.float32))])
    made.put(node, tensor, last)


HANDLERS: Dict[str, Callable[[Translator, OnnxNode], None]] = {
    "LeakyRelu": _leaky_relu,
    "Cast": _cast,
    "Identity": _alias,
    "Dropout": _alias,
    "Clip": _clip,
    "Concat": _concat,
    "Reshape": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Flatten": _reshape,
    "Transpose": _transpose,
    "Split": _split,
    "Tile": _tile,
    "Expand": _tile,
    "BatchNormalization": _batch_norm,
    **{name: unary(name) for name in "Relu Sigmoid Tanh Abs Neg Exp Sqrt Floor Round".split()},
    **{
        name: binary(op)
        for name, op in {
            "Add": "AddV2",
            "Sub": "Sub",
            "Mul": "Mul",
            "Div": "RealDiv",
            "Max": "Maximum",
            "Min": "Minimum",
        }.items()
    },
}
