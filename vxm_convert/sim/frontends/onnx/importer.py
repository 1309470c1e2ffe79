# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX model (``--framework=5``) into the nodes that the simulated compiler imports.

Refuses operators without a translation and lists them all; shapes must be static, in the file or by ``--input_shape``.
Separate weight files are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

import numpy as np

from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import FormatError
from vxm_convert.formats.plain import to_plain
from vxm_convert.formats.protobuf import decode
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.onnx import images as onnx_images
from vxm_convert.sim.frontends.onnx import ops as onnx_ops
from vxm_convert.sim.frontends.onnx import tensors as onnx_tensors
from vxm_convert.sim.frontends.onnx.folding import KNOWN, fold_known
from vxm_convert.sim.frontends.onnx.ops import DTYPES, OnnxNode, Translator, Value
from vxm_convert.sim.refusal import AtcRefusal

if TYPE_CHECKING:
    import onnx

HANDLERS = {**onnx_ops.HANDLERS, **onnx_images.HANDLERS, **onnx_tensors.HANDLERS}

Shapes = Dict[str, Tuple[int, ...]]
MAX_ONNX_BYTES = (1 << 31) - 1
_DOMAINS = ("", "ai.onnx")
_WEIGHTS = frozenset({"raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"})


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes, the positions of the outputs in them, and the names of the model's inputs and outputs."""

    nodes: List[TfNode]
    outputs: List[Tuple[str, int]]
    #: node:index:tensor
    out_names: Tuple[str, ...]
    #: node:index
    out_places: Tuple[str, ...]
    #: name of an input in the file → name of its node
    inputs: Dict[str, str]


def read_onnx(path: Path, input_shapes: Shapes, out_nodes: List[Tuple[str, int]]) -> OnnxGraph:
    """Translate a model.

    Parameters
    ----------
    input_shapes : dict — shapes of ``--input_shape``; they replace the file's.
    out_nodes : list of (node, index) — outputs in order; a tensor's name ``name:index`` is also accepted. Empty: the
        graph's outputs.

    Raises
    ------
    ArtifactError, FormatError
        If the file cannot be read, or is not an ONNX model.
    AtcRefusal
        E10501 lists all operators without a translation; E10016 a wrong name; E20001 a dynamic shape or an attribute.
    """
    path = Path(path)
    model = _load(path)
    try:
        return _graph_of(model, path, input_shapes, out_nodes)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as exc:
        # Protobuf silently reads damaged texts and types; errors that they cause here are due to the file.
        raise FormatError(f"{path}: not a valid ONNX model ({type(exc).__name__}: {exc}); export it again") from exc


def _graph_of(model: onnx.ModelProto, path: Path, input_shapes: Shapes, out_nodes: List[Tuple[str, int]]) -> OnnxGraph:
    nodes = _nodes(model)
    _check_support(nodes)
    _check_schemas(model)
    consts = _constants(model, nodes, path)
    inputs = [value for value in model.graph.input if value.name not in consts]
    _set_shapes(inputs, input_shapes)
    opset = max([entry.version for entry in model.opset_import if entry.domain in _DOMAINS] or [13])
    made = Translator(fold_known(model, nodes, consts, opset, _infer), consts)
    made.opset = opset
    names = {value.name: _placeholder(made, value) for value in inputs}
    for node in nodes:
        if not all(name in consts for name in node.outputs):
            _translate(made, node)
    wanted = _wanted(model, nodes, out_nodes)
    places = [_place(made, tensor, name) for name, tensor in wanted]
    makers = {name: f"{node.name}:{index}" for node in nodes for index, name in enumerate(node.outputs)}
    # The compiler adds the tensor's own name: node:index:tensor.
    full = tuple(f"{makers.get(tensor, name)}:{tensor}" for name, tensor in wanted)
    return OnnxGraph(made.nodes, places, full, tuple(name for name, _ in wanted), names)


def _translate(made: Translator, node: OnnxNode) -> None:
    if node.type in KNOWN:
        raise AtcRefusal("E20001", f"{node.name} ({node.type}): its operands must be known when the model is compiled")
    try:
        HANDLERS[node.type](made, node)
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as exc:
        raise AtcRefusal(
            "E13026", f"{node.name}: its operands or attributes are not those of a {node.type} node ({exc!r})"
        ) from exc


def onnx_json(path: Path) -> Dict[str, Any]:
    """The model in the form of mode 1: every field by name, no weights."""
    return to_plain(_load(path), {}, _WEIGHTS)


def _load(path: Path) -> onnx.ModelProto:
    import onnx

    data = read_bounded(path, MAX_ONNX_BYTES, "the ONNX model", "export it first")
    model: onnx.ModelProto = decode(onnx.ModelProto, data, str(path))
    if not model.graph.node:
        raise FormatError(f"{path}: contains no ONNX graph; export it again")
    return model


def _nodes(model: onnx.ModelProto) -> List[OnnxNode]:
    from onnx.helper import get_attribute_value

    found: List[OnnxNode] = []
    for number, node in enumerate(model.graph.node):
        kind = node.op_type if node.domain in _DOMAINS else f"{node.domain}::{node.op_type}"
        attrs = {attr.name: get_attribute_value(attr) for attr in node.attribute}
        name = (node.name or f"{node.op_type}_{number}").replace(":", "_")
        found.append(OnnxNode(name, kind, tuple(node.input), tuple(node.output), attrs))
    return found


def _check_support(nodes: List[OnnxNode]) -> None:
    unknown = [node for node in nodes if node.type not in HANDLERS and node.type not in KNOWN]
    if unknown:
        listing = ", ".join(f"{node.name} ({node.type})" for node in unknown)
        raise AtcRefusal(
            "E10501",
            f"{len(unknown)} operators of the ONNX model are not supported: {listing}",
            "The simulated ATC translates the operators of VoxelMorph exports and similar models.",
            "Compile frozen.pb, or use the real ATC.",
            [(node.name, node.type) for node in nodes],
        )


def _check_schemas(model: onnx.ModelProto) -> None:
    """Check operands and attributes of every node against its operator set; the shape inference relies on them
    unchecked.
    """
    from onnx import checker, defs

    versions = {entry.domain: entry.version for entry in model.opset_import}
    if max([versions.get(domain, 0) for domain in _DOMAINS]) > defs.onnx_opset_version():
        return
    context = type(checker.DEFAULT_CONTEXT)()
    context.ir_version = model.ir_version
    context.opset_imports = versions or {"": 13}
    for node in model.graph.node:
        try:
            checker.check_node(node, context)
        except checker.ValidationError as exc:
            raise AtcRefusal(
                "E13026", f"{node.name or node.op_type} ({node.op_type}): {str(exc).strip().splitlines()[0]}"
            ) from exc


def _constants(model: onnx.ModelProto, nodes: List[OnnxNode], path: Path) -> Dict[str, np.ndarray]:
    from onnx import TensorProto, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes:
        if node.type == "Constant":
            tensor = node.attrs.get("value")
            if tensor is None:
                tensor = _short_constant(node)
            tensors[node.outputs[0]] = tensor
    values: Dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if tensor.data_location == TensorProto.EXTERNAL:
            raise FormatError(f"{path}: constant {name!r} is in a separate file; export a single file")
        try:
            values[name] = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as exc:
            raise FormatError(f"{path}: constant {name!r} cannot be read ({exc}); export it again") from exc
    return values


def _short_constant(node: OnnxNode) -> Any:
    """A Constant of numbers written as an attribute."""
    from onnx import numpy_helper

    for key, dtype in (
        ("value_float", "float32"),
        ("value_floats", "float32"),
        ("value_int", "int64"),
        ("value_ints", "int64"),
    ):
        if node.attrs.get(key) is not None:
            return numpy_helper.from_array(np.asarray(node.attrs[key], dtype))
    raise AtcRefusal("E20001", f"{node.name} (Constant): expected a tensor or numbers as its value")


def _set_shapes(inputs: List[onnx.ValueInfoProto], shapes: Shapes) -> None:
    by_name = {value.name: value for value in inputs}
    for name, shape in shapes.items():
        value = by_name.get(name, by_name.get(f"{name}:0"))
        if value is None:
            raise AtcRefusal(
                "E10016", f"--input_shape names {name}, which is not an input of the model; it has {', '.join(by_name)}"
            )
        dims = value.type.tensor_type.shape.dim
        if dims and len(dims) != len(shape):
            raise AtcRefusal("E10001", f"--input_shape gives {name} {len(shape)} dimensions, the model has {len(dims)}")
        del dims[:]
        for side in shape:
            dims.add(dim_value=side)


def _infer(model: onnx.ModelProto) -> Shapes:
    """Static shapes of all tensors that have one. Shapes in the file may belong to another --input_shape, so they are
    dropped first.
    """
    from onnx import shape_inference

    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except shape_inference.InferenceError as exc:
        raise ValueError(f"its nodes contradict each other: {exc}") from exc
    shapes: Shapes = {}
    for value in list(inferred.input) + list(inferred.value_info) + list(inferred.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(
            dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims
        ):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _placeholder(made: Translator, value: onnx.ValueInfoProto) -> str:
    kind = DTYPES.get(value.type.tensor_type.elem_type, f"{value.type.tensor_type.elem_type}")
    shape = made.shapes.get(value.name)
    if shape is None:
        raise AtcRefusal(
            "E20001",
            f"input {value.name} has no static shape; the simulated compiler takes static shapes only",
            solution="Give --input_shape.",
        )
    plain_name = value.name[:-2] if value.name.endswith(":0") else value.name
    name = made.emit("Placeholder", plain_name, [], dtype=kind, shape=shape)
    made.values[value.name] = Value(name, tuple(range(len(shape))))
    return name


def _wanted(model: onnx.ModelProto, nodes: List[OnnxNode], out_nodes: List[Tuple[str, int]]) -> List[Tuple[str, str]]:
    """(name of the model's output, ONNX tensor) of every output."""
    made_by = {f"{node.name}:{index}": name for node in nodes for index, name in enumerate(node.outputs)}
    tensors = set(made_by.values())
    if not out_nodes:
        producer = {tensor: place for place, tensor in made_by.items()}
        return [(producer.get(value.name, value.name), value.name) for value in model.graph.output]
    wanted: List[Tuple[str, str]] = []
    for name, index in out_nodes:
        place = f"{name}:{index}"
        tensor = made_by.get(place, place)
        if tensor not in tensors:
            raise AtcRefusal(
                "E10016", f"--out_nodes names {place}, which is neither an output of a node nor a tensor of the model"
            )
        wanted.append((place, tensor))
    return wanted


def _place(made: Translator, tensor: str, name: str) -> Tuple[str, int]:
    if tensor in made.consts:
        raise AtcRefusal("E20001", f"output {name} is a constant")
    node, _, index = made.get(tensor).partition(":")
    return node, int(index or 0)
