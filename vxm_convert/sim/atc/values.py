# SPDX-License-Identifier: Apache-2.0
"""Text values of ATC's flags → Python values: shapes, outputs, data types. Every refusal carries the real tool's
code.
"""

from __future__ import annotations

import re
from typing import Dict, List, Tuple

from vxm_convert.sim.refusal import AtcRefusal

#: --output_type → NumPy name
OUTPUT_TYPES = {
    "FP32": "float32",
    "FP16": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT16": "int16",
    "UINT16": "uint16",
    "INT32": "int32",
    "UINT32": "uint32",
    "INT64": "int64",
    "UINT64": "uint64",
    "DOUBLE": "float64",
}
Outputs = List[Tuple[str, int]]


def parse_input_shape(text: str, dynamic: bool = False) -> Dict[str, Tuple[int, ...]]:
    """``name:d,d;name:d,d`` → shapes; the last colon separates, because node names may contain colons. `dynamic` allows
    -1.
    """
    shapes: Dict[str, Tuple[int, ...]] = {}
    for entry in filter(None, text.split(";")):
        name, colon, dims = entry.rpartition(":")
        parts = [part.strip() for part in dims.split(",")]
        if "~" in dims:
            raise AtcRefusal(
                "E10055",
                f"--input_shape gives {name} the range {dims}; the simulated ATC takes single shapes only",
                solution="Pass one number per side, pass several shapes with --dynamic_dims, or compile with the real ATC "
                "(VXM_TOOLCHAIN=cann).",
            )
        if not colon or not name or not all(re.match(r"^-?[0-9]{1,18}$", part) for part in parts):
            example = "For example moving:1,160,192,224,1"
            raise AtcRefusal(
                "E10002", f"--input_shape contains {entry!r}, expected name:number,number,…", solution=example
            )
        sides = tuple(int(part) for part in parts)
        if any(side <= 0 and not (dynamic and side == -1) for side in sides):
            raise AtcRefusal("E10011", f"--input_shape gives {name} the shape {dims}; every dimension must be above 0")
        shapes[name] = sides
    return shapes


def parse_out_nodes(text: str) -> Outputs:
    """``node:index;node:index`` → outputs in that order."""
    nodes: Outputs = []
    for entry in filter(None, text.split(";")):
        name, colon, index = entry.rpartition(":")
        if not colon or not name or not re.match(r"^[0-9]{1,9}$", index):
            raise AtcRefusal("E10001", f"--out_nodes contains {entry!r}, expected node:index")
        nodes.append((name, int(index)))
    return nodes


def parse_output_type(text: str, outputs: Outputs) -> Tuple[str, Dict[Tuple[str, int], str]]:
    """(dtype of all outputs or "", dtype of single outputs); single outputs must also be in ``--out_nodes``."""
    if not text:
        return "", {}
    if ":" not in text:
        return _output_type(text), {}
    chosen: Dict[Tuple[str, int], str] = {}
    for entry in filter(None, text.split(";")):
        place, _, kind = entry.rpartition(":")
        name, colon, index = place.rpartition(":")
        if not colon or not name or not re.match(r"^[0-9]{1,9}$", index):
            raise AtcRefusal("E10001", f"--output_type contains {entry!r}, expected TYPE or node:index:TYPE")
        if (name, int(index)) not in outputs:
            raise AtcRefusal("E10001", f"--output_type names {place}, which --out_nodes does not have")
        chosen[(name, int(index))] = _output_type(kind)
    return "", chosen


def _output_type(kind: str) -> str:
    if kind not in OUTPUT_TYPES:
        raise AtcRefusal("E10001", f"--output_type is {kind!r}, expected one of {', '.join(OUTPUT_TYPES)}")
    return OUTPUT_TYPES[kind]


def parse_names(text: str) -> List[str]:
    """``node;node`` → names."""
    return [name.strip() for name in text.split(";") if name.strip()]
