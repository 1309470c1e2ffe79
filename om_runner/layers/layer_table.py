# SPDX-License-Identifier: Apache-2.0
"""layers.csv with the columns of Ascend's comparer (followed by ours), layers.json for the report, and the table on the
terminal.
"""

from __future__ import annotations

import csv
import io
import math
from typing import Any, Dict, List, Optional, Sequence

from om_runner.layers.judge import DEFAULT_LAYER_LIMIT, LayerResult
from om_runner.layers.matching import NET_OUTPUT
from vxm_convert.metrics.ascend import ASCEND_NAMES

LAYERS_SCHEMA = 1
#: with the names of Ascend's comparer, two of them twice: first the device's tensor, then the golden one
ASCEND_COLUMNS = (
    [
        "Index",
        "OpType",
        "NPUDump",
        "DataType",
        "Address",
        "GroundTruth",
        "DataType",
        "Address",
        "TensorIndex",
        "Shape",
        "OverFlow",
    ]
    + list(ASCEND_NAMES)
    + ["CompareFailReason"]
)
OUR_COLUMNS = [
    "SingleRelativeEuclidean",
    "SingleMaxAbsolute",
    "Effect",
    "Share",
    "Discontinuous",
    "FlipRate",
    "BoundaryDistance",
    "Source",
]
#: the comparer's text for a tensor without a node in the framework's graph, and for an undefined figure
NO_GROUND_TRUTH = "*"
UNDEFINED = "NaN"
_SHOWN = 10


def csv_text(results: Sequence[LayerResult]) -> str:
    """One line per tensor in execution order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ASCEND_COLUMNS + OUR_COLUMNS)
    for number, result in enumerate(results):
        writer.writerow(_csv_row(number, result))
    return text.getvalue()


def _csv_row(number: int, result: LayerResult) -> List[str]:
    layer = result.layer
    golden = layer.golden.rpartition(":")[0] if layer.golden is not None else NO_GROUND_TRUTH
    entire, single = result.entire or {}, result.single or {}
    head = [
        str(number),
        layer.type,
        layer.op,
        layer.desc.dtype,
        UNDEFINED,
        golden,
        result.golden_dtype or UNDEFINED,
        UNDEFINED,
        f"{layer.op}:output:{layer.output}",
        "[" + ", ".join(str(n) for n in layer.desc.logical_shape) + "]",
        result.overflow or UNDEFINED,
    ]
    figures = [_figure(entire.get(name)) for name in ASCEND_NAMES]
    ours = [
        _figure(single.get("RelativeEuclideanDistance")),
        _figure(single.get("MaxAbsoluteError")),
        _figure(result.worst_effect),
        _figure(result.share),
        "YES" if layer.jumps else "NO",
        _figure(result.flip_rate),
        _figure(result.boundary_distance),
        "YES" if result.source else "NO",
    ]
    return head + figures + [result.reason] + ours


def _figure(value: object) -> str:
    """All digits of a double: 1 - cosine of 1e-8 must be visible."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNDEFINED
    return repr(float(value)) if isinstance(value, (int, float)) else str(value)


def json_rows(results: Sequence[LayerResult]) -> List[Dict[str, Any]]:
    """The entries of layers.json, in execution order."""
    return [
        {
            "index": number,
            "name": result.layer.op,
            "type": result.layer.type,
            "output": result.layer.output,
            "golden": result.layer.golden,
            "originals": list(result.layer.originals),
            "inputs": list(result.layer.inputs),
            "shape": list(result.layer.desc.logical_shape),
            "dtype": result.layer.desc.dtype,
            "precision": {"float16": "fp16", "float32": "fp32"}.get(result.layer.desc.dtype, result.layer.desc.dtype),
            "overflow": result.overflow or None,
            "entire": result.entire,
            "single": result.single,
            "effect": result.effect or None,
            "discontinuous": result.layer.jumps,
            "flip_rate": result.flip_rate,
            "single_flip_rate": result.single_flip_rate,
            "boundary_distance": result.boundary_distance,
            "share": result.share,
            "source": result.source,
            "advice": result.advice or None,
            "reason": result.reason or None,
        }
        for number, result in enumerate(results)
    ]


def terminal_table(results: Sequence[LayerResult], sources: Sequence[LayerResult]) -> str:
    """The sources with advice, or, if there are none, the layers with the largest share."""
    compared = sum(r.entire is not None for r in results)
    lines = [f"{compared} of {len(results)} tensors compared, {len(sources)} sources of error"]
    ranked = sorted((r for r in results if r.share), key=lambda r: -(r.share or 0.0))
    shown = list(sources[:_SHOWN]) or ranked[:_SHOWN]
    if not sources:
        lines.append(_without_sources(results, bool(shown)))
    if shown:
        width = max(max(len(r.layer.op) for r in shown), 5)
        lines.append(
            f"{'layer':<{width}}  {'type':<12} {'dtype':<8} {'entire':>9} {'single':>9} {'effect':>9} {'share':>6}"
        )
    for result in shown:
        lines.append(
            f"{result.layer.op:<{width}}  {result.layer.type[:12]:<12} {result.layer.desc.dtype:<8} "
            f"{_short(result.entire_error)} "
            f"{_short(result.single_error)} {_short(result.worst_effect)} {_percent(result.share)}"
        )
        if result.advice:
            lines.append(f"  -> {result.advice}")
    return "\n".join(lines + _jumps(results))


def _without_sources(results: Sequence[LayerResult], any_shown: bool) -> str:
    text = "no layer is worse than its inputs explain" + ("; the largest contributions are" if any_shown else "")
    ends = [r.entire_error for r in results if r.layer.type == NET_OUTPUT and r.entire_error is not None]
    if ends and max(ends) > DEFAULT_LAYER_LIMIT and not any(r.single for r in results):
        text = (
            f"an output is off by {max(ends):.1e} (relative Euclidean), but after discontinuous layers entire errors "
            "do not show the cause: run again with --single. " + text[0].upper() + text[1:]
        )
    return text


def _jumps(results: Sequence[LayerResult]) -> List[str]:
    """Remarks about discontinuous layers."""
    lines = []
    jumped = [r for r in results if r.layer.jumps and r.flip_rate]
    if jumped:
        worst = max(jumped, key=lambda r: r.flip_rate or 0.0)
        near = "" if worst.boundary_distance is None else f", all within {worst.boundary_distance:.2g} of the step"
        share = f"{100 * (worst.flip_rate or 0):.4f} % of its elements"
        lines.append(
            f"discontinuous layers are not the cause, they follow their inputs: {worst.layer.op} flips in {share}{near}"
        )
    for result in [r for r in results if r.layer.jumps and r.single_flip_rate][:_SHOWN]:
        names = ", ".join(result.layer.originals) or result.layer.op
        lines.append(
            f"{result.layer.op} flips in {100 * (result.single_flip_rate or 0):.4f} % alone, on TensorFlow's inputs: "
            f"its inputs are rounded; fp32 inputs help only if it is kept in fp32 too (--keep_dtype: {names})"
        )
    return lines


def _short(value: Optional[float]) -> str:
    return f"{'-':>9}" if value is None else f"{value:>9.2e}"


def _percent(value: Optional[float]) -> str:
    return f"{'-':>6}" if value is None else f"{100 * value:>5.1f}%"
