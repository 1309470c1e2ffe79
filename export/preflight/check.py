# SPDX-License-Identifier: Apache-2.0
"""Looks at a frozen graph before ATC does: engines, dtypes, limits, loops, memory; every finding says what to do.

It knows the operators of a first-generation 910 from CANN's own tables (`vxm_convert.ascend.operators`). It runs
nothing and is no proof: ATC decides.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from export.preflight.estimate.timing import TimeEstimate, estimate_time
from export.preflight.estimate.work import CAST, LAYOUT
from export.preflight.rules.nodes import ERROR, MIB, NOTE, WARNING, Context, Finding, check_nodes
from export.preflight.rules.outputs import unsized_outputs
from export.preflight.rules.resolution import Position, find_positions, resolution_findings
from export.preflight.view.dtypes import float_dtypes, fused_biases
from export.preflight.view.graph import GraphView, read_view
from export.preflight.view.memory import MemoryEstimate, estimate_memory
from export.preflight.view.shapes import Shapes, data_inputs
from vxm_convert.artifacts.names import PREFLIGHT_CSV, PREFLIGHT_JSON
from vxm_convert.artifacts.reports import report_head, write_report_csv, write_report_json
from vxm_convert.ascend import chips, limits
from vxm_convert.ascend.operators import OPS
from vxm_convert.errors import ToolchainError
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.model.precision import PrecisionPlan

_SHOWN_NODES = 3
_FOLDED, _UNKNOWN = "constant", "unsupported"
#: columns of a node that costs no time of its own
_NO_TIME = {"estimate_ms": 0.0, "estimate_convert_ms": 0.0}


@dataclass(frozen=True)
class Preflight:
    """Result: findings (errors first), one row per node, counts per engine, the estimates of memory and time."""

    pb: Path
    soc_version: str
    plan: PrecisionPlan
    findings: Tuple[Finding, ...]
    rows: Tuple[Dict[str, Any], ...]
    engines: Dict[str, int]
    memory: MemoryEstimate
    time: TimeEstimate
    unknown_shapes: int
    positions: Tuple[Position, ...] = ()

    @property
    def keep_dtype(self) -> Tuple[str, ...]:
        """Nodes that the plan would put into fp16 although their positions need more."""
        return tuple(position.node for position in self.positions if position.half)

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def check(self) -> None:
        """Raise ToolchainError if there is any error; the message lists them all."""
        errors = [finding for finding in self.findings if finding.severity == ERROR]
        if errors:
            listing = "\n".join(f"  {_who(finding)}{finding.what}; do this: {finding.do}" for finding in errors)
            many = f"{len(errors)} fault{'s' * (len(errors) > 1)}"
            raise ToolchainError(
                f"preflight: {self.pb} has {many} for {self.soc_version}, precision {self.plan.name}:\n{listing}"
            )


def run_preflight(
    pb: Path,
    soc_version: str,
    plan: PrecisionPlan,
    outputs: Sequence[str] = (),
    shapes: Optional[Shapes] = None,
    input_shapes: Optional[Mapping[str, Tuple[int, ...]]] = None,
) -> Preflight:
    """Check a frozen graph.

    Parameters
    ----------
    pb : Path — frozen GraphDef.
    soc_version : str — chip, as ATC names it.
    plan : PrecisionPlan — mode and the nodes that keep fp32.
    outputs : sequence of str — ``node:index``; empty means all leaves.
    shapes : dict or None — from TensorFlow; None infers what can be inferred without it.
    input_shapes : dict or None — input → shape that replaces the graph's, as ATC's ``--input_shape``.

    Raises
    ------
    VxmError
        If the file is no frozen graph or lacks an output. Faults of the graph are findings, not exceptions.
    """
    view = read_view(pb, outputs, shapes, input_shapes)
    family = chips.family_of(soc_version)
    keep, results = frozenset(plan.keep_dtype), frozenset(plan.fp32_results)
    dtypes = float_dtypes(view, plan.mode, keep, results, family is not None and family.single_conv)
    memory = estimate_memory(view, dtypes)
    positions = find_positions(view, dtypes)
    fused = frozenset(fused_biases(view))
    findings = check_nodes(Context(view, plan, dtypes, fused, family)) + list(resolution_findings(positions))
    findings += unsized_outputs(view)
    findings += _whole_graph(view, soc_version, plan, memory)
    order = (ERROR, WARNING, NOTE)
    findings.sort(key=lambda finding: order.index(finding.severity))
    time = estimate_time(view, dtypes, soc_version, memory)
    spent = _estimated_ms(time)
    rows = tuple({**_row(view, node, dtypes, findings), **spent.get(node.name, _NO_TIME)} for node in view.nodes)
    unknown = sum(view.shape(node.name + ":0") is None for node in view.nodes)
    engines = dict(Counter(row["engine"] for row in rows))
    return Preflight(pb, soc_version, plan, tuple(findings), rows, engines, memory, time, unknown, tuple(positions))


def _whole_graph(view: GraphView, soc_version: str, plan: PrecisionPlan, memory: MemoryEstimate) -> List[Finding]:
    """Findings that belong to no single node."""
    found = []
    chip, family = chips.chip_of(soc_version), chips.family_of(soc_version)
    if family is None:
        names = ", ".join(sorted(chips.CHIPS))
        what = f"{soc_version} is in no table: operators were checked as if it were a first-generation 910"
        found.append(Finding(WARNING, "chip", what, f"believe ATC rather than this table, or pass one of {names}"))
    elif family.unknown:
        what = f"{soc_version} is of the family {family.products}; not known: {'; '.join(family.unknown)}"
        found.append(Finding(WARNING, "chip", what, "believe ATC and the precision report rather than this table"))
    known = {node.name for node in view.nodes}
    for kind, listed in (("keep-dtype", plan.keep_dtype), ("fp32-results", plan.fp32_results)):
        lost = sorted(set(listed) - known)
        if lost:
            found.append(
                Finding(
                    ERROR,
                    kind,
                    "the precision plan names nodes that the graph does not have; ATC ignores them without a word",
                    "correct the plan: names as `inspect --ops` shows them",
                    tuple(lost),
                )
            )
    cubes = {node.name for node in view.nodes if node.op in OPS and OPS[node.op].cube}
    wrong = sorted(set(plan.fp32_results) & known - cubes)
    if wrong:
        found.append(
            Finding(
                ERROR,
                "fp32-results",
                "only convolutions and matrix products take fp16 and return float32",
                "put other nodes on keep_dtype",
                tuple(wrong),
            )
        )
    if chip is not None and chip.memory is not None:
        found += _memory_findings(memory, chip.memory, chip.most_memory or chip.memory)
    return found


def _memory_findings(memory: MemoryEstimate, available: int, most: int) -> List[Finding]:
    """`available` and `most` are the bytes of the smallest and of the largest card with the chip."""
    fits = memory.largest_batch(available)
    advice = f"use --batch {fits}" if fits else "use a smaller --shape"
    told = f"estimated {memory.total / MIB:.0f} MiB of {available / MIB:.0f} MiB (worst at {memory.peak_node})"
    if memory.total > most:
        return [Finding(ERROR, "memory", told, advice)]
    if memory.total > available:
        more = f"{told}: too much for the smallest card with this chip; the largest has {most / MIB:.0f} MiB"
        return [Finding(WARNING, "memory", more, advice + ", or the larger card")]
    if memory.total > available * limits.COMFORTABLE_SHARE:
        return [Finding(WARNING, "memory", f"{told}: little is left for driver and runtime", advice)]
    return []


def _row(
    view: GraphView, node: TfNode, dtypes: Mapping[str, Tuple[str, str]], findings: Sequence[Finding]
) -> Dict[str, Any]:
    support = OPS.get(node.op)
    about = [finding for finding in findings if node.name in finding.nodes]
    into, out = dtypes.get(node.name, ("", view.dtypes.get(node.name, "?")))
    own = view.dtypes.get(node.name, "?")
    shape = view.shapes.get(node.name + ":0")
    return {
        "node": node.name,
        "op": node.op,
        "ge_type": support.ge_type if support else None,
        "engine": _FOLDED if node.name in view.folded else support.engine if support else _UNKNOWN,
        "inputs": [view.dtype_of(name) for name in data_inputs(node)],
        "graph_dtype": own,
        "float_in": into or None,
        "dtype": out if own in ("float16", "float32") else own,
        "shape": "unknown" if shape is None else "x".join(map(str, shape)) or "scalar",
        "severity": about[0].severity if about else None,
        "kind": " ".join(finding.kind for finding in about),
        "what": "; ".join(finding.what for finding in about),
        "do": "; ".join(dict.fromkeys(finding.do for finding in about)),
    }


def _estimated_ms(time: TimeEstimate) -> Dict[str, Dict[str, float]]:
    """Node → its columns: its own kernel, and the casts and layouts before it."""
    spent: Dict[str, Dict[str, float]] = {}
    for layer in time.layers:
        column = "estimate_convert_ms" if layer.kind in (CAST, LAYOUT) and " of " in layer.op else "estimate_ms"
        columns = spent.setdefault(layer.node, dict(_NO_TIME))
        columns[column] = round(columns[column] + layer.seconds * 1e3, 6)
    return spent


def write_reports(result: Preflight, folder: Path, toolchain: Mapping[str, Any]) -> None:
    """``preflight.csv`` (a row per node) and ``preflight.json`` (all of it).

    Parameters
    ----------
    toolchain : mapping — ``Toolchain.describe()`` of the compiler to come, or ``{"kind": "none"}``.
    """
    head = report_head("export preflight", toolchain, bool(toolchain.get("simulated", False)), 0)
    memory = {**asdict(result.memory), "total": result.memory.total}
    chip = chips.chip_of(result.soc_version)
    available = chip.memory if chip else None
    write_report_json(
        Path(folder) / PREFLIGHT_JSON,
        {
            **head,
            "pb": result.pb.name,
            "soc_version": result.soc_version,
            "precision": result.plan.to_dict(),
            "engines": result.engines,
            "memory": {
                **memory,
                "available": available,
                "largest_batch": result.memory.largest_batch(available) if available else None,
            },
            "estimate": result.time.to_dict(),
            "unknown_shapes": result.unknown_shapes,
            "nodes": list(result.rows),
            "findings": [asdict(finding) for finding in result.findings],
            "positions": [asdict(position) for position in result.positions],
            "keep_dtype": list(result.keep_dtype),
        },
    )
    write_report_csv(Path(folder) / PREFLIGHT_CSV, result.rows)


def table(result: Preflight) -> List[str]:
    """Lines for the terminal: findings first (notes only as a count), then counts."""
    lines = [
        f"preflight of {result.pb.name} for {result.soc_version}, precision {result.plan.name} ({result.plan.mode})"
    ]
    for finding in result.findings:
        if finding.severity != NOTE:
            lines += [
                f"  {finding.severity:8s} {finding.kind:12s} {_who(finding)}{finding.what}",
                f"  {'':21s} do: {finding.do}",
            ]
    engines = ", ".join(f"{name} {count}" for name, count in sorted(result.engines.items()))
    kinds = Counter(row["dtype"] for row in result.rows if row["engine"] == "AI Core")
    unknown = f"; shape unknown {result.unknown_shapes}" if result.unknown_shapes else ""
    lines.append(f"  nodes    {len(result.rows)}: {engines}{unknown}")
    lines.append(
        "  results  of AI Core operators: "
        + (", ".join(f"{name} {count}" for name, count in sorted(kinds.items())) or "none")
    )
    lines.append("  memory   " + _memory_line(result))
    return lines + [f"  {result.count(ERROR)} errors, {result.count(WARNING)} warnings, {result.count(NOTE)} notes"]


def _memory_line(result: Preflight) -> str:
    memory, chip = result.memory, chips.chip_of(result.soc_version)
    parts = (
        f"weights {memory.weights / MIB:.1f}, inputs and outputs {memory.edges / MIB:.1f}, intermediate "
        f"{memory.peak / MIB:.1f}"
    )
    line = f"estimate {memory.total / MIB:.0f} MiB ({parts})"
    if memory.unknown:
        line += f", and {memory.unknown} tensors of unknown size"
    if chip is None or chip.memory is None:
        return line
    fits = memory.largest_batch(chip.memory)
    return f"{line} of {chip.memory / MIB:.0f} MiB" + (f"; a batch of up to {fits} should fit" if fits else "")


def _who(finding: Finding) -> str:
    if not finding.nodes:
        return ""
    shown = ", ".join(finding.nodes[:_SHOWN_NODES]) + (", …" if len(finding.nodes) > _SHOWN_NODES else "")
    times = f" x{len(finding.nodes)}" if len(finding.nodes) > 1 else ""
    return f"{', '.join(finding.ops) or 'nodes'}{times} ({shown}): "
