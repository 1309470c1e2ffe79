# SPDX-License-Identifier: Apache-2.0
"""metrics.tsv and failures.tsv: their columns and how a cell is written (missing values are ``n/a``, as in BIDS)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Iterable, Optional, Sequence

from vxm_convert.artifacts import write_text

MISSING = "n/a"


@dataclass(frozen=True)
class MetricsRow:
    """One registered subject.

    `device_seconds` is the execution time of the subject's batch divided by the scans in it; `total_seconds` the wall time
    spent on the subject: reading, its share of the device, warping labels, writing. Dice needs a segmentation on both sides.
    """

    subject: str
    dice_before: Optional[float]
    dice_after: Optional[float]
    n_labels: Optional[int]
    label_set: str
    folding_fraction: float
    jacobian_min: float
    flow_max_voxel: float
    device_seconds: float
    total_seconds: float
    intensity: str
    toolchain: str
    source: str


@dataclass(frozen=True)
class FailureRow:
    """One scan that could not be registered: in which stage (read, run, write) and why."""

    subject: str
    file: str
    stage: str
    reason: str


def write_metrics(path: Path, rows: Sequence[MetricsRow]) -> None:
    """Write all rows in order; the header stands even without rows."""
    _write(path, [f.name for f in fields(MetricsRow)], (asdict(row).values() for row in rows))


def write_failures(path: Path, rows: Sequence[FailureRow]) -> None:
    """Write all rows in order; the header stands even without rows, so a stale table never survives."""
    _write(path, [f.name for f in fields(FailureRow)], (asdict(row).values() for row in rows))


def cell(value: Any) -> str:
    """One value as text without tabs or line breaks; 6 significant decimals for floats."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(str(value).split())


def _write(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    lines = ["\t".join(columns)] + ["\t".join(cell(value) for value in row) for row in rows]
    write_text(path, "\n".join(lines) + "\n")
