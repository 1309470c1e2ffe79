# SPDX-License-Identifier: Apache-2.0
"""Input shapes of the command line, in ATC's form: they replace those of the graph, as ATC replaces them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Dict, List, Mapping, Sequence, Tuple

from vxm_convert.errors import SpecError
from vxm_convert.formats.tf_graph import TfNode

_SIDE = re.compile(r"[1-9][0-9]{0,8}")


def parse_input_shapes(text: str) -> Dict[str, Tuple[int, ...]]:
    """``node:n,n;node:n,n`` → shapes; the last colon separates, because node names may contain colons.

    Raises
    ------
    SpecError
        For anything else, and for sides that are not whole numbers above 0.
    """
    shapes: Dict[str, Tuple[int, ...]] = {}
    for entry in filter(None, text.split(";")):
        name, colon, sides = entry.rpartition(":")
        parts = [part.strip() for part in sides.split(",")]
        if not colon or not name or name in shapes or not all(_SIDE.fullmatch(part) for part in parts):
            raise SpecError(
                f"--input-shape: got {entry!r}, expected node:number,number,… with each node once and numbers above 0, "
                "for example moving:1,160,192,224,1; for several shapes or ranges compile with ATC itself"
            )
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def with_input_shapes(nodes: Sequence[TfNode], shapes: Mapping[str, Tuple[int, ...]]) -> List[TfNode]:
    """The nodes, with other shapes of their placeholders; ATC takes them without a comparison, except of the rank.

    Raises
    ------
    SpecError
        For a name that is no input of the graph, and for another number of sides.
    """
    inputs = {node.name: node for node in nodes if node.op == "Placeholder"}
    for name, shape in shapes.items():
        if name not in inputs:
            raise SpecError(
                f"--input-shape: the graph has no input {name}, only {', '.join(inputs) or 'none'} (ATC: E10016, E10017)"
            )
        own = inputs[name].attrs.get("shape")
        if isinstance(own, tuple) and len(own) != len(shape):
            raise SpecError(f"--input-shape: {name} has {len(own)} sides in the graph, {len(shape)} were given")
    return [
        replace(node, attrs={**node.attrs, "shape": shapes[node.name]}) if node.name in shapes else node
        for node in nodes
    ]
