# SPDX-License-Identifier: Apache-2.0
"""Compiled graph → ONNX that a CPU engine executes with the 910's rounding.

ONNX convolutions need channels first, the graph has them last. Every value therefore records its axis order, and a
transposition appears only if a reader needs the other order.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Tuple

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.engine.lowering import cube, elementwise, pooling, rearrange, reduction, shapes
from vxm_convert.sim.engine.lowering.fp16_lookup import has_table, lower_by_table
from vxm_convert.sim.engine.lowering.state import Lowering, Value
from vxm_convert.sim.engine.rewrites.lanes import fill_lanes
from vxm_convert.sim.engine.rewrites.parities import split_phases
from vxm_convert.sim.engine.rewrites.settings import Settings
from vxm_convert.sim.engine.rewrites.transposed import fold_upsampling
from vxm_convert.sim.engine.rewrites.upsampling import find_upsampling
from vxm_convert.sim.refusal import AtcRefusal

#: Operators that only move or select values: fp16 inputs give fp16 results.
EXACT = frozenset(
    "ConcatV2D Reshape TransposeD GatherV2D Unpack Pack TileD SliceD StridedSliceD TransData Maximum Minimum Relu Neg "
    "Abs Floor Round "
    "Upsample Interleave "
    "NetOutput Relu6 Ceil Rint Sign ClipByValue Select SelectV2 SplitD SplitVD BroadcastToD PadD PadV2D MirrorPad "
    "GatherNd "
    "OneHotD MaxPool MaxPool3D ReduceMaxD ReduceMinD ResizeNearestNeighborV2D "
    "SpaceToBatchNDD SpaceToBatchD BatchToSpaceNDD BatchToSpaceD DepthToSpace SpaceToDepth ReverseV2D TopKV2D ConcatD".split()
)
#: Operators that can turn finite numbers into NaN; their fp16 results are cleaned before they are rounded.
MAKES_NAN = frozenset(
    "RealDiv Div Sqrt Rsqrt Log Log1p Pow Reciprocal Inv FloorDiv FloorMod Tan Asin Acos "
    "Acosh Atanh Xlogy Xdivy Mod TruncateMod TruncateDiv".split()
)
#: Operators whose fp32 result can be infinite, which a later one can turn into NaN.
MAKES_INFINITY = frozenset("Exp Expm1 DivNoNan Sinh Cosh".split())

LOWERINGS: Dict[str, Callable[[Lowering, Op], List[Value]]] = {}
for _room in (cube, elementwise, pooling, rearrange, reduction, shapes):
    LOWERINGS.update(_room.LOWERINGS)

#: Rewrites of the graph, by their names in `rewrites.REWRITES` and in that order.
PASSES: Dict[str, Callable[[List[Op]], List[Op]]] = {
    "upsampling": find_upsampling,
    "transposed": fold_upsampling,
    "phases": split_phases,
    "lanes": fill_lanes,
}
#: Prefix of the inputs that the engine fills with random numbers; the operator's name follows.
RANDOM = "random:"


def lower(
    ops: List[Op], settings: Settings, owners: Optional[Dict[str, str]] = None
) -> Tuple[bytes, List[str], List[str]]:
    """(serialised ONNX, input names, output names); order as the Data and NetOutput operators have it.

    Behind the model's inputs come those that start with `RANDOM`: what an AI CPU operator draws. `owners`, where it is
    given, gets the operator of every tensor.
    """
    for name, apply in PASSES.items():
        if name in settings.rewrites:
            ops = apply(ops)
    state = Lowering(ops, settings)
    inputs: List[Tuple[str, str, Tuple[int, ...]]] = []
    net_output = ops[-1]
    drawn = [op for op in ops if op.type == "FrameworkOp"]
    for op in [op for op in ops if op.type == "Data"] + drawn:
        desc = op.output_descs[0]
        name = RANDOM + op.name if op.type == "FrameworkOp" else f"input_{len(inputs)}"
        inputs.append((name, desc.dtype, desc.shape))
        state.values[f"{op.name}:0"] = Value(name, bool(op.attrs.get("channels_first")))
    for op in ops:
        if op.data is None and op.type not in ("Data", "FrameworkOp", "NetOutput"):
            state.builder.owner = op.name
            _lower_op(state, op)
    if owners is not None:
        owners.update(state.builder.owners)
    outputs = [
        (state.get(source), f"output_{number}", desc.dtype, desc.logical_shape)
        for number, (source, desc) in enumerate(zip(net_output.inputs, net_output.output_descs))
    ]
    return state.builder.finish(inputs, outputs), [name for name, _, _ in inputs], [name for _, name, _, _ in outputs]


def _lower_op(state: Lowering, op: Op) -> None:
    if has_table(op):
        state.values[f"{op.name}:0"] = lower_by_table(state, op)
        return
    if op.type not in LOWERINGS:
        raise AtcRefusal("E19999", f"{op.name}: the simulated device has no kernel for {op.type}")
    results = LOWERINGS[op.type](state, op)
    inherited = any(source in state.doubtful for source in op.inputs)
    for index, (value, desc) in enumerate(zip(results, op.output_descs)):
        if desc.dtype == "float16" and op.type not in EXACT and not _already_half(op):
            name = state.builder.clear_nan(value.name) if inherited or op.type in MAKES_NAN else value.name
            value = Value(state.builder.round_half(name), value.channels_first)
        elif desc.dtype == "float32" and (inherited or op.type in MAKES_NAN or op.type in MAKES_INFINITY):
            state.doubtful.add(f"{op.name}:{index}")
        state.values[f"{op.name}:{index}"] = value


def _already_half(op: Op) -> bool:
    return op.type == "Cast" and op.input_descs[0].dtype == "float16"
