# SPDX-License-Identifier: Apache-2.0
"""Where a search begins: groups ranked by the layer analysis (``om_runner layers`` writes layers.json), or by cost
without it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from export.tune.cost import RESULT, SPLIT
from export.tune.search import Group
from export.tune.trials import Cost
from vxm_convert.errors import ArtifactError, FormatError

_MAX_BYTES = 1 << 26
_FIGURE = "RelativeEuclideanDistance"


def read_layers(path: Path) -> Dict[str, Tuple[bool, float]]:
    """Node → (is it a source of error, its own error); fused operators count for each original name.

    Raises
    ------
    ArtifactError, FormatError
        Unreadable, or not what the layer analysis writes.
    """
    path = Path(path)
    try:
        with open(str(path), "rb") as handle:
            raw = handle.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise ArtifactError(
            f"{path}: cannot read the layer analysis ({exc.strerror}); make it with python -m om_runner layers"
        ) from exc
    try:
        data = json.loads(raw.decode("utf-8")) if len(raw) <= _MAX_BYTES else None
    except (ValueError, RecursionError) as exc:
        raise FormatError(f"{path}: not JSON ({exc}); make it with python -m om_runner layers") from exc
    rows = data.get("layers") if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows
    ):
        raise FormatError(f"{path}: holds no list of layers with names; make it with python -m om_runner layers")
    found: Dict[str, Tuple[bool, float]] = {}
    for row in rows:
        single = row.get("single")
        error = single.get(_FIGURE) if isinstance(single, dict) else None
        known = isinstance(error, (int, float)) and not isinstance(error, bool) and math.isfinite(error)
        size = float(error) if error is not None and known else 0.0
        originals = row.get("originals")
        names = [row["name"]] + [
            name for name in (originals if isinstance(originals, list) else []) if isinstance(name, str)
        ]
        for name in names:
            before = found.get(name, (False, 0.0))
            found[name] = (before[0] or row.get("source") is True, max(before[1], size))
    return found


def rank(
    groups: Sequence[Group], layers: Dict[str, Tuple[bool, float]], suspects: Sequence[str], cost: Cost
) -> List[str]:
    """Names of the groups: those with source layers by their own error, those with suspect nodes, then from cheap to
    expensive.
    """
    suspected = frozenset(suspects)

    def key(group: Group) -> Tuple[Any, ...]:
        known = [layers[name] for name in nodes_of(group) if name in layers]
        source = any(is_source for is_source, _ in known)
        error = max((error for _, error in known), default=0.0)
        return not source, not suspected & set(group.atoms), -error, cost(frozenset(group.atoms))

    return [group.name for group in sorted(groups, key=key)]


def seeds(groups: Sequence[Group], layers: Dict[str, Tuple[bool, float]], decisions: Sequence[str]) -> List[str]:
    """Groups of the first set to try: source layers, else the decisions that the starting plan already has."""
    sources = [g.name for g in groups if any(layers.get(name, (False, 0.0))[0] for name in nodes_of(g))]
    return sources or [group.name for group in groups if set(group.atoms) & set(decisions)]


def nodes_of(group: Group) -> List[str]:
    """Nodes that a group's decisions are about; a split layer's is its convolution."""
    return [
        f"{atom[len(SPLIT) :]}/Conv3D"
        if atom.startswith(SPLIT)
        else atom[len(RESULT) :]
        if atom.startswith(RESULT)
        else atom
        for atom in group.atoms
    ]
