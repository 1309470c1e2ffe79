# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with each node of a graph on the chosen chip, and what to do about it. Decides; prints nothing.

Each rule looks at one node and yields what it has to say; equal remarks on several nodes become one finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, FrozenSet, Iterator, List, Optional, Tuple

from export.preflight.rules.conv3d import conv3d_complaints
from export.preflight.view.dtypes import ORIGIN, lacks_single, wanted_dtype
from export.preflight.view.graph import GraphView
from export.preflight.view.shapes import data_inputs
from vxm_convert.ascend import limits
from vxm_convert.ascend.families import Family
from vxm_convert.ascend.operators import AICPU, OPS
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.model.precision import PrecisionPlan

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

_LOOPS = frozenset(
    "Enter RefEnter Exit RefExit NextIteration RefNextIteration LoopCond Merge RefMerge Switch RefSwitch".split()
)
_FUNCTIONAL = frozenset("While StatelessWhile If StatelessIf PartitionedCall StatefulPartitionedCall".split())
#: Beyond the table: the TensorFlow parser handles these itself (op_map.cc), or they are calls.
_PARSED = (
    _LOOPS
    | _FUNCTIONAL
    | frozenset(
        (
            "PlaceholderWithDefault",
            "IdentityN",
            "ShapeN",
            "Bitcast",
            "GuaranteeConst",
            "BroadcastArgs",
            "ControlTrigger",
            "Empty",
        )
    )
)
_VARIABLES = frozenset("VariableV2 Variable VarHandleOp ReadVariableOp".split())
_WIDE = ("float64", "int64", "complex64", "complex128", "string")
_WIDE_ARITHMETIC = frozenset(
    "Add AddV2 Sub Mul RealDiv Div Maximum Minimum Conv3D BiasAdd MatMul Square Sqrt Exp LeakyRelu Relu".split()
)
_MANY_PARTS = 16
MIB = 1 << 20


@dataclass(frozen=True)
class Finding:
    """One remark on one or several nodes.

    Parameters
    ----------
    severity : str — error (ATC or the device will refuse), warning (works, at a price), note.
    kind : str — short name of the rule.
    what, do : str — what was found; what to do.
    nodes, ops : tuple of str — names and TensorFlow types, in graph order; empty where it is about the whole graph.
    """

    severity: str
    kind: str
    what: str
    do: str
    nodes: Tuple[str, ...] = ()
    ops: Tuple[str, ...] = ()


Remark = Tuple[str, str, str, str]
Rule = Callable[["Context", TfNode], Iterator[Remark]]


@dataclass(frozen=True)
class Context:
    """What every rule may ask."""

    view: GraphView
    plan: PrecisionPlan
    dtypes: Dict[str, Tuple[str, str]]
    #: biases that become part of their convolution
    fused: FrozenSet[str] = frozenset()
    family: Optional[Family] = None


def check_nodes(context: Context) -> List[Finding]:
    """All findings about nodes, errors first, otherwise in graph order."""
    collected: Dict[Remark, List[TfNode]] = {}
    for node in context.view.nodes:
        for rule in _RULES:
            for remark in rule(context, node):
                collected.setdefault(remark, []).append(node)
    for node in context.view.dead:
        for remark in _dead(node):
            collected.setdefault(remark, []).append(node)
    found = [
        Finding(*remark, nodes=tuple(node.name for node in nodes), ops=tuple(dict.fromkeys(node.op for node in nodes)))
        for remark, nodes in collected.items()
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _support(context: Context, node: TfNode) -> Iterator[Remark]:
    if node.op in OPS or node.name in context.view.folded or node.op in _PARSED:
        return
    if node.op == "NoOp":
        yield (
            ERROR,
            "no-op",
            "the parser knows no NoOp",
            "freeze without control dependencies: remove it and the edges that name it",
        )
    elif node.op in _VARIABLES:
        yield (
            ERROR,
            "not-frozen",
            "holds a variable; only frozen graphs compile",
            "freeze the checkpoint: python -m export --checkpoint …",
        )
    else:
        yield (
            ERROR,
            "unsupported",
            "a 910 has no kernel for this type, or ATC no parser (E13010, E10501)",
            "replace it by supported operators before freezing; if your CANN is newer than 8.1, try --preflight report",
        )


def _engine(context: Context, node: TfNode) -> Iterator[Remark]:
    row = OPS.get(node.op)
    if row is None or row.engine != AICPU or node.name in context.view.folded:
        return
    names = data_inputs(node)
    moved = [context.view.nbytes(name) for name in names + [node.name + ":0"]]
    if node.op.startswith("TensorArray"):
        yield (
            WARNING,
            "loop-on-cpu",
            "runs on the AI CPU, once per step of its loop; its output has no size that the compiler knows",
            "write the loop out for the fixed batch (no tf.map_fn); otherwise give output buffers by hand at run time",
        )
        return
    cost = "an unknown number of bytes" if None in moved else _size(sum(moved))  # type: ignore[arg-type]
    yield (
        WARNING,
        "ai-cpu",
        f"runs on the AI CPU: {cost} leave the AI Core and come back at each run",
        "use an operator with an AI Core kernel, or compute it before and feed it as an input",
    )


def _size(nbytes: int) -> str:
    return f"{nbytes / MIB:.1f} MiB" if nbytes >= MIB else f"{nbytes} bytes"


def _control_flow(context: Context, node: TfNode) -> Iterator[Remark]:
    if node.op in _LOOPS:
        yield (
            WARNING,
            "loop",
            "a loop of TensorFlow 1: each step is scheduled by the AI CPU, and outputs have no fixed size",
            "write the loop out for the fixed batch (no tf.map_fn), or functionalise it with CANN's func2graph.py",
        )
    elif node.op in _FUNCTIONAL:
        yield (
            WARNING,
            "function",
            "calls a function of the graph's library, which preflight does not look into",
            "inline it before freezing, so that everything can be checked",
        )


def _inputs(context: Context, node: TfNode) -> Iterator[Remark]:
    if node.op == "PlaceholderWithDefault":
        yield (
            WARNING,
            "default-input",
            "an input with a default, which the compiler drops",
            "use a Placeholder and feed it",
        )
    if node.op != "Placeholder":
        return
    dtype, shape = context.view.dtypes[node.name], context.view.shapes.get(node.name + ":0")
    if dtype not in limits.INPUT_DTYPES:
        yield (
            ERROR,
            "input-dtype",
            f"input of type {dtype}; legal are {', '.join(limits.INPUT_DTYPES)}",
            "cast before feeding",
        )
    if shape is None or any(side < 1 for side in shape):
        shown = "of unknown rank" if shape is None else "(" + ", ".join("?" if n < 0 else str(n) for n in shape) + ")"
        yield (
            ERROR,
            "dynamic",
            f"input {shown}: every side must be fixed and above 0",
            "freeze with a static shape, batch included, or pass --input-shape as to ATC",
        )


def _shapes(context: Context, node: TfNode) -> Iterator[Remark]:
    shape = context.view.shapes.get(node.name + ":0")
    if node.op != "Placeholder" and node.name not in context.view.folded and shape is not None and 0 in shape:
        yield ERROR, "empty", "a tensor without elements; every side must be above 0", "remove the branch that makes it"


def _wide(context: Context, node: TfNode) -> Iterator[Remark]:
    dtype = context.view.dtypes.get(node.name, "?")
    if node.op in _WIDE_ARITHMETIC and dtype in _WIDE and node.name not in context.view.folded:
        yield (
            WARNING,
            "wide",
            f"arithmetic in {dtype} has no AI Core kernel on a 910; it falls back to the AI CPU or is refused",
            "use float32, or int32 for indices",
        )


def _dtype_fallback(context: Context, node: TfNode) -> Iterator[Remark]:
    row = OPS.get(node.op)
    if row is None or node.name not in context.dtypes or node.op == "Placeholder":
        return
    mode, kept = context.plan.mode, node.name in context.plan.keep_dtype
    wanted = wanted_dtype(row, mode, kept, context.dtypes[node.name][0])
    if context.family is not None and context.family.single_conv and lacks_single(row):
        if mode == "cube_fp16in_fp32out" or node.name in context.plan.fp32_results:
            yield (
                WARNING,
                "dtype",
                f"an fp32 result from fp16 operands, which {node.op} of {context.family.products} does not have",
                "use --precision accurate (force_fp32): its operands are float32 on this chip",
            )
        return
    if row.cube and mode == ORIGIN and context.view.dtypes.get(node.name) == "float32" and "float32" not in row.floats:
        yield (
            ERROR,
            "dtype",
            f"{ORIGIN} wants float32, which {node.op} of a 910 does not have",
            "use --precision accurate (force_fp32: fp16 operands, fp32 results), the most accurate there is",
        )
    elif kept and lacks_single(row):
        yield (
            ERROR,
            "keep-dtype",
            f"on the list of nodes that keep float32, but {node.op} of a 910 has no such kernel; ATC refuses it (EZ3003)",
            "take it off keep_dtype; for a float32 result put it on fp32_results of the plan, or use force_fp32",
        )
    elif kept and node.name in context.fused:
        yield (
            WARNING,
            "keep-dtype",
            "the compiler fuses it into the convolution before it, so keeping it changes nothing",
            "take it off keep_dtype; for a float32 result put the convolution on fp32_results of the plan",
        )
    elif wanted not in row.floats and not row.cube and row.engine != AICPU:
        severity = WARNING if wanted == "float32" else NOTE
        yield severity, "dtype", f"{wanted} wanted, only {row.floats[0]} there", "look at it in the precision report"


def _missing(context: Context, node: TfNode) -> Iterator[Remark]:
    """Kernels that another family is known to lack."""
    if context.family is None or node.name in context.view.folded:
        return
    for op, lack in context.family.missing:
        if node.op == op and context.view.dtypes.get(node.name, "?").startswith("int"):
            yield (
                WARNING,
                "ai-cpu",
                f"{context.family.products} has no AI Core kernel of {op} from {lack}",
                "expect a slow warp on this chip, or take the flow alone and warp on the host",
            )


def _slow(context: Context, node: TfNode) -> Iterator[Remark]:
    if node.name in context.view.folded:
        return
    if node.op == "GatherNd":
        yield NOTE, "slow", "the kernel gathers element by element", "use GatherV2 on a flattened index"
    if node.op == "Split" and int(node.attrs.get("num_split") or 0) > _MANY_PARTS:
        yield (
            NOTE,
            "slow",
            f"splits into {node.attrs['num_split']} parts, each a copy",
            "upsample by concatenation or a transposed convolution instead of Split and ConcatV2",
        )
    rank = context.view.shape(node.name + ":0")
    if node.op.startswith("Resize") and rank is not None and len(rank) != 4:
        yield ERROR, "rank", "resizing kernels take 4-D images only", "resize per plane, or upsample by concatenation"


def _convolution(context: Context, node: TfNode) -> Iterator[Remark]:
    if node.op == "Conv3D" and node.name not in context.view.folded:
        for what, do in conv3d_complaints(context.view, node):
            yield ERROR, "conv3d", what, do


def _dead(node: TfNode) -> Iterator[Remark]:
    if node.op not in OPS:
        yield (
            WARNING,
            "dead",
            "no output needs it, but ATC's parser may read it and knows no such type",
            "strip it before freezing",
        )


_RULES: Tuple[Rule, ...] = (
    _support,
    _inputs,
    _shapes,
    _convolution,
    _dtype_fallback,
    _missing,
    _control_flow,
    _engine,
    _wide,
    _slow,
)
