# SPDX-License-Identifier: Apache-2.0
"""From a frozen graph to a simulated offline model: the passes in order, the model's attributes, the file.

The result has the real container and the real graph language, but no kernels: a marked text takes the place of device
code, and the version attribute starts with ``sim-``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, FrozenSet, List, Optional, Tuple

from vxm_convert.ascend.chips import family_of
from vxm_convert.formats import om
from vxm_convert.formats.ge_ir import Desc, Model, Op, padded_size
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.compiler.dtypes import assign_dtypes, insert_casts
from vxm_convert.sim.compiler.fusion import drop_dead, fuse_bias
from vxm_convert.sim.compiler.layouts import assign_layouts
from vxm_convert.sim.compiler.node_flags import (
    CustomDtypes,
    customise,
    feed_half,
    mark_kernel_modes,
    mark_least_results,
    names_to_keep,
    result_types,
    unknown_names,
)
from vxm_convert.sim.frontends.import_graph import import_graph, layout_of, leaves, original_names
from vxm_convert.sim.version import SIM_VERSION

KERNEL_TEXT = b"simulated kernel of vxm_convert: no device code"
OUTPUT_NODE = "Node_Output"
#: attribute of a model with the names of --keep_dtype that its graph does not have
IGNORED_NAMES = "vxm_ignored_keep_dtype"
#: name of the real pass that fuses a bias into its convolution
BIAS_FUSION = "ConvBiasaddFusionPass"


@dataclass(frozen=True)
class GearRequest:
    """Several shapes in one model: the kind (`formats.gears`) and the numbers of each gear for the -1 of the input
    shapes.
    """

    kind: int
    profiles: Tuple[Tuple[int, ...], ...]


@dataclass(frozen=True)
class CompileRequest:
    """The request of a command line, after all checks of its grammar."""

    model_name: str
    soc_version: str
    command: str
    precision_mode: str
    input_shapes: Dict[str, Tuple[int, ...]] = field(default_factory=dict)
    out_nodes: List[Tuple[str, int]] = field(default_factory=list)
    keep_dtype: FrozenSet[str] = frozenset()
    framework: str = "TensorFlow"
    #: operator types (``OpType::…`` in --keep_dtype) that keep their dtype
    keep_types: FrozenSet[str] = frozenset()
    #: dtype of all outputs, and of single ones (node, index); empty keeps the graph's
    output_type: str = ""
    output_types: Dict[Tuple[str, int], str] = field(default_factory=dict)
    #: inputs fed in fp16
    half_inputs: FrozenSet[str] = frozenset()
    #: operator type → its list in mixed precision (True fp16, False fp32, None as its predecessor), where the user
    #: moved it
    mixlist: Dict[str, Optional[bool]] = field(default_factory=dict)
    impl_modes_by_type: Dict[str, int] = field(default_factory=dict)
    impl_modes_by_node: Dict[str, int] = field(default_factory=dict)
    #: lines of --customize_dtypes
    custom_dtypes: Tuple[CustomDtypes, ...] = ()
    #: graph fusion passes that are switched off
    fusions_off: FrozenSet[str] = frozenset()
    #: names of the outputs if `out_nodes` are nodes that the importer made; empty: from `out_nodes`
    out_names: Tuple[str, ...] = ()
    #: with it, `input_shapes` hold -1; see `vxm_convert.sim.compiler.gears`
    gears: Optional[GearRequest] = None
    #: input in `input_shapes` → its node, if they differ
    input_nodes: Dict[str, str] = field(default_factory=dict)


def compile_graph(nodes: List[TfNode], request: CompileRequest) -> Model:
    """Run all passes; raises AtcRefusal with the E-code of the real compiler."""
    ops, outputs = import_graph(nodes, request.input_shapes, request.out_nodes)
    loops = _unrolled_loops(ops)
    imported = frozenset(name for op in ops for name in [op.name] + original_names(op))
    keep = names_to_keep(ops, request.keep_dtype, request.keep_types)
    ignored = unknown_names(ops, request.keep_dtype)
    edge_dtypes = result_types(
        request.out_nodes, [_desc_of(ops, name).dtype for name in outputs], request.output_type, request.output_types
    )
    feed_half(ops, request.half_inputs)
    ops = drop_dead(ops, outputs)
    # Fuse the bias first: then a convolution and its bias are one operator with one dtype.
    if BIAS_FUSION not in request.fusions_off:
        ops = fuse_bias(ops, outputs)
    family = family_of(request.soc_version)
    single_conv = family is not None and family.single_conv
    assign_dtypes(ops, request.precision_mode, keep, request.mixlist, single_conv)
    customise(ops, request.custom_dtypes, imported)
    mark_least_results(ops, None if family is None else family.least_sigmoid)
    mark_kernel_modes(ops, request.impl_modes_by_type, request.impl_modes_by_node)
    ops, outputs = insert_casts(ops, list(zip(outputs, edge_dtypes)))
    ops = drop_dead(ops, outputs)
    # Layouts last: a cast between two convolutions stays in blocks.
    ops, outputs = assign_layouts(ops, outputs)
    ops = drop_dead(ops, outputs)
    _name_origins(ops)
    ops.append(_net_output(ops, outputs))
    # As GE writes them (`omg.cc`, CreateOutputNodesInfo), and as the runtime returns them.
    names = list(request.out_names) or [f"{name}:{index}" for name, index in request.out_nodes or leaves(nodes)]
    attrs = _model_attrs(ops, names, request)
    if loops:
        attrs["vxm_unrolled_loops"] = loops
    if ignored:
        attrs[IGNORED_NAMES] = ignored
    return Model(request.model_name, ops, attrs, SIM_VERSION)


def write_model(path: Path, model: Model) -> None:
    """Write the `.om` file atomically."""
    kernels = {
        f"te_{op.type.lower()}_sim": KERNEL_TEXT
        for op in model.all_ops()
        if op.type not in ("Data", "Const", "NetOutput", "Case")
    }
    om.write_om(path, model, kernels, platform_version=SIM_VERSION)


def original_model(nodes: List[TfNode], request: CompileRequest) -> Model:
    """The imported graph before any pass, as ``--save_original_model`` keeps it."""
    ops, outputs = import_graph(nodes, request.input_shapes, request.out_nodes)
    ops = drop_dead(ops, outputs)
    ops.append(_net_output(ops, outputs))
    return Model(
        request.model_name, ops, {"atc_version": SIM_VERSION, "framework_type": request.framework}, SIM_VERSION
    )


def write_original(path: Path, model: Model) -> None:
    """Write an uncompiled model atomically."""
    om.write_original(path, model, SIM_VERSION)


def _name_origins(ops: List[Op]) -> None:
    """Record on every computed output its tensor in the framework's graph: for fused nodes that of the last one, as
    dump tools expect.
    """
    for op in ops:
        names = original_names(op)
        if names and op.data is None and op.type != "Data":
            op.output_descs = [
                replace(desc, origin_name=f"{names[-1]}:{index}") for index, desc in enumerate(op.output_descs)
            ]


def _unrolled_loops(ops: List[Op]) -> List[str]:
    """``frame: iterations`` of every loop that the real compiler would have kept."""
    counts: Dict[str, int] = {}
    for op in ops:
        frame, _, iteration = str(op.attrs.get("vxm_unrolled_iteration", "")).rpartition("#")
        if frame:
            counts[frame] = max(counts.get(frame, 0), int(iteration) + 1)
    return [f"{frame}: {count}" for frame, count in sorted(counts.items())]


def _desc_of(ops: List[Op], tensor: str) -> Desc:
    name, _, index = tensor.rpartition(":")
    return next(op for op in ops if op.name == name).output_descs[int(index)]


def _net_output(ops: List[Op], outputs: List[str]) -> Op:
    descs = [_desc_of(ops, name) for name in outputs]
    return Op(
        OUTPUT_NODE, "NetOutput", list(outputs), {}, descs, [replace(d, layout=layout_of(d.shape)) for d in descs]
    )


def _model_attrs(ops: List[Op], out_names: List[str], request: CompileRequest) -> Dict[str, object]:
    # A node on the AI CPU gets its own stream, and an event in each direction.
    second = any(op.type == "FrameworkOp" for op in ops)
    return {
        "atc_cmdline": request.command,
        "atc_version": SIM_VERSION,
        "opp_version": SIM_VERSION,
        "soc_version": request.soc_version,
        "framework_type": request.framework,
        "core_type": "AiCore",
        "target_type": "MINI",
        "attr_model_out_nodes_name": out_names,
        "memory_size": _work_bytes(ops),
        "zero_copy_memory_size": sum(
            padded_size(d.nbytes) for op in ops if op.type in ("Data", "NetOutput") for d in op.output_descs
        ),
        "stream_num": 2 if second else 1,
        "event_num": 2 if second else 0,
        "label_num": 0,
        "session_id": 0,
        "p2p_memory_size": 0,
        "variable_size": 0,
        "task_gen_base_addr": 0,
        "task_gen_weight_addr": 0,
        "task_index_op_name": [op.name for op in ops if op.type not in ("Data", "Const", "NetOutput", "Reshape")],
        "_fp_ceiling_mode": "2",
        "needCheckCpu": False,
        "needCheckTf": False,
        "vxm_simulated": True,
        "vxm_precision_mode": request.precision_mode,
    }


def _work_bytes(ops: List[Op]) -> int:
    """Peak of live intermediate tensors when operators run one after the other and memory is reused."""
    last_use = {source: number for number, op in enumerate(ops) for source in op.inputs}
    live: Dict[str, int] = {}
    peak = 0
    for number, op in enumerate(ops):
        if op.type not in ("Const", "Data", "NetOutput"):
            live.update({f"{op.name}:{i}": padded_size(d.nbytes) for i, d in enumerate(op.output_descs)})
        peak = max(peak, sum(live.values()))
        for name in [name for name in live if last_use.get(name, -1) <= number]:
            del live[name]
    return peak
