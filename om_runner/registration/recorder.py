# SPDX-License-Identifier: Apache-2.0
"""Notes what becomes of each scan of a run: a result, a failure, or done by another process."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Callable, Dict, Optional, Set, Tuple

from om_runner.inputs.scans import LoadedScan, Scan
from om_runner.registration.finish import describe
from om_runner.registration.job import Job
from om_runner.results.columns import CohortResult, FailureRow, MetricsRow
from om_runner.results.failures import FailureRecords
from vxm_convert.errors import ArtifactError, VxmError

LOG = logging.getLogger(__name__)

#: scans in a row that may fail for want of room before the run stops
FULL_IN_A_ROW = 3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Recorder:
    """The result of a run while it arrives.

    Parameters
    ----------
    job : Job
    progress : callable — called with 1 after every scan, finished or failed.
    release : callable — gives back the claim on a subject.
    """

    def __init__(self, job: Job, progress: Callable[[int], object], release: Callable[[str], object]) -> None:
        self.result = CohortResult()
        self._job, self._progress, self._release = job, progress, release
        self._failures = FailureRecords(job.layout.out)
        self._files: Dict[str, Tuple[str, ...]] = {}
        self._without_room = 0
        self._full: Optional[Exception] = None

    def read(self, loaded: LoadedScan, fixed: LoadedScan) -> None:
        """Note the hashes of a scan's files, and of the fixed image's if that is its own."""
        read: Dict[str, str] = {}
        for one in (loaded, fixed) if self._job.atlas is None else (loaded,):
            read[os.path.abspath(str(one.scan.path))] = one.sha256
            if one.seg_sha256 is not None:
                read[os.path.abspath(str(one.scan.seg_path))] = one.seg_sha256
        self.result.inputs.update(read)
        self._files[loaded.scan.subject] = tuple(read)

    def finished(self, row: MetricsRow) -> None:
        """Note a result whose files and record are written."""
        self._without_room = 0
        self.result.n_done += 1
        # The records have these from now on.
        for path in self._files.pop(row.subject, ()):
            self.result.inputs.pop(path, None)
        self._release(row.subject)
        LOG.info("%s", describe(row))
        self._progress(1)

    def failed(self, scan: Scan, stage: str, reason: Exception, recorded: bool = False) -> None:
        """Note a failure, unless another process has `recorded` it; the disk may be too full even for that."""
        LOG.error("%s: %s failed: %s", scan.subject, stage, reason)
        row = FailureRow(scan.subject, str(scan.path), stage, str(reason))
        self.result.failures.append(row)
        try:
            if not recorded:
                note_failure(self._job, self._failures, row)
        except (VxmError, OSError) as exc:
            LOG.debug("%s: the failure could not be recorded (%s)", scan.subject, exc)
            reason = reason if disk_full(reason) else exc
        if disk_full(reason):
            self._without_room += 1
            self._full = reason
        else:
            self._without_room = 0
        self._release(scan.subject)
        self._progress(1)

    def elsewhere(self, scan: Scan) -> None:
        """Note a scan that another process has done."""
        LOG.debug("%s: done by another process", scan.subject)
        self._progress(1)

    def check_room(self) -> None:
        """Raise ArtifactError after several scans in a row that could not be written because the disk is full."""
        if self._without_room >= FULL_IN_A_ROW and self._full is not None:
            raise no_room(self._job.layout.out, self._without_room, str(self._full)) from self._full


def note_failure(job: Job, failures: FailureRecords, row: FailureRow) -> None:
    """Record a failed scan in the folder; raises ArtifactError or OSError if that cannot be written."""
    failures.write(row)
    job.layout.note_failure(row)


def no_room(out: Path, scans: int, why: str) -> ArtifactError:
    """The error that ends a run whose results cannot be written any more."""
    return ArtifactError(
        f"{out}: no room is left: {scans} scans in a row could not be written ({why}); the run stops here, and finished "
        "scans are kept; free space and run the same command again"
    )


def without_room(message: str) -> ArtifactError:
    """The error of another process that found no room."""
    error = ArtifactError(message)
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error


def disk_full(exc: Optional[BaseException]) -> bool:
    """Whether an error, or one that it came from, says that the disk or the quota is full."""
    seen: Set[int] = set()
    # An error that several scans share may have become its own context.
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, OSError) and exc.errno in _FULL:
            return True
        seen.add(id(exc))
        exc = exc.__cause__ or exc.__context__
    return False
