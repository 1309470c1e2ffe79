# SPDX-License-Identifier: Apache-2.0
"""Follows voxel positions through a graph without running it: where grids come from, and what arithmetic makes of them.

A span is the range of values of a tensor. With a `unit` it is a position: values that count voxels along an axis,
`unit` apart. What is not known to be a position or a constant has no span; nothing is guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np

from export.preflight.view.graph import GraphView
from export.preflight.view.shapes import data_inputs
from vxm_convert.formats.tf_graph import TfNode

#: shorter axes need no finer steps than fp16 has (below 32), and any small table looks like a grid
MIN_GRID = 64
_MAX_ELEMENTS = 50_000_000
_MAX_CHANNELS = 4
_SWEEPS = 2


@dataclass(frozen=True)
class Span:
    """Values between `low` and `high`.

    Parameters
    ----------
    unit : float or None — value that one voxel is; None for a plain constant.
    displaced : bool — something that is not known was added: positions between voxels.
    """

    low: float
    high: float
    unit: Optional[float] = None
    displaced: bool = False

    @property
    def largest(self) -> float:
        return max(abs(self.low), abs(self.high))


Found = Sequence[Optional[Span]]


def follow_positions(view: GraphView) -> Dict[str, Span]:
    """Node → span of its outputs, for constants and positions."""
    spans: Dict[str, Span] = {}
    # Twice, for what comes round a loop.
    for _ in range(_SWEEPS):
        for node in view.nodes:
            inputs = [spans.get(tensor.rpartition(":")[0]) for tensor in data_inputs(node)]
            span = _visit(view, node, inputs)
            if span is not None and math.isfinite(span.low) and math.isfinite(span.high):
                spans[node.name] = span
    return spans


def _visit(view: GraphView, node: TfNode, inputs: Found) -> Optional[Span]:
    if node.op == "Const":
        return constant_span(np.asarray(node.attrs.get("value")))
    rule = _RULES.get(node.op)
    if (rule is None and node.op != "Range") or not inputs:
        return None
    try:
        span = rule(inputs) if rule is not None else _range(view, node, inputs)
    except (IndexError, OverflowError, ValueError, ZeroDivisionError):
        # A damaged node: other rules say so.
        return None
    if span is not None and view.dtypes.get(node.name, "?").startswith(("int", "uint")):
        return replace(span, displaced=False)
    return span


def constant_span(values: np.ndarray) -> Optional[Span]:
    """Range of a constant, with its unit if it is a grid: at least 64 equally spaced values, each as often as the
    others.

    That holds for a grid in any form: one axis, mesh, flattened, tiled, or with the axes as last dimension (which may
    have different sides).
    """
    if values.dtype.kind not in "iuf" or not 0 < values.size <= _MAX_ELEMENTS or not np.all(np.isfinite(values)):
        return None
    low, high = float(values.min()), float(values.max())
    unit = _unit(values)
    if unit is None and values.ndim > 1 and 1 < values.shape[-1] <= _MAX_CHANNELS:
        units = [
            found for found in (_unit(values[..., channel]) for channel in range(values.shape[-1])) if found is not None
        ]
        unit = min(units) if units else None
    return Span(low, high, unit)


def _unit(values: np.ndarray) -> Optional[float]:
    if values.size < MIN_GRID:
        return None
    different, counts = np.unique(values, return_counts=True)
    if len(different) < MIN_GRID or counts.min() != counts.max():
        return None
    steps = np.diff(different.astype(np.float64))
    # fp32 spaces 1/159 unevenly, but by far less than this.
    return float(steps.mean()) if steps.max() <= 1.01 * steps.min() else None


def _range(view: GraphView, node: TfNode, inputs: Found) -> Optional[Span]:
    """start, limit, delta; where the limit is a shape that the graph computes, the number of values may still be
    known.
    """
    if len(inputs) != 3 or inputs[0] is None or inputs[2] is None or inputs[2].low == 0:
        return None
    start, delta = inputs[0].low, inputs[2].low
    shape = view.shape(node.name + ":0")
    if shape is not None and len(shape) == 1:
        many = shape[0]
    elif inputs[1] is not None:
        many = max(0, math.ceil((inputs[1].high - start) / delta))
    else:
        return None
    if not 0 < many <= _MAX_ELEMENTS:
        return None
    last = start + (many - 1) * delta
    return Span(min(start, last), max(start, last), abs(delta) if many >= MIN_GRID else None)


def _linspace(inputs: Found) -> Optional[Span]:
    start, stop, many = inputs[0], inputs[1], inputs[2]
    if start is None or stop is None or many is None or many.low < 2:
        return None
    unit = abs(stop.low - start.low) / (many.low - 1)
    return Span(min(start.low, stop.low), max(start.low, stop.low), unit if many.low >= MIN_GRID and unit else None)


def _first(inputs: Found) -> Optional[Span]:
    return inputs[0]


def _second(inputs: Found) -> Optional[Span]:
    return inputs[1]


def _union(inputs: Found) -> Optional[Span]:
    """Of the positions; of constants only where all parts are known."""
    known = [span for span in inputs if span is not None]
    positions = [span for span in known if span.unit is not None]
    if not positions and len(known) < len(inputs):
        return None
    parts = positions or known
    unit = min(span.unit for span in positions) if positions else None  # type: ignore[type-var]
    return Span(min(s.low for s in parts), max(s.high for s in parts), unit, any(s.displaced for s in parts))


def _loop(inputs: Found) -> Optional[Span]:
    """What goes round a loop keeps being a position; a constant does not stay one."""
    span = _union(inputs)
    return span if span is not None and span.unit is not None else None


def _parts(inputs: Found) -> Optional[Span]:
    """ConcatV2: the last input is the axis."""
    return _union(inputs[:-1])


def _sum(inputs: Found) -> Optional[Span]:
    positions = [span for span in inputs if span is not None and span.unit is not None]
    if not positions and None in inputs:
        return None
    known = [span for span in inputs if span is not None]
    unit = min(span.unit for span in positions) if positions else None  # type: ignore[type-var]
    moved = None in inputs or any(span.displaced for span in known)
    return Span(sum(s.low for s in known), sum(s.high for s in known), unit, moved)


def _difference(inputs: Found) -> Optional[Span]:
    """Two positions of one axis cancel: what is left is a distance of a voxel or so, which fp16 holds."""
    left, right = inputs[0], inputs[1]
    if left is not None and right is not None and left.unit is not None and right.unit is not None:
        return None
    return _sum([left, _negative([right])])


def _negative(inputs: Found) -> Optional[Span]:
    span = inputs[0]
    return None if span is None else replace(span, low=-span.high, high=-span.low)


def _magnitude(inputs: Found) -> Optional[Span]:
    span = inputs[0]
    return None if span is None else replace(span, low=0.0, high=span.largest)


def _product(inputs: Found) -> Optional[Span]:
    left, right = inputs[0], inputs[1]
    if left is None or right is None or (left.unit is not None and right.unit is not None):
        return None
    ends = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
    position, factor = (left, right) if left.unit is not None else (right, left)
    unit = None if position.unit is None else position.unit * factor.largest
    return Span(min(ends), max(ends), unit or None, position.displaced)


def _quotient(inputs: Found) -> Optional[Span]:
    divisor = inputs[1]
    if divisor is None or divisor.unit is not None or divisor.low * divisor.high <= 0:
        return None
    return _product([inputs[0], Span(1 / divisor.high, 1 / divisor.low)])


def _clamp(below: Optional[int], above: Optional[int]) -> Callable[[Found], Optional[Span]]:
    """Minimum, Maximum, ClipByValue: positions within bounds at these inputs."""

    def rule(inputs: Found) -> Optional[Span]:
        position = next((span for span in inputs if span is not None and span.unit is not None), None)
        if position is None:
            return None if None in inputs else _union(inputs)
        low, high = position.low, position.high
        for bound in _others(inputs, below, position):
            low = max(low, bound.low)
        for bound in _others(inputs, above, position):
            high = min(high, bound.high)
        return replace(position, low=min(low, high), high=max(low, high))

    return rule


def _others(inputs: Found, position: Optional[int], own: Span) -> List[Span]:
    """The bound at one place, or, for −1, whichever input is not the position itself."""
    if position is None:
        return []
    chosen = inputs if position < 0 else inputs[position : position + 1]
    return [span for span in chosen if span is not None and span is not own]


def _whole(inputs: Found) -> Optional[Span]:
    return None if inputs[0] is None else replace(inputs[0], displaced=False)


def _mixed(inputs: Found) -> Optional[Span]:
    """A matrix product with positions: an affine transform of them."""
    span = _union([span for span in inputs if span is not None and span.unit is not None] or [None])
    return None if span is None else replace(span, displaced=True)


_MOVERS = (
    "Identity Reshape Squeeze ExpandDims Transpose Tile StridedSlice Slice Unpack BroadcastTo Pad StopGradient "
    "Snapshot Enter Exit "
    "NextIteration Switch Gather GatherV2 GatherNd SplitV Cast PreventGradient Max Min"
)
_RULES: Dict[str, Callable[[Found], Optional[Span]]] = {
    **{name: _first for name in _MOVERS.split()},
    **{name: _whole for name in "Floor Ceil Round Rint".split()},
    **{name: _sum for name in "Add AddV2 BiasAdd AddN".split()},
    **{name: _product for name in ("Mul",)},
    **{name: _quotient for name in ("RealDiv", "Div", "DivNoNan")},
    **{name: _mixed for name in ("MatMul", "BatchMatMul", "BatchMatMulV2")},
    "Sub": _difference,
    "Neg": _negative,
    "Abs": _magnitude,
    "Split": _second,
    "Fill": _second,
    "LinSpace": _linspace,
    "Pack": _union,
    "ConcatV2": _parts,
    "Merge": _loop,
    "Select": lambda inputs: _union(inputs[1:]),
    "SelectV2": lambda inputs: _union(inputs[1:]),
    "Minimum": _clamp(None, -1),
    "Maximum": _clamp(-1, None),
    "ClipByValue": _clamp(1, 2),
}
