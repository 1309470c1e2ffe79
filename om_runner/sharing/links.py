# SPDX-License-Identifier: Apache-2.0
"""Symbolic links in an output folder are never followed and never written through."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Iterable

from om_runner.names import (
    FAILURES_NAME,
    METRICS_NAME,
    PRECISION_FOLDER,
    QC_FOLDER,
    RUN_NAME,
    STATE_FOLDER,
    STRUCTURES_NAME,
    SUMS_NAME,
)
from om_runner.sharing.claims import CLAIMS_FOLDER
from om_runner.sharing.names import COHORT_FOLDER, FAILED_FOLDER
from om_runner.sharing.owners import OWNERS_FOLDER
from vxm_convert.errors import ArtifactError

LOG = logging.getLogger(__name__)

_PRIVATE = tuple(f"{STATE_FOLDER}/{name}" for name in (OWNERS_FOLDER, CLAIMS_FOLDER, FAILED_FOLDER, COHORT_FOLDER))
_FOLDERS = (STATE_FOLDER, *_PRIVATE, QC_FOLDER, PRECISION_FOLDER)
_FILES = (SUMS_NAME, f".{SUMS_NAME}.earlier", METRICS_NAME, STRUCTURES_NAME, FAILURES_NAME, RUN_NAME)


def refuse_links(out: Path) -> None:
    """Refuse links in place of the runner's folders; links in place of its files are removed, not what they point to.

    Raises
    ------
    ArtifactError
        For a folder that is a link.
    """
    refuse_linked_folders(out, _FOLDERS)
    for name in _FILES:
        path = Path(out) / name
        if path.is_symlink():
            LOG.warning("%s: is a link, which is removed; the file that it points to is not touched", path)
            path.unlink()


def refuse_linked_folders(out: Path, names: Iterable[str]) -> None:
    """Raise ArtifactError if a part of one of these paths below `out` is a link."""
    for name in names:
        path = Path(out)
        for part in Path(name).parts:
            path = path / part
            if path.is_symlink():
                raise ArtifactError(
                    f"{path}: is a link, and nothing is written through links in an output folder; remove it, or choose "
                    "another --out"
                )
