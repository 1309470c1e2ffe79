# SPDX-License-Identifier: Apache-2.0
"""Paths of a registered scan's files: the only place that turns a subject and a plain file name into a path.

The plain layout is a folder per subject; `om_runner.bids.derivative` has the other one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ContextManager, List, Sequence

from om_runner.inputs.scans import Scan
from om_runner.names import (
    FLOW_NAME,
    INVERSE_NAME,
    JACOBIAN_NAME,
    LOG_NAME,
    MOVED_NAME,
    MOVED_SEG_NAME,
    NATIVE_SEG_NAME,
    STRUCTURES_NAME,
)
from om_runner.results.columns import FailureRow, MetricsRow
from om_runner.results.index_page import write_index
from om_runner.results.writer import whole_folder
from vxm_convert.artifacts.sha256sums import files_below
from vxm_convert.errors import ArtifactError
from vxm_convert.text import line_of

#: files by which a folder of ours is known
_RESULTS = (MOVED_NAME, FLOW_NAME, MOVED_SEG_NAME, INVERSE_NAME, NATIVE_SEG_NAME, JACOBIAN_NAME, LOG_NAME)


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
        folder = self.out / scan.subject
        if not os.path.lexists(str(folder)) or folder.is_symlink():
            # A link is replaced itself; what it points to is not touched.
            return
        if not folder.is_dir():
            raise ArtifactError(f"{folder}: a file where the folder of the results belongs; choose another --out")
        names = sorted(path.name for path in folder.iterdir())
        if names and not set(names) & set(_RESULTS):
            raise ArtifactError(
                f"{folder}: holds {line_of(names[0])} and no result of om_runner, and results would replace the folder; "
                "choose another --out"
            )

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
