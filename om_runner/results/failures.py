# SPDX-License-Identifier: Apache-2.0
"""A small record per scan that failed, written when it fails, and one line more in failures.tsv: the cost does not grow
with the number of failures. The table itself is made from the records.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Dict, Optional

from om_runner.names import FAILURES_NAME, STATE_FOLDER
from om_runner.results.columns import FailureRow, write_failures
from om_runner.sharing.names import FAILED_FOLDER, file_name, file_stamp
from vxm_convert.artifacts.files import read_bounded, write_json
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.temporaries import remove
from vxm_convert.artifacts.tsv import cell
from vxm_convert.errors import VxmError

LOG = logging.getLogger(__name__)

_MAX_BYTES = 1 << 20


class FailureRecords:
    """The records of failed scans in an output folder."""

    def __init__(self, out: Path) -> None:
        self._out = Path(out)
        self._folder = self._out / STATE_FOLDER / FAILED_FOLDER

    @property
    def exist(self) -> bool:
        """Whether a run of this version has written here."""
        return self._folder.is_dir()

    def write(self, row: FailureRow) -> None:
        """Record a failure; raises ArtifactError if that cannot be written."""
        write_json(self._path(row.subject), asdict(row))
        table = self._out / FAILURES_NAME
        if not table.is_file() or table.is_symlink():
            write_failures(table, [])
        with open(str(table), "a", encoding="utf-8") as handle:
            handle.write("\t".join(cell(value) for value in asdict(row).values()) + "\n")

    def forget(self, subject: str) -> None:
        """Remove the record of a scan that is registered now."""
        remove(self._path(subject))

    def read(self, subject: str) -> Optional[FailureRow]:
        """The record of one scan, or None."""
        found = self._read(self._path(subject))
        return found if found is not None and found.subject == subject else None

    def stamp(self, subject: str) -> object:
        """Changes with every new record of this scan; None without one."""
        return file_stamp(self._path(subject))

    def everything(self) -> Dict[str, FailureRow]:
        """Subject → record of all failed scans, in the order of their files' names; damaged ones are skipped."""
        rows = [self._read(path) for path in sorted(self._folder.glob("*.json"))] if self.exist else []
        return {row.subject: row for row in rows if row is not None}

    def _path(self, subject: str) -> Path:
        return self._folder / f"{file_name(subject)}.json"

    @staticmethod
    def _read(path: Path) -> Optional[FailureRow]:
        if path.is_symlink() or not path.is_file():
            return None
        try:
            data = parse_json(read_bounded(path, _MAX_BYTES, "the record of a failure", "remove it"), str(path))
            if not isinstance(data, dict) or set(data) != {f.name for f in fields(FailureRow)}:
                raise ValueError("other entries")
            return FailureRow(**{name: str(value) for name, value in data.items()})
        except (VxmError, ValueError, TypeError) as exc:
            LOG.warning("%s: not the record of a failed scan (%s); it is ignored", path, exc)
            return None
