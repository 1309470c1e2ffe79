# SPDX-License-Identifier: Apache-2.0
"""The columns of metrics.tsv and failures.tsv; `vxm_convert.artifacts.tsv` formats cells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from om_runner.names import STRUCTURES_NAME
from vxm_convert.artifacts.tsv import write_table
from vxm_convert.metrics.labels import label_name

#: between the warnings of a scan in its cell of metrics.tsv; no warning contains it
WARNINGS_JOINT = "; "


@dataclass(frozen=True)
class MetricsRow:
    """One registered subject.

    `device_seconds` is the execution time of the subject's batch divided by the scans in it; `total_seconds` the wall
    time spent on the subject: reading, its share of the device, warping labels, writing. Dice needs both segmentations.
    `source` is the scan's file, `fixed` its fixed image: the atlas's file, or what the table of pairs calls it.
    `ncc_*` are correlations with the fixed image inside it, on every second voxel of the network grid. `affine_overlap` is the
    Dice of the brains after ``--affine auto``. `dice_native` (in the scan's own space) and `inverse_mm_p95` (95th percentile of
    the inverse warp's error) need the output ``inverse``. `warnings` are all that was said about the subject, one line each.
    `structures` has the Dice before and after of every structure, by its id as text; it goes into structures.tsv.
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
    fixed: Optional[str] = None
    ncc_before: Optional[float] = None
    ncc_after: Optional[float] = None
    affine_overlap: Optional[float] = None
    dice_native: Optional[float] = None
    inverse_mm_p95: Optional[float] = None
    warnings: Tuple[str, ...] = ()
    structures: Dict[str, List[Optional[float]]] = field(default_factory=dict)

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


#: of metrics.tsv, in order
COLUMNS = tuple(f.name for f in fields(MetricsRow) if f.name != "structures")
STRUCTURE_COLUMNS = ("subject", "label", "name", "dice_before", "dice_after")


def write_metrics(path: Path, rows: Sequence[MetricsRow]) -> None:
    """Write all rows in order, with a header even without rows; and, beside it, structures.tsv."""
    write_table(path, COLUMNS, (_cells(row) for row in rows))
    structures = [
        (row.subject, label, label_name(int(label)), *scores)
        for row in rows
        for label, scores in sorted(row.structures.items(), key=lambda entry: int(entry[0]))
    ]
    write_table(path.with_name(STRUCTURES_NAME), STRUCTURE_COLUMNS, structures)


def _cells(row: MetricsRow) -> List[object]:
    joined = WARNINGS_JOINT.join(row.warnings) or None
    values = {**vars(row), "warnings": joined}
    return [values[name] for name in COLUMNS]


def write_failures(path: Path, rows: Sequence[FailureRow]) -> None:
    """Write all rows in order, with a header even without rows, so that a stale table never survives."""
    write_table(path, [f.name for f in fields(FailureRow)], (asdict(row).values() for row in rows))


@dataclass
class CohortResult:
    """What one process did; complete up to the error that ended the loop. Rows are in the records."""

    #: scans registered
    n_done: int = 0
    failures: List[FailureRow] = field(default_factory=list)
    #: absolute path → sha256 of every file read, including segmentations, of scans that no record names
    inputs: Dict[str, str] = field(default_factory=dict)
    #: scans that the model has run, whatever happened to their outputs
    n_run: int = 0
