# SPDX-License-Identifier: Apache-2.0
"""The columns of metrics.tsv and failures.tsv; `vxm_convert.artifacts.tsv` formats cells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from vxm_convert.artifacts.tsv import write_table

#: between the warnings of a scan in its cell of metrics.tsv; no warning contains it
WARNINGS_JOINT = "; "


@dataclass(frozen=True)
class MetricsRow:
    """One registered subject.

    `device_seconds` is the execution time of the subject's batch divided by the scans in it; `total_seconds` the wall
    time spent on the subject: reading, its share of the device, warping labels, writing. Dice needs both segmentations.
    `warnings` are all that was said about the subject, one line each.
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
    warnings: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # As JSON gives them back: a list.
        object.__setattr__(self, "warnings", tuple(str(text).replace(WARNINGS_JOINT, ", ") for text in self.warnings))


@dataclass(frozen=True)
class FailureRow:
    """One scan that could not be registered, with the stage (read, run, write) and the reason."""

    subject: str
    file: str
    stage: str
    reason: str


def write_metrics(path: Path, rows: Sequence[MetricsRow]) -> None:
    """Write all rows in order, with a header even without rows."""
    write_table(path, [f.name for f in fields(MetricsRow)], (_cells(row) for row in rows))


def _cells(row: MetricsRow) -> List[object]:
    joined = WARNINGS_JOINT.join(row.warnings) or None
    return [*{**asdict(row), "warnings": joined}.values()]


def write_failures(path: Path, rows: Sequence[FailureRow]) -> None:
    """Write all rows in order, with a header even without rows, so that a stale table never survives."""
    write_table(path, [f.name for f in fields(FailureRow)], (asdict(row).values() for row in rows))


@dataclass
class CohortResult:
    """Rows as they arrive; complete up to the error that ended the loop."""

    rows: List[MetricsRow] = field(default_factory=list)
    failures: List[FailureRow] = field(default_factory=list)
    #: absolute path → sha256 of every file read, including segmentations
    inputs: Dict[str, str] = field(default_factory=dict)
    #: scans that the model has run, whatever happened to their outputs
    n_run: int = 0
