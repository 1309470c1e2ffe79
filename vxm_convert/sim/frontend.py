# SPDX-License-Identifier: Apache-2.0
"""Frozen TensorFlow graph → operators of the device's graph language, with static shapes, still in fp32.

Each handler turns one TensorFlow node into at most one operator and infers its shape. What the real parser folds into
attributes (axes, target shapes, permutations) is folded here; nodes that no output needs are left out.
"""
from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.op_table import OPS
from vxm_convert.sim.refusal import AtcRefusal

Shape = Tuple[int, ...]
INPUT_DTYPES = ("float16", "float32", "uint8", "int32", "int64", "bool")
_PASS_THROUGH = ("Identity", "StopGradient", "Snapshot", "PreventGradient", "PlaceholderWithDefault")


class Importer:
    """Collects operators while walking the graph; handlers use its small helpers."""

    def __init__(self, nodes: List[TfNode], input_shapes: Dict[str, Shape]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.input_shapes = input_shapes
        self.ops: Dict[str, Op] = {}
        self.aliases: Dict[str, str] = {}

    def tensor(self, name: str) -> str:
        """``node`` or ``node:index`` of the pb → ``op:index`` of the compiled graph."""
        node, _, index = name.partition(":")
        full = f"{node}:{index or 0}"
        return self.aliases.get(full, full)

    def desc(self, name: str) -> Desc:
        op_name, _, index = self.tensor(name).rpartition(":")
        return self.ops[op_name].output_descs[int(index)]

    def const(self, node: TfNode, position: int) -> np.ndarray:
        """Value of a constant operand; the device needs it at compile time."""
        source = self.ops[self.tensor(node.inputs[position]).rpartition(":")[0]]
        if source.data is None:
            raise AtcRefusal(
                "E20001", f"operand {position} of {node.name} ({node.op}) is not a constant",
                "The kernel needs this operand when the model is compiled.", "Freeze the graph with static shapes.",
            )
        return source.data

    def add(self, node: TfNode, ge_type: str, inputs: Sequence[str], outputs: Sequence[Tuple[str, Shape]], **attrs: object) -> None:
        """Append an operator whose inputs are tensors of the pb and whose outputs are (dtype, shape)."""
        sources = [self.tensor(name) for name in inputs]
        descs = [self.desc(name) for name in inputs]
        result = [Desc(dtype, tuple(int(n) for n in shape), layout_of(shape)) for dtype, shape in outputs]
        attrs.setdefault("_datadump_original_op_names", [node.name])
        self.ops[node.name] = Op(node.name, ge_type, sources, dict(attrs), descs, result)


def layout_of(shape: Sequence[int]) -> str:
    """Five dimensions are a volume with channels last; everything else has no layout."""
    return "NDHWC" if len(shape) == 5 else "ND"


def import_graph(nodes: List[TfNode], input_shapes: Dict[str, Shape], out_nodes: List[Tuple[str, int]]) -> Tuple[List[Op], List[str]]:
    """Operators in topological order, and the tensor behind each requested output.

    Parameters
    ----------
    input_shapes : dict — shapes given by ``--input_shape``; they replace the graph's without being compared with them.
    out_nodes : list of (node, index) — outputs in order; empty means the leaves of the graph.

    Raises
    ------
    AtcRefusal
        E13010 lists every node without a kernel; E10016/E10017 a wrong input or output name; E20001 an operand or
        attribute that the kernels cannot take.
    """
    importer = Importer(nodes, input_shapes)
    _check_names(importer, out_nodes)
    wanted = out_nodes or _leaves(nodes)
    order = _needed_in_order(importer.nodes, [name for name, _ in wanted])
    _check_support(order)
    for node in order:
        _import_node(importer, node)
    return list(importer.ops.values()), [importer.tensor(f"{name}:{index}") for name, index in wanted]


def _check_names(importer: Importer, out_nodes: List[Tuple[str, int]]) -> None:
    for name in importer.input_shapes:
        node = importer.nodes.get(name)
        if node is None:
            raise AtcRefusal("E10016", f"--input_shape names node {name}, which the graph does not have")
        if node.op != "Placeholder":
            raise AtcRefusal("E10017", f"--input_shape names node {name}, which is a {node.op} and no input")
    for name, _ in out_nodes:
        if name not in importer.nodes:
            raise AtcRefusal("E10016", f"--out_nodes names node {name}, which the graph does not have")


def _leaves(nodes: List[TfNode]) -> List[Tuple[str, int]]:
    used = {name.partition(":")[0].lstrip("^") for node in nodes for name in node.inputs}
    return [(node.name, 0) for node in nodes if node.name not in used and node.op not in ("NoOp", "Const")]


def _needed_in_order(nodes: Dict[str, TfNode], roots: List[str]) -> List[TfNode]:
    """Depth-first from the outputs, without recursion (graphs are deep); all placeholders come first."""
    order = [node for node in nodes.values() if node.op == "Placeholder"]
    done = {node.name for node in order}
    stack = [(name, False) for name in reversed(roots)]
    open_nodes = set()
    while stack:
        name, expanded = stack.pop()
        if name in done:
            continue
        if name not in nodes:
            raise AtcRefusal("E13026", f"a node reads {name}, which the graph does not have")
        if expanded:
            done.add(name)
            open_nodes.discard(name)
            order.append(nodes[name])
            continue
        if name in open_nodes:
            raise AtcRefusal("E13026", f"node {name} depends on itself; loops are not supported by the simulated compiler")
        open_nodes.add(name)
        stack.append((name, True))
        sources = [entry.partition(":")[0] for entry in nodes[name].inputs if not entry.startswith("^")]
        stack.extend((source, False) for source in reversed(sources) if source not in done)
    return order


def _check_support(order: List[TfNode]) -> None:
    unknown = [node for node in order if node.op not in OPS and node.op not in _PASS_THROUGH]
    if unknown:
        listing = ", ".join(f"{node.name} ({node.op})" for node in unknown)
        raise AtcRefusal(
            "E13010", f"no parser or kernel is registered for {len(unknown)} operators: {listing}",
            "The 910 has no kernel of this type.", "Replace these operators before freezing.",
        )
    missing = [node for node in order if node.op not in HANDLERS and node.op not in _PASS_THROUGH]
    if missing:
        listing = ", ".join(f"{node.name} ({node.op})" for node in missing)
        raise AtcRefusal(
            "E20001", f"the simulated compiler cannot execute {len(missing)} operators: {listing}",
            "The 910 supports them; this stand-in does not yet.", "Compile with the real ATC (VXM_TOOLCHAIN=cann).",
        )


def _import_node(importer: Importer, node: TfNode) -> None:
    if node.op in _PASS_THROUGH:
        importer.aliases[f"{node.name}:0"] = importer.tensor(node.inputs[0])
        return
    HANDLERS[node.op](importer, node)
    for desc in importer.ops[node.name].output_descs if node.name in importer.ops else ():
        if any(side <= 0 for side in desc.shape):
            raise AtcRefusal("E20001", f"{node.name} ({node.op}) has shape {desc.shape}; every side must be known and above 0")


# --- handlers --------------------------------------------------------------------------------------------------------


def _placeholder(importer: Importer, node: TfNode) -> None:
    dtype, shape = node.attrs.get("dtype"), importer.input_shapes.get(node.name, node.attrs.get("shape"))
    if dtype not in INPUT_DTYPES:
        raise AtcRefusal("E19999", f"input {node.name} has data type {dtype}, expected one of {', '.join(INPUT_DTYPES)}")
    if shape is None or any(side < 1 for side in shape):
        raise AtcRefusal(
            "E20001", f"input {node.name} has shape {shape}; the simulated compiler takes static shapes only",
            solution="Freeze with static shapes or give --input_shape.",
        )
    known = node.attrs.get("shape")
    if known is not None and len(known) != len(shape):
        raise AtcRefusal("E10001", f"--input_shape gives {node.name} {len(shape)} dimensions, the graph has {len(known)}")
    importer.add(node, "Data", [], [(dtype, shape)], index=sum(op.type == "Data" for op in importer.ops.values()))


def _const(importer: Importer, node: TfNode) -> None:
    value = np.asarray(node.attrs["value"])
    if value.dtype == np.float64:
        value = value.astype(np.float32)
    importer.add(node, "Const", [], [(value.dtype.name, value.shape)])
    importer.ops[node.name].data = value


def _unary(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    attrs = {"negative_slope": float(node.attrs.get("alpha", 0.2))} if node.op == "LeakyRelu" else {}
    importer.add(node, OPS[node.op].ge_type, node.inputs[:1], [(source.dtype, source.shape)], **attrs)


def _binary(importer: Importer, node: TfNode) -> None:
    left, right = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    try:
        shape = np.broadcast(*(np.broadcast_to(np.empty(()), d.shape) for d in (left, right))).shape
    except ValueError as exc:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): shapes {left.shape} and {right.shape} do not broadcast") from exc
    importer.add(node, OPS[node.op].ge_type, node.inputs[:2], [(left.dtype, shape)])


def _cast(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    importer.add(node, "Cast", node.inputs[:1], [(node.attrs["DstT"], source.shape)], truncate=bool(node.attrs.get("Truncate", False)))


def _conv3d(importer: Importer, node: TfNode) -> None:
    source, filters = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    strides = tuple(node.attrs.get("strides", ()))
    dilations = tuple(node.attrs.get("dilations") or (1, 1, 1, 1, 1))
    if node.attrs.get("data_format", "NDHWC") != "NDHWC" or len(source.shape) != 5 or len(filters.shape) != 5 or len(strides) != 5:
        raise AtcRefusal("E20001", f"{node.name}: Conv3D takes NDHWC volumes, got input {source.shape} and filter {filters.shape}")
    if source.shape[4] != filters.shape[3]:
        found = f"input has {source.shape[4]} channels, the filter expects {filters.shape[3]}"
        raise AtcRefusal("E20001", f"{node.name}: {found} (E60010 in TBE)")
    if dilations[1] != 1:
        raise AtcRefusal("E20001", f"{node.name}: dilation along depth is {dilations[1]}, the 910's Conv3D takes 1 only (E60038 in TBE)")
    importer.const(node, 1)
    pads, sides = _conv_geometry(node, source.shape[1:4], filters.shape[:3], strides[1:4], dilations[1:4])
    importer.add(
        node, "Conv3D", node.inputs[:2], [(source.dtype, (source.shape[0],) + sides + (filters.shape[4],))],
        strides=list(strides), pads=list(pads), dilations=list(dilations), groups=1, data_format="NDHWC",
    )


def _conv_geometry(node: TfNode, sides: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> Tuple[Shape, Shape]:
    """(before and after padding per axis, output sides); TensorFlow puts the odd voxel of SAME after."""
    pads: List[int] = []
    outputs: List[int] = []
    for side, width, stride, dilation in zip(sides, kernel, strides, dilations):
        reach = (width - 1) * dilation + 1
        if node.attrs.get("padding") == "SAME":
            out = -(-side // stride)
            total = max((out - 1) * stride + reach - side, 0)
            pads += [total // 2, total - total // 2]
        else:
            out = (side - reach) // stride + 1
            pads += [0, 0]
        outputs.append(out)
    return tuple(pads), tuple(outputs)


def _bias_add(importer: Importer, node: TfNode) -> None:
    source, bias = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    if bias.shape != source.shape[-1:] or node.attrs.get("data_format", "NHWC") not in ("NHWC", "NDHWC"):
        raise AtcRefusal("E20001", f"{node.name}: bias {bias.shape} does not fit the last axis of {source.shape}")
    importer.add(node, "BiasAdd", node.inputs[:2], [(source.dtype, source.shape)], data_format="NHWC")


def _axis(node: TfNode, value: int, rank: int) -> int:
    axis = int(value) + rank if int(value) < 0 else int(value)
    if not 0 <= axis < rank:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): axis {value} of a tensor of rank {rank}")
    return axis


def _concat(importer: Importer, node: TfNode) -> None:
    parts = [importer.desc(name) for name in node.inputs[:-1]]
    axis = _axis(node, int(importer.const(node, len(node.inputs) - 1)), len(parts[0].shape))
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    importer.add(node, "ConcatV2D", node.inputs[:-1], [(parts[0].dtype, tuple(shape))], concat_dim=axis, N=len(parts))


def _reshape(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    shape = [int(n) for n in importer.const(node, 1)]
    known = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
    shape = [source.count // max(known, 1) if n == -1 else n for n in shape]
    _add_reshape(importer, node, shape)


def _add_reshape(importer: Importer, node: TfNode, shape: Sequence[int]) -> None:
    source = importer.desc(node.inputs[0])
    if int(np.prod(shape, dtype=np.int64)) != source.count:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): {source.shape} cannot become {tuple(shape)}")
    importer.add(node, "Reshape", node.inputs[:1], [(source.dtype, tuple(shape))], shape=[int(n) for n in shape])


def _squeeze(importer: Importer, node: TfNode) -> None:
    shape = importer.desc(node.inputs[0]).shape
    axes = [_axis(node, a, len(shape)) for a in node.attrs.get("squeeze_dims") or ()] or [i for i, n in enumerate(shape) if n == 1]
    _add_reshape(importer, node, [n for i, n in enumerate(shape) if i not in axes])


def _expand_dims(importer: Importer, node: TfNode) -> None:
    shape = list(importer.desc(node.inputs[0]).shape)
    shape.insert(_axis(node, int(importer.const(node, 1)), len(shape) + 1), 1)
    _add_reshape(importer, node, shape)


def _transpose(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    perm = [int(n) for n in importer.const(node, 1)]
    importer.add(node, "TransposeD", node.inputs[:1], [(source.dtype, tuple(source.shape[p] for p in perm))], perm=perm)


def _gather(importer: Importer, node: TfNode) -> None:
    source, indices = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    axis = _axis(node, int(importer.const(node, 2)), len(source.shape)) if node.op == "GatherV2" else 0
    if node.attrs.get("batch_dims", 0):
        raise AtcRefusal("E20001", f"{node.name}: batch_dims of GatherV2 is not supported")
    shape = source.shape[:axis] + indices.shape + source.shape[axis + 1 :]
    importer.add(node, "GatherV2D", node.inputs[:2], [(source.dtype, shape)], axis=axis)


def _unpack(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    axis, count = _axis(node, node.attrs.get("axis", 0), len(source.shape)), int(node.attrs["num"])
    shape = source.shape[:axis] + source.shape[axis + 1 :]
    importer.add(node, "Unpack", node.inputs[:1], [(source.dtype, shape)] * count, axis=axis, num=count)


def _pack(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    axis = _axis(node, node.attrs.get("axis", 0), len(source.shape) + 1)
    shape = source.shape[:axis] + (len(node.inputs),) + source.shape[axis:]
    importer.add(node, "Pack", node.inputs, [(source.dtype, shape)], axis=axis, N=len(node.inputs))


def _tile(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    multiples = [int(n) for n in importer.const(node, 1)]
    importer.add(
        node, "TileD", node.inputs[:1], [(source.dtype, tuple(n * m for n, m in zip(source.shape, multiples)))], multiples=multiples,
    )


def _slice(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    begin = [int(n) for n in importer.const(node, 1)]
    size = [int(n) if n != -1 else side - b for n, side, b in zip(importer.const(node, 2), source.shape, begin)]
    importer.add(node, "SliceD", node.inputs[:1], [(source.dtype, tuple(size))], offsets=begin, size=size)


def _strided_slice(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    if node.attrs.get("ellipsis_mask") or node.attrs.get("new_axis_mask"):
        raise AtcRefusal("E20001", f"{node.name}: StridedSlice with an ellipsis or a new axis is not supported by the simulated compiler")
    begin, end, strides = ([int(n) for n in importer.const(node, k)] for k in (1, 2, 3))
    if any(stride != 1 for stride in strides):
        raise AtcRefusal("E20001", f"{node.name}: StridedSlice with strides {strides}; the simulated compiler takes 1 only")
    offsets, size, kept = [], [], []
    for i, side in enumerate(source.shape):
        if i >= len(begin):
            first, last = 0, side
        else:
            single = bool(node.attrs.get("shrink_axis_mask", 0) >> i & 1)
            first, last, _ = slice(
                None if node.attrs.get("begin_mask", 0) >> i & 1 and not single else begin[i],
                begin[i] + 1 or None if single else None if node.attrs.get("end_mask", 0) >> i & 1 else end[i],
            ).indices(side)
        offsets.append(first)
        size.append(last - first)
        if i >= len(begin) or not node.attrs.get("shrink_axis_mask", 0) >> i & 1:
            kept.append(last - first)
    importer.add(node, "StridedSliceD", node.inputs[:1], [(source.dtype, tuple(kept))], offsets=offsets, size=size)


_UNARY = "LeakyRelu Relu Elu Sigmoid Tanh Square Sqrt Rsqrt Neg Abs Exp Floor Round"
_BINARY = "Add AddV2 Sub Mul RealDiv Maximum Minimum"
HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    "Placeholder": _placeholder, "Const": _const, "Cast": _cast, "Conv3D": _conv3d, "BiasAdd": _bias_add, "ConcatV2": _concat,
    "Reshape": _reshape, "Squeeze": _squeeze, "ExpandDims": _expand_dims, "Transpose": _transpose, "GatherV2": _gather,
    "Gather": _gather, "Unpack": _unpack, "Pack": _pack, "Tile": _tile, "Slice": _slice, "StridedSlice": _strided_slice,
    **{name: _unary for name in _UNARY.split()},
    **{name: _binary for name in _BINARY.split()},
}


def original_names(op: Op) -> List[str]:
    """Nodes of the framework's graph that an operator stands for."""
    names: Optional[List[str]] = op.attrs.get("_datadump_original_op_names")
    return names or []
