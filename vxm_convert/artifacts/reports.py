# SPDX-License-Identifier: Apache-2.0
"""Reports of any comparison as versioned JSON and CSV; with the toolchain that made the numbers and the number of
samples.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

from vxm_convert.artifacts.files import write_json, write_text

REPORT_SCHEMA = 1


def report_head(kind: str, toolchain: Mapping[str, Any], simulated: bool, n_samples: int) -> Dict[str, Any]:
    """The common first entries of every report.

    Parameters
    ----------
    kind : str — e.g. ``precision``.
    toolchain : mapping — ``Toolchain.describe()``.
    simulated : bool — True if no Ascend device took part.
    n_samples : int — number of scans.
    """
    return {
        "schema": REPORT_SCHEMA,
        "kind": kind,
        "toolchain": dict(toolchain),
        "simulated": bool(simulated),
        "n_samples": int(n_samples),
    }


def finite(value: object) -> Any:
    """A copy of nested data in which NaN and infinite floats are None, because JSON has neither; NumPy scalars become
    plain numbers.
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_report_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write atomically; undefined figures become null."""
    write_json(path, finite(report))


def write_report_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per row; nested entries become dotted columns, in order of first appearance; undefined figures are
    empty.
    """
    flat = [flatten(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in flat:
        writer.writerow(["" if row.get(name) is None else row[name] for name in columns])
    write_text(path, text.getvalue())


def flatten(row: Mapping[str, Any], prefix: str = "") -> Dict[str, Any]:
    """Nested mappings as one level with dotted names; lists become text with spaces."""
    out: Dict[str, Any] = {}
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out.update(flatten(value, name + "."))
        elif isinstance(value, (list, tuple)):
            out[name] = " ".join(str(v) for v in value)
        else:
            out[name] = finite(value)
    return out
