# SPDX-License-Identifier: Apache-2.0
"""Names in the runner's private folder. A subject whose name is as long as a file system allows gets a shorter one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Optional, Tuple

#: folders in the private folder: a record per failed scan; settings, scans and processes of the runs
FAILED_FOLDER, COHORT_FOLDER = "failed", "cohort"
#: bytes of a subject's name beyond which its file has a shorter one
_LONGEST_NAME, _KEPT_OF_NAME = 200, 40


def file_name(subject: str) -> str:
    """The subject's name, or its start and a digest."""
    if len(os.fsencode(subject)) <= _LONGEST_NAME:
        return subject
    digest = hashlib.sha256(os.fsencode(subject)).hexdigest()
    return f"{subject[:_KEPT_OF_NAME]}-{digest[:16]}"


def file_stamp(path: Path) -> Optional[Tuple[int, int]]:
    """Number and time of a file that is always replaced as a whole; None if there is none."""
    try:
        status = os.lstat(str(path))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
