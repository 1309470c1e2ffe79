# SPDX-License-Identifier: Apache-2.0
"""The records of every scan in ``provenance/``: its figures, its failure, its files with their plain names."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List

from om_runner.bids import names
from om_runner.bids.dataset import read_object
from vxm_convert.errors import VolumeError

LOG = logging.getLogger(__name__)

#: plain names of the records of one scan
METRICS_RECORD, FAILURE_RECORD, RESULTS_RECORD = "metrics.json", "failed.json", "results.json"


def read_records(out: Path, plain: str) -> Dict[Path, Dict[str, Any]]:
    """File → record, with that plain name of all scans, in the order of names; damaged ones are skipped with a warning."""
    found = {}
    for path in _records(out, plain):
        try:
            found[path] = read_object(path)
        except VolumeError as exc:
            LOG.warning("record skipped: %s", exc)
    return found


def results_in(out: Path) -> Dict[str, Dict[str, Path]]:
    """Subject → plain name (``moved.nii.gz``) → file, of every scan in a derivative."""
    records = read_records(out, RESULTS_RECORD).values()
    return {str(record.get("subject")): files_in(out, record) for record in records}


def files_in(out: Path, record: Dict[str, Any]) -> Dict[str, Path]:
    """Plain name → file of one scan; a name outside the derivative comes from a damaged record and is ignored."""
    files = record.get("files")
    if not isinstance(files, dict):
        return {}
    named = {str(plain): PurePosixPath(str(name)) for plain, name in files.items()}
    return {
        plain: Path(out) / str(path)
        for plain, path in named.items()
        if not path.is_absolute() and ".." not in path.parts
    }


def record_files(out: Path) -> List[str]:
    """Names below `out` of the rows of scans, registered or failed."""
    return sorted(
        p.relative_to(out).as_posix() for kind in (METRICS_RECORD, FAILURE_RECORD) for p in _records(out, kind)
    )


def _records(out: Path, plain: str) -> List[Path]:
    return sorted(Path(out).glob(f"sub-*/**/{names.PROVENANCE}/*_{plain}"))
