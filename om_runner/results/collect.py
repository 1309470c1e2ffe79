# SPDX-License-Identifier: Apache-2.0
"""The tables of an output folder as views of its records: any process can make them, at any time, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

from om_runner.names import FAILURES_NAME, METRICS_NAME, PRECISION_FOLDER, STATE_FOLDER
from om_runner.results.cohort_record import Known
from om_runner.results.columns import FailureRow, MetricsRow, write_failures, write_metrics
from om_runner.results.failures import FailureRecords
from om_runner.results.layout import Layout
from om_runner.results.resume import Record, Records, matches_run
from vxm_convert.artifacts.names import RUN_NAME
from vxm_convert.artifacts.sha256sums import begin_manifest, files_below, finish_manifest


@dataclass(frozen=True)
class View:
    """What the records of an output folder say about the scans of an input.

    Parameters
    ----------
    rows, failures : of registered and of failed scans, in the order of the input.
    missing : scans with neither.
    inputs : absolute path → sha256 of the files that the rows were made from.
    digests : name below the output folder → sha256 of every file that a record names, also of scans that are no longer
        in the input.
    subjects : whoever has a record, in the input or not.
    """

    rows: List[MetricsRow]
    failures: List[FailureRow]
    missing: List[str]
    inputs: Dict[str, str]
    digests: Dict[str, str]
    subjects: List[str]


def view_of(
    layout: Layout,
    scans: Optional[Sequence[Known]],
    of_run: Optional[Mapping[str, Any]],
    stale: Optional[Mapping[str, str]] = None,
) -> View:
    """Read all records once.

    Parameters
    ----------
    scans : the input; None takes every scan that has a record, by name.
    of_run : settings that a record must have for a row; None takes all.
    stale : subject → digest of a record that does not count, because its scan or its files changed.
    """
    records = {record.row.subject: record for record in Records(layout).everything()}
    failed = FailureRecords(layout.out).everything()
    if scans is None:
        scans = [Known(subject, "", None) for subject in sorted({*records, *failed})]
    digests = {name: sha for record in records.values() for name, sha in record.files.items()}
    view = View([], [], [], {}, digests, sorted(records))
    for scan in scans:
        record = records.get(scan.subject)
        if scan.subject in failed:
            view.failures.append(failed[scan.subject])
        elif record is None or record.digest == (stale or {}).get(scan.subject) or not _fits(record, of_run):
            view.missing.append(scan.subject)
        else:
            view.rows.append(record.row)
            view.inputs.update(_inputs(scan, record))
    return view


def _fits(record: Record, of_run: Optional[Mapping[str, Any]]) -> bool:
    return of_run is None or matches_run(record, of_run)


def _inputs(scan: Known, record: Record) -> Dict[str, str]:
    files = {scan.path: record.key.get("scan"), scan.seg_path: record.key.get("seg")}
    files.update({scan.fixed: record.key.get("atlas"), scan.fixed_seg: record.key.get("atlas_seg")})
    return {path: sha for path, sha in files.items() if path and isinstance(sha, str)}


def write_tables(layout: Layout, view: View) -> None:
    """metrics.tsv and failures.tsv."""
    write_metrics(layout.out / METRICS_NAME, view.rows)
    write_failures(layout.out / FAILURES_NAME, view.failures)


def list_files(layout: Layout, view: View, further: Sequence[str] = ()) -> None:
    """Write SHA256SUMS: the files of all records, the tables, and files of earlier runs that are still there.

    `further`: names below the output folder of other files.
    """
    out = layout.out
    made = layout.finish()
    # Other processes may have written a list since; its entries stay.
    earlier = begin_manifest(out)
    made += files_below(out, PRECISION_FOLDER, STATE_FOLDER) + layout.files_of(view.subjects)
    finish_manifest(out, made + list(further) + [METRICS_NAME, FAILURES_NAME, RUN_NAME], earlier, view.digests)
