# SPDX-License-Identifier: Apache-2.0
"""The tables of a derivative, made from the records of all its scans of any run."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Dict, List, Type, TypeVar, Union

from om_runner.bids import labeltable
from om_runner.bids.names import entities_of
from om_runner.bids.participants import Participants, write_participants
from om_runner.bids.records import FAILURE_RECORD, METRICS_RECORD, RESULTS_RECORD, read_records
from om_runner.names import FAILURES_NAME, METRICS_NAME, STRUCTURES_NAME
from om_runner.results.columns import FailureRow, MetricsRow, write_failures, write_metrics
from vxm_convert.errors import VolumeError

LOG = logging.getLogger(__name__)
Row = TypeVar("Row", MetricsRow, FailureRow)


def write_tables(out: Path, participants: Participants) -> List[str]:
    """Write the tables of all scans of any run from their records; names of the files written."""
    metrics, failures = registered(out), failed(out)
    write_metrics(out / METRICS_NAME, metrics)
    write_failures(out / FAILURES_NAME, failures)
    done: Dict[str, List[Dict[str, Any]]] = {}
    for row in metrics:
        done.setdefault(_participant(row), []).append(asdict(row))
    counts = Counter(_participant(row) for row in failures)
    noted = [label for record in read_records(out, RESULTS_RECORD).values() for label in record.get("labels") or []]
    labels = [label for label in noted if isinstance(label, int)]
    made = write_participants(out, participants, done, counts) + labeltable.write_label_table(out, labels)
    return made + [METRICS_NAME, STRUCTURES_NAME, FAILURES_NAME]


def registered(out: Path) -> List[MetricsRow]:
    """The rows of all registered scans."""
    return _rows_from(read_records(out, METRICS_RECORD), MetricsRow)


def failed(out: Path) -> List[FailureRow]:
    """The rows of all scans whose last attempt failed."""
    return _rows_from(read_records(out, FAILURE_RECORD), FailureRow)


def _rows_from(records: Dict[Path, Dict[str, Any]], kind: Type[Row]) -> List[Row]:
    """Records as rows of a table (MetricsRow or FailureRow); those of another version and damaged ones are skipped with
    a warning.
    """
    rows = []
    for path, record in records.items():
        try:
            entities_of(record.get("subject") or "")
            rows.append(_row_from(record, kind))
        except (TypeError, AttributeError, VolumeError) as exc:
            LOG.warning("record skipped: %s: %s; register the scan again or remove the file", path, exc)
    return rows


def _row_from(record: Dict[str, Any], kind: Type[Row]) -> Row:
    columns = [f.name for f in fields(kind)]
    if sorted(record) != sorted(columns):
        raise VolumeError(f"has the columns {', '.join(sorted(record))}, expected {', '.join(columns)}")
    return kind(**record)


def _participant(row: Union[MetricsRow, FailureRow]) -> str:
    return row.subject.partition("_")[0]
