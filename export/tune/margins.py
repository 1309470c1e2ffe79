# SPDX-License-Identifier: Apache-2.0
"""Headroom of a precision report's figures to its profile's limits, as a share of each limit; what the search climbs
on.
"""

from __future__ import annotations

import math
from typing import Any, List, Mapping, Optional, Sequence, Tuple


def smallest_margin(rows: Sequence[Mapping[str, Any]], limits: Sequence[Mapping[str, Any]]) -> Tuple[float, str, bool]:
    """The figure closest to, or farthest beyond, its limit over all scans.

    Parameters
    ----------
    rows : sequence of dict — rows of the report, with `failures`.
    limits : sequence of dict — ``{"figure", "relation", "limit"}`` of its profile.

    Returns
    -------
    (margin, words, finite) — share of the limit (negative: outside), what it is, and False where a value is NaN or
    infinite.
    """
    found: List[Tuple[float, str]] = []
    for row in rows:
        subject = str(row.get("subject"))
        broken = _not_finite(row)
        if broken:
            return -math.inf, f"{broken} of {subject} is NaN or infinite", False
        for entry in limits:
            name, relation, limit = str(entry.get("figure")), entry.get("relation"), _number(entry.get("limit"))
            value = _number(_dig(row, name))
            if value is not None and limit is not None and relation in ("<=", ">="):
                room = limit - value if relation == "<=" else value - limit
                found.append(
                    (room / (abs(limit) or 1.0), f"{name} {value:.4g}, limit {relation} {limit:g} ({subject})")
                )
        for failure in row.get("failures") or []:
            if isinstance(failure, dict) and _number(failure.get("value")) is None:
                # A figure that is needed and undefined: outside, but by how much nobody knows.
                found.append((-1.0, f"{failure.get('figure')}: {failure.get('text') or 'undefined'} ({subject})"))
    margin, words = min(found, default=(0.0, "no limit applies"))
    return margin, words, True


def _not_finite(row: Mapping[str, Any]) -> str:
    """Name of an output with NaN or infinite values, as its counts say."""
    for name in ("moved", "flow"):
        stats = row.get(name)
        if isinstance(stats, dict) and (
            stats.get("nan_count") or stats.get("inf_count") or stats.get("finite") is False
        ):
            return name
    return ""


def _dig(row: Mapping[str, Any], name: str) -> Any:
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _number(value: object) -> Optional[float]:
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )
