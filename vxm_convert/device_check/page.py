# SPDX-License-Identifier: Apache-2.0
"""device-check.html: point by point what was predicted and what was found, worst first in each rung's heading."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from vxm_convert.device_check.assumptions import BY_KEY
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, FAILED, Point, Rung, count, sentence_of
from vxm_convert.webpage.document import page
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import Html, parts

_TEMPLATE = Path(__file__).with_name("templates") / "device_check.html"
_JUDGED = {AS_PREDICTED: True, DIFFERS: False, FAILED: False}


def build_page(data: Mapping[str, Any], rungs: Sequence[Rung]) -> str:
    """The page of one check; `data` as written to device-check.json."""
    numbers = count(list(rungs))
    wrong = [point for rung in rungs for point in rung.points if point.state in (DIFFERS, FAILED)]
    toolchain = data.get("toolchain") or {}
    context: Dict[str, Any] = {
        "good": not wrong,
        "headline": _headline(numbers),
        "facts": _facts(data, numbers),
        "wrong": [(sentence_of(point), _touches(point)) for point in wrong],
        "rungs": [_section(rung) for rung in rungs],
        "versions": _versions(data.get("versions") or {}),
    }
    details = f"{toolchain.get('kind', 'no toolchain')} {toolchain.get('version', '')}".strip()
    return page(_TEMPLATE, "vxm_convert: device check", data.get("simulated") is not False, details, **context)


def _headline(numbers: Mapping[str, int]) -> str:
    if not numbers[DIFFERS] + numbers[FAILED]:
        return f"All as predicted: {numbers[AS_PREDICTED]}"
    return f"Different from the prediction: {numbers[DIFFERS]}, failed: {numbers[FAILED]}, as predicted: {numbers[AS_PREDICTED]}"


def _facts(data: Mapping[str, Any], numbers: Mapping[str, int]) -> List[Tuple[str, str]]:
    return [
        ("Chip", str(data.get("soc_version") or "unknown")),
        ("Form", "short" if data.get("short") else "whole"),
        ("Points", ", ".join(f"{number} {state}" for state, number in numbers.items())),
        ("Seconds", f"{float(data.get('seconds') or 0.0):.0f}"),
    ]


def _touches(point: Point) -> str:
    """The assumption of ours that a difference refutes."""
    entry = BY_KEY.get(point.assumption)
    return "" if entry is None else f"touches the assumption “{entry.text}” ({entry.stated}); correct {entry.corrected}"


def _section(rung: Rung) -> Dict[str, Any]:
    return {
        "name": rung.name,
        "question": rung.question,
        "seconds": f"{rung.seconds:.1f}",
        "state": parts().verdict(_JUDGED.get(rung.state), rung.state),
        "table": _table(rung),
    }


def _table(rung: Rung) -> Html:
    columns = [
        Column("point", "name"),
        Column("verdict", "text"),
        Column("predicted", "text"),
        Column("found", "text"),
        Column("do this", "text"),
    ]
    rows = [
        [
            Cell(point.name),
            parts().verdict(_JUDGED.get(point.state), point.state),
            point.predicted or "—",
            point.found or "—",
            point.advice or "—",
        ]
        for point in rung.points
    ]
    return table(f"{rung.name}: {len(rung.points)} points", columns, rows, empty="nothing was reported")


def _versions(versions: Mapping[str, Any]) -> List[Tuple[str, str]]:
    rows = []
    for name, value in sorted(versions.items()):
        if isinstance(value, dict):
            rows += [(str(inner), str(version or "not installed")) for inner, version in sorted(value.items())]
        else:
            rows.append((str(name), str(value if value is not None else "none")))
    return rows
