# SPDX-License-Identifier: Apache-2.0
"""Results of an earlier run in the output folder: its failures, and a precision report that may still be valid."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import List, Optional, Sequence

from om_runner.inputs.scans import Scan
from om_runner.names import FAILURES_NAME
from om_runner.results.columns import FailureRow
from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import ArtifactError

LOG = logging.getLogger(__name__)

_MAX_BYTES = 64 << 20


def read_failures(out: Path) -> Optional[List[FailureRow]]:
    """The rows of failures.tsv; None if there is no such table.

    Raises
    ------
    ArtifactError
        If it cannot be read, or is not such a table.
    """
    path = out / FAILURES_NAME
    if not path.is_file():
        return None
    text = read_bounded(path, _MAX_BYTES, "the table of failures", "remove it").decode("utf-8", "replace")
    columns = [f.name for f in fields(FailureRow)]
    lines = [line.split("\t") for line in text.rstrip("\n").split("\n")]
    if lines[0] != columns or any(len(line) != len(columns) for line in lines):
        raise ArtifactError(
            f"{path}: is not a table of {', '.join(columns)}; remove it and register without --retry-failed"
        )
    return [FailureRow(*line) for line in lines[1:]]


def failed_scans(out: Path, scans: Sequence[Scan], failures: Optional[List[FailureRow]]) -> List[Scan]:
    """The scans that failed in the previous run, for ``--retry-failed``; warns about those that no longer exist.

    Raises
    ------
    ArtifactError
        If there was no previous run.
    """
    if failures is None:
        raise ArtifactError(
            f"{out / FAILURES_NAME}: no such table, because no run has ended there; register without --retry-failed"
        )
    wanted = {row.subject for row in failures}
    for name in sorted(wanted - {scan.subject for scan in scans}):
        LOG.warning("%s: failed before and is no longer among the scans", name)
    return [scan for scan in scans if scan.subject in wanted]
