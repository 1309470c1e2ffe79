# SPDX-License-Identifier: Apache-2.0
"""Paths of a registered scan's files: the only place that turns a subject and a plain file name into a path.

The plain layout is a folder per subject; `om_runner.bids.derivative` has the other one.
"""

from __future__ import annotations

from pathlib import Path
from typing import ContextManager, List, Sequence

from om_runner.inputs.scans import Scan
from om_runner.names import STRUCTURES_NAME
from om_runner.results.columns import FailureRow, MetricsRow
from om_runner.results.index_page import write_index
from om_runner.results.writer import check_replaceable, whole_folder
from vxm_convert.artifacts.sha256sums import files_below


class Layout:
    """The plain layout: ``out/<subject>/<name>``.

    Parameters
    ----------
    out : Path — output folder.
    """

    #: name of the naming scheme; results with other names are different results
    style = "plain"

    def __init__(self, out: Path) -> None:
        self.out = Path(out)

    def check(self, scan: Scan) -> None:
        """Refuse, before any work, a scan whose results would replace what is not ours; raises ArtifactError."""
        check_replaceable(self.out / scan.subject, "choose another --out")

    def place(self, scan: Scan) -> ContextManager[Path]:
        """A folder for a scan's files with their plain names; they appear under their final names all at once, or not
        at all.
        """
        return whole_folder(self.out / scan.subject)

    def path_of(self, subject: str, name: str) -> Path:
        """Final path of a subject's file with that plain name (``moved.nii.gz``)."""
        return self.out / subject / name

    def files_of(self, subjects: Sequence[str]) -> List[str]:
        """Names below `out`, with forward slashes, of all files of these subjects."""
        return files_below(self.out, *subjects)

    def note(self, row: MetricsRow) -> None:
        """Record the figures of a scan after its files are written."""

    def note_failure(self, row: FailureRow) -> None:
        """Record a scan that failed."""

    def finish(self) -> List[str]:
        """What belongs to the folder as a whole; names below `out` of the files written."""
        return [STRUCTURES_NAME] + write_index(self.out)
