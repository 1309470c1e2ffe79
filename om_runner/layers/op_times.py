# SPDX-License-Identifier: Apache-2.0
"""Times per operator from a profile, joined to the layers of the model and to the estimate of the export."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from om_runner.layers.matching import originals_of
from vxm_convert.artifacts.files import read_bounded, write_text
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.names import PREFLIGHT_JSON
from vxm_convert.errors import FormatError
from vxm_convert.formats.om import OmModel

OP_TIMES_NAME = "op_times.csv"
#: columns of msprof's export, which changed their case between releases
_NAME, _TYPE, _DURATION = "op name", "op type", "task duration(us)"
_MAX_BYTES = 256 << 20
_SHOWN = 12
COLUMNS = (
    "operator",
    "type",
    "nodes",
    "executions",
    "mean_ms",
    "share",
    "estimate_ms",
    "times_estimate",
    "measured_by",
)


@dataclass(frozen=True)
class OpTime:
    """One operator: executions, seconds of one on average, the nodes of the frozen graph, their ESTIMATE in seconds."""

    operator: str
    type: str
    nodes: Tuple[str, ...]
    executions: int
    seconds: float
    estimate: Optional[float]


def read_summaries(paths: Sequence[Path]) -> Dict[str, Tuple[str, List[float]]]:
    """Operator → (type, seconds of each execution) of ``op_summary*.csv`` files.

    Raises
    ------
    ArtifactError, FormatError
        If a file cannot be read, or has not the columns of msprof's export.
    """
    found: Dict[str, Tuple[str, List[float]]] = {}
    for path in paths:
        text = read_bounded(path, _MAX_BYTES, "the summary of operators", "export the profile again").decode(
            "utf-8-sig", "replace"
        )
        for name, kind, seconds in _rows(path, text):
            found.setdefault(name, (kind, []))[1].append(seconds)
    return found


def _rows(path: Path, text: str) -> Iterable[Tuple[str, str, float]]:
    reader = csv.reader(io.StringIO(text))
    try:
        head = [column.strip().lower() for column in next(reader, [])]
        missing = [column for column in (_NAME, _TYPE, _DURATION) if column not in head]
        if missing:
            raise FormatError(f"{path}: has no column {', '.join(missing)}; expected msprof's op_summary")
        places = [head.index(column) for column in (_NAME, _TYPE, _DURATION)]
        for row in reader:
            if len(row) > max(places):
                name, kind, duration = (row[place].strip() for place in places)
                seconds = _seconds(duration)
                if seconds is not None:
                    yield name, kind, seconds
    except csv.Error as exc:
        raise FormatError(f"{path}: is no table ({exc}); export the profile again") from exc


def _seconds(text: str) -> Optional[float]:
    """None for ``N/A`` and the like, which tasks without a duration have."""
    try:
        value = float(text) / 1e6
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def estimates_beside(om_path: Path) -> Dict[str, float]:
    """Node → estimated seconds with its casts and layout changes, of the preflight beside a model; empty without one."""
    path = Path(om_path).with_name(PREFLIGHT_JSON)
    if not path.is_file():
        return {}
    data = parse_json(read_bounded(path, _MAX_BYTES, "the preflight report", "export again"), str(path), "export again")
    nodes = data.get("nodes") if isinstance(data, dict) else None
    result = {}
    for row in nodes if isinstance(nodes, list) else ():
        parts = [row.get(key) for key in ("estimate_ms", "estimate_convert_ms")] if isinstance(row, dict) else []
        known = [float(part) for part in parts if isinstance(part, (int, float))]
        if known and len(known) == len(parts):
            result[str(row.get("node"))] = sum(known) / 1e3
    return result


def join(times: Dict[str, Tuple[str, List[float]]], om: OmModel, estimates: Dict[str, float]) -> List[OpTime]:
    """Every measured operator, slowest first."""
    nodes = {op.name: tuple(originals_of(op)) for op in om.graph}
    joined = []
    for name, (kind, seconds) in times.items():
        own = nodes.get(name, ())
        known = [estimates[node] for node in own if node in estimates]
        mean = sum(seconds) / len(seconds)
        joined.append(OpTime(name, kind, own, len(seconds), mean, sum(known) if known else None))
    return sorted(joined, key=lambda entry: (-entry.seconds, entry.operator))


def write_op_times(folder: Path, times: Sequence[OpTime], simulated: bool) -> Path:
    """``op_times.csv``; every row says who measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in _table(times, simulated):
        writer.writerow([row[column] for column in COLUMNS])
    path = Path(folder) / OP_TIMES_NAME
    write_text(path, text.getvalue())
    return path


def _table(times: Sequence[OpTime], simulated: bool) -> Iterable[Dict[str, Any]]:
    total = sum(entry.seconds for entry in times) or 1.0
    for entry in times:
        estimate = entry.estimate
        yield {
            "operator": entry.operator,
            "type": entry.type,
            "nodes": " ".join(entry.nodes),
            "executions": entry.executions,
            "mean_ms": f"{1e3 * entry.seconds:.6f}",
            "share": f"{entry.seconds / total:.4f}",
            "estimate_ms": "" if estimate is None else f"{1e3 * estimate:.6f}",
            # A CPU's time divided by a chip's estimate would say nothing.
            "times_estimate": "" if simulated or not estimate else f"{entry.seconds / estimate:.2f}",
            "measured_by": "SIMULATED: CPU of this machine" if simulated else "msprof",
        }


def lines_of(times: Sequence[OpTime], simulated: bool) -> List[str]:
    """The slowest operators for the terminal."""
    rows = list(_table(times, simulated))
    total = sum(entry.seconds for entry in times)
    who = "SIMULATED, times of this machine's CPU" if simulated else "msprof"
    lines = [f"{len(rows)} operators, {1e3 * total:.2f} ms per execution ({who}; ESTIMATE is of the chip)"]
    width = max([len(row["operator"]) for row in rows[:_SHOWN]] + [8])
    lines.append(f"{'operator':<{width}}  {'type':<14} {'ms':>9} {'share':>6} {'estimate':>9}")
    for row in rows[:_SHOWN]:
        ms, estimate = float(row["mean_ms"]), row["estimate_ms"]
        shown = f"{float(estimate):9.3f}" if estimate else f"{'-':>9}"
        lines.append(
            f"{row['operator']:<{width}}  {row['type'][:14]:<14} {ms:9.3f} {100 * float(row['share']):5.1f}% {shown}"
        )
    return lines
