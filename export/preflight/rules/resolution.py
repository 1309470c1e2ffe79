# SPDX-License-Identifier: Apache-2.0
"""Required resolution: positions up to N in steps of 1/64 voxel do not fit fp16, whose numbers are 2^(⌊log2 N⌋ − 10)
apart at N.

Decides from the graph alone which operators hold or read such positions on their way to a sampling index, and would do
so in fp16 under the plan. `export.preflight.view.positions` follows the positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Iterator, List, Mapping, Optional, Set, Tuple

from export.preflight.rules.nodes import NOTE, WARNING, Finding
from export.preflight.view.dtypes import FLOATS
from export.preflight.view.graph import GraphView
from export.preflight.view.positions import Span, follow_positions
from export.preflight.view.shapes import data_inputs
from vxm_convert.ascend.limits import HALF_MAX
from vxm_convert.formats.tf_graph import TfNode

#: sampling positions must be told apart by 1/64 voxel: rounding then moves them by at most half of that
STEPS_PER_VOXEL = 64
_HALF_BITS = 10
_SMALLEST_EXPONENT = -14
_ROUNDERS = frozenset(("Floor", "Ceil", "Round", "Rint"))
Dtypes = Mapping[str, Tuple[str, str]]


@dataclass(frozen=True)
class Position:
    """A node that holds or reads positions too fine for fp16.

    Parameters
    ----------
    node, op : str
    largest : float — largest absolute value, in the graph's own unit.
    spacing : float or None — distance of fp16's numbers there; None beyond its range.
    step : float — distance that must be told apart.
    half : bool — the plan would compute it in fp16.
    """

    node: str
    op: str
    largest: float
    spacing: Optional[float]
    step: float
    half: bool


def half_spacing(value: float) -> Optional[float]:
    """Distance between fp16 numbers at `value`; None where fp16 has ended."""
    if abs(value) > HALF_MAX:
        return None
    exponent = math.floor(math.log2(abs(value))) if value else _SMALLEST_EXPONENT
    return 2.0 ** (max(exponent, _SMALLEST_EXPONENT) - _HALF_BITS)


def find_positions(view: GraphView, dtypes: Dtypes) -> List[Position]:
    """Nodes in graph order.

    Parameters
    ----------
    dtypes : mapping — node → (dtype of float inputs, of float output) under the plan, as `float_dtypes` gives it.
    """
    spans = {name: span for name, span in follow_positions(view).items() if span.unit is not None}
    sampled = _sampled(view, spans)
    found = []
    for node in view.nodes:
        if node.name not in dtypes:
            continue
        into, out = dtypes[node.name]
        own = [node.name] if node.name in sampled and view.dtypes.get(node.name) in FLOATS else []
        read = [name for name in _sources(view, node) if name in sampled and view.dtypes.get(name) in FLOATS]
        fine = [spans[name] for name in own + read if _too_fine(spans[name])]
        if not fine:
            continue
        worst = max(fine, key=lambda span: span.largest / _step(span))
        half = (out == "float16" and any(_too_fine(spans[name]) for name in own)) or (
            into == "float16" and any(_too_fine(spans[name]) for name in read)
        )
        found.append(Position(node.name, node.op, worst.largest, half_spacing(worst.largest), _step(worst), half))
    return found


def resolution_findings(positions: List[Position]) -> Iterator[Finding]:
    """A warning for what would be in fp16 (keep it in fp32), a note for what is in fp32 and must stay so."""
    groups: Dict[Tuple[bool, float, Optional[float], float], List[Position]] = {}
    for position in positions:
        groups.setdefault((position.half, position.largest, position.spacing, position.step), []).append(position)
    for (half, largest, spacing, step), members in groups.items():
        there = "fp16 ends at 65504" if spacing is None else f"fp16 is spaced {_fraction(spacing)} there"
        what = f"positions up to {largest:g} in steps of {_fraction(step)}; {there}"
        names = tuple(member.node for member in members)
        ops = tuple(dict.fromkeys(member.op for member in members))
        if half:
            yield Finding(
                WARNING,
                "resolution",
                what + ", and the plan computes them in fp16",
                "keep all of them in fp32 (ATC's --keep_dtype; keep_dtype in preflight.json lists them), or add whole "
                "voxels as "
                "integers and interpolate with the fraction alone",
                names,
                ops,
            )
        else:
            yield Finding(
                NOTE, "resolution", what + "; the plan computes them in fp32", "leave them in fp32", names, ops
            )


def _sources(view: GraphView, node: TfNode) -> List[str]:
    return [tensor.rpartition(":")[0] for tensor in data_inputs(node)]


def _step(span: Span) -> float:
    unit = span.unit or 1.0
    return unit / STEPS_PER_VOXEL if span.displaced else unit


def _too_fine(span: Span) -> bool:
    spacing = half_spacing(span.largest)
    return spacing is None or spacing > _step(span)


def _sampled(view: GraphView, spans: Mapping[str, Span]) -> Set[str]:
    """Positions from which rounding to a voxel index can be reached, the only use that makes their resolution
    matter.
    """
    wanted = [name for node in view.nodes if _makes_index(view, node) for name in _sources(view, node)]
    producers = {node.name: _sources(view, node) for node in view.nodes}
    reached: Set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in spans and name not in reached:
            reached.add(name)
            wanted += producers.get(name, [])
    return reached


def _makes_index(view: GraphView, node: TfNode) -> bool:
    if node.op in _ROUNDERS:
        return True
    sources = _sources(view, node)
    return (
        node.op == "Cast"
        and bool(sources)
        and view.dtypes.get(sources[0]) in FLOATS
        and view.dtypes.get(node.name, "?").startswith(("int", "uint"))
    )


def _fraction(value: float) -> str:
    return f"1/{round(1 / value)}" if 0 < value < 1 and abs(1 / value - round(1 / value)) < 1e-6 else f"{value:.3g}"
