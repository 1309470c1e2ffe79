# SPDX-License-Identifier: Apache-2.0
"""From a frozen graph to a simulated offline model: the passes in order, the model's attributes, the file.

The result has the real container and the real graph language, but no kernels: where a real file holds device code,
this one holds a marked text, and its version attribute starts with ``sim-``.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, FrozenSet, List, Tuple

from vxm_convert.formats import om
from vxm_convert.formats.ge_ir import Desc, Model, Op, padded_size
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim import SIM_VERSION
from vxm_convert.sim.dtypes import assign_dtypes, insert_casts
from vxm_convert.sim.frontend import import_graph, layout_of, original_names
from vxm_convert.sim.fusion import drop_dead, fuse_bias
from vxm_convert.sim.layouts import assign_layouts
from vxm_convert.sim.refusal import AtcRefusal

KERNEL_TEXT = b"simulated kernel of vxm_convert: no device code"
OUTPUT_NODE = "Node_Output"


@dataclass(frozen=True)
class CompileRequest:
    """What a command line asks for, after all checks of its grammar."""

    model_name: str
    soc_version: str
    command: str
    precision_mode: str
    input_shapes: Dict[str, Tuple[int, ...]] = field(default_factory=dict)
    out_nodes: List[Tuple[str, int]] = field(default_factory=list)
    keep_dtype: FrozenSet[str] = frozenset()
    framework: str = "TensorFlow"


def compile_graph(nodes: List[TfNode], request: CompileRequest) -> Model:
    """Run all passes; raises AtcRefusal with the E-code of the real compiler."""
    ops, outputs = import_graph(nodes, request.input_shapes, request.out_nodes)
    _check_keep_names(ops, request.keep_dtype)
    # Bias first: afterwards a convolution and its bias are one operator that gets one dtype.
    ops = fuse_bias(drop_dead(ops, outputs), outputs)
    edge_dtypes = [_desc_of(ops, name).dtype for name in outputs]
    assign_dtypes(ops, request.precision_mode, request.keep_dtype)
    ops, outputs = insert_casts(ops, list(zip(outputs, edge_dtypes)))
    ops = drop_dead(ops, outputs)
    # Layouts last: a cast between two convolutions stays in blocks.
    ops, outputs = assign_layouts(ops, outputs)
    ops = drop_dead(ops, outputs)
    ops.append(_net_output(ops, outputs))
    names = [f"{name}:{index}" for name, index in request.out_nodes] or outputs
    return Model(request.model_name, ops, _model_attrs(ops, names, request), SIM_VERSION)


def write_model(path: Path, model: Model) -> None:
    """Write the `.om` file atomically."""
    kernels = {f"te_{op.type.lower()}_sim": KERNEL_TEXT for op in model.ops if op.type not in ("Data", "Const", "NetOutput")}
    om.write_om(path, model, kernels, task_info=b"", platform_version=SIM_VERSION)


def _check_keep_names(ops: List[Op], keep: FrozenSet[str]) -> None:
    known = {name for op in ops for name in [op.name] + original_names(op)}
    unknown = sorted(keep - known)
    if unknown:
        raise AtcRefusal("E10016", f"--keep_dtype names nodes that the graph does not have: {', '.join(unknown)}")


def _desc_of(ops: List[Op], tensor: str) -> Desc:
    name, _, index = tensor.rpartition(":")
    return next(op for op in ops if op.name == name).output_descs[int(index)]


def _net_output(ops: List[Op], outputs: List[str]) -> Op:
    descs = [_desc_of(ops, name) for name in outputs]
    return Op(OUTPUT_NODE, "NetOutput", list(outputs), {}, descs, [replace(d, layout=layout_of(d.shape)) for d in descs])


def _model_attrs(ops: List[Op], out_names: List[str], request: CompileRequest) -> Dict[str, object]:
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
        "zero_copy_memory_size": sum(padded_size(d.nbytes) for op in ops if op.type in ("Data", "NetOutput") for d in op.output_descs),
        "stream_num": 1,
        "event_num": 0,
        "label_num": 0,
        "session_id": 0,
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
