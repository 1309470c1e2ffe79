# SPDX-License-Identifier: Apache-2.0
"""Compiles a model for several shapes: each gear separately with its static shape, then all of them in one model.

The layout is that of `formats.gears`. A constant of several gears is kept once.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from vxm_convert.formats import gears as layout
from vxm_convert.formats.ge_ir import Desc, Model, Op, padded_size
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.compiler.compile import OUTPUT_NODE, CompileRequest, GearRequest, compile_graph
from vxm_convert.sim.refusal import AtcRefusal
from vxm_convert.sim.version import SIM_VERSION

#: request with static shapes → (request and nodes as `compile_graph` takes them)
Parser = Callable[[CompileRequest], Tuple[CompileRequest, List[TfNode]]]


def static_request(request: CompileRequest, gear: int) -> CompileRequest:
    """The request for one gear; raises AtcRefusal E10045 if its numbers do not match the sides of -1."""
    wanted = _gears_of(request)
    try:
        shapes = layout.filled(request.input_shapes, list(request.input_shapes), wanted.kind, wanted.profiles[gear])
    except ValueError as exc:
        raise AtcRefusal("E10045", f"--{layout.FLAGS[wanted.kind]}: {exc}") from exc
    return replace(request, input_shapes=shapes, gears=None)


def largest_gear(request: CompileRequest) -> int:
    """The gear whose inputs have the most elements in total."""
    counts = [
        sum(layout.count_of(shape) for shape in static_request(request, gear).input_shapes.values())
        for gear in range(len(_gears_of(request).profiles))
    ]
    return counts.index(max(counts))


def compile_gears(parse: Parser, request: CompileRequest) -> Model:
    """Compile every gear and join them; raises AtcRefusal with the code and name of a gear that cannot be compiled."""
    wanted = _gears_of(request)
    models: List[Model] = []
    known: Dict[bytes, np.ndarray] = {}
    names: Dict[str, str] = {}
    for gear, profile in enumerate(wanted.profiles):
        static, nodes = parse(static_request(request, gear))
        names = static.input_nodes
        try:
            models.append(compile_graph(nodes, static))
        except AtcRefusal as exc:
            shown = ",".join(map(str, profile))
            raise AtcRefusal(
                exc.code,
                f"--{layout.FLAGS[wanted.kind]}, gear {shown}: {exc.message}",
                exc.cause,
                exc.solution,
                exc.operators,
            ) from exc
        _share_constants(models[-1].ops, known)
    declared = {names.get(name, name): shape for name, shape in request.input_shapes.items()}
    return _join(models, wanted, declared)


def _gears_of(request: CompileRequest) -> GearRequest:
    if request.gears is None:
        raise ValueError("the request has no gears")
    return request.gears


def _share_constants(ops: List[Op], known: Dict[bytes, np.ndarray]) -> None:
    """Equal constants of all gears become one array, so that many gears need no more memory than one."""
    for op in ops:
        if op.data is not None:
            head = f"{op.data.dtype} {op.data.shape}".encode()
            op.data = known.setdefault(hashlib.sha256(head + np.ascontiguousarray(op.data).tobytes()).digest(), op.data)


def _join(models: List[Model], wanted: GearRequest, declared: Dict[str, layout.Shape]) -> Model:
    data = [[op for op in model.ops if op.type == "Data"] for model in models]
    # Inputs that the command line does not name come after those that it names, with the graph's own shape.
    shapes = {op.name: declared.get(op.name, op.output_descs[0].logical_shape) for op in data[0]}
    order = [name for name in declared if name in shapes] + [name for name in shapes if name not in declared]
    inputs = [_edge_input(row, shapes[row[0].name]) for row in zip(*data)]
    picks = _picking(wanted, len(inputs))
    graphs = [f"{models[0].name}{layout.POSTFIX}{gear}" for gear in range(len(models))]
    case = _case(inputs, picks[-1], models, wanted, order, graphs)
    last = Op(
        OUTPUT_NODE,
        "NetOutput",
        [f"{case.name}:{i}" for i in range(len(case.output_descs))],
        {
            layout.OUTPUT_DIMS: layout.output_dims(
                [[d.logical_shape for d in model.ops[-1].output_descs] for model in models]
            )
        },
        list(case.output_descs),
        list(case.output_descs),
    )
    ops = inputs + picks + [case, last]
    branches = {
        name: _renamed(model.ops, f"{layout.POSTFIX}{gear}") for gear, (name, model) in enumerate(zip(graphs, models))
    }
    return Model(models[0].name, ops, _attrs(models, ops), SIM_VERSION, branches)


def _edge_input(row: Sequence[Op], declared: layout.Shape) -> Op:
    """The model's input for that of each gear, as large as the largest."""
    desc = _largest([op.output_descs[0] for op in row])
    return replace(row[0], attrs={**row[0].attrs, layout.ORIGIN_DIMS: list(declared)}, output_descs=[desc])


def _largest(descs: Sequence[Desc]) -> Desc:
    shape = layout.largest([desc.logical_shape for desc in descs])
    return next(desc for desc in descs if desc.logical_shape == shape)


def _picking(wanted: GearRequest, index: int) -> List[Op]:
    """The input that selects a gear, the table of gears, and the node that looks up the one in the other."""
    length, mark = len(wanted.profiles[0]), {"_mbatch_inserted_node": True}
    table = np.array(wanted.profiles, np.int32).reshape(-1)
    asked, known, found = Desc("int32", (length,)), Desc("int32", table.shape), Desc("int32", ())
    return [
        Op(layout.SHAPE_DATA, "Data", [], {**mark, "index": index}, [], [asked]),
        Op(layout.SHAPE_CONST, "Const", [], dict(mark), [], [known], table),
        Op(
            layout.MAP_INDEX,
            "MapIndex",
            [f"{layout.SHAPE_DATA}:0", f"{layout.SHAPE_CONST}:0"],
            dict(mark),
            [asked, known],
            [found],
        ),
    ]


def _case(
    inputs: List[Op], found: Op, models: List[Model], wanted: GearRequest, order: List[str], graphs: List[str]
) -> Op:
    attrs: Dict[str, Any] = {
        "_mbatch_inserted_node": True,
        layout.BATCH_NUM: len(graphs),
        layout.KIND: wanted.kind,
        layout.ORDER: order,
    }
    attrs.update({f"{layout.PROFILE}{gear}": list(profile) for gear, profile in enumerate(wanted.profiles)})
    outputs = [_largest(row) for row in zip(*(model.ops[-1].output_descs for model in models))]
    return Op(
        layout.CASE,
        "Case",
        [f"{op.name}:0" for op in [found] + inputs],
        attrs,
        [op.output_descs[0] for op in [found] + inputs],
        outputs,
        subgraphs=graphs,
    )


def _renamed(ops: List[Op], postfix: str) -> List[Op]:
    """The gear's nodes with their own names; its inputs record which operand of the Case node they are."""
    renamed = []
    for op in ops:
        inputs = ["{0}{2}:{1}".format(*source.rpartition(":")[::2], postfix) for source in op.inputs]
        attrs = dict(op.attrs, _parent_node_index=op.attrs["index"] + 1) if op.type == "Data" else op.attrs
        renamed.append(replace(op, name=op.name + postfix, inputs=inputs, attrs=attrs))
    return renamed


def _attrs(models: List[Model], ops: List[Op]) -> Dict[str, Any]:
    """The attributes of the first gear, with those that depend on the gear taken from the largest."""
    attrs: Dict[str, Any] = dict(models[0].attrs)
    for name in ("memory_size", "stream_num", "event_num"):
        attrs[name] = max(int(model.attrs[name]) for model in models)
    attrs["zero_copy_memory_size"] = sum(
        padded_size(d.nbytes) for op in ops if op.type in ("Data", "NetOutput") for d in op.output_descs
    )
    # One label for each branch, and one after them.
    attrs["label_num"] = len(models) + 1
    attrs["task_index_op_name"] = [layout.MAP_INDEX] + [
        f"{name}{layout.POSTFIX}{gear}"
        for gear, model in enumerate(models)
        for name in model.attrs["task_index_op_name"]
    ]
    loops = sorted({loop for model in models for loop in model.attrs.get("vxm_unrolled_loops", [])})
    if loops:
        attrs["vxm_unrolled_loops"] = loops
    return attrs
