# SPDX-License-Identifier: Apache-2.0
"""Where the files of a registered scan go: the one place that turns a subject and a file's plain name into a path.

The plain layout is a folder per subject. `om_runner.bids.derivative` has the other one.
"""

from __future__ import annotations

from pathlib import Path
from typing import ContextManager, List, Sequence

from om_runner.inputs.scans import Scan
from om_runner.results.tables import FailureRow, MetricsRow
from om_runner.results.writer import whole_folder
from vxm_convert.artifacts.sha256sums import files_below


class Layout:
    """The plain layout: ``out/<subject>/<name>``.

    Parameters
    ----------
    out : Path — output folder.
    """

    #: how files are named, in a word; results under other names are not these
    style = "plain"

    def __init__(self, out: Path) -> None:
        self.out = Path(out)

    def place(self, scan: Scan) -> ContextManager[Path]:
        """A folder to write a scan's files into under their plain names; they stand under their own all at once, or not
        at all.
        """
        return whole_folder(self.out / scan.subject)

    def path_of(self, subject: str, name: str) -> Path:
        """Where the file of that plain name (``moved.nii.gz``) of a subject stands once its folder is whole."""
        return self.out / subject / name

    def files_of(self, subjects: Sequence[str]) -> List[str]:
        """Names below `out`, with forward slashes, of all that was left for these subjects."""
        return files_below(self.out, *subjects)

    def note(self, row: MetricsRow) -> None:
        """Take the figures of a scan whose files stand."""

    def finish(self, failures: Sequence[FailureRow]) -> List[str]:
        """What belongs to the folder as a whole, with the scans that failed; names below `out` of the files written."""
        return []
