# SPDX-License-Identifier: Apache-2.0
"""Disks that cannot all that a local one can (CIFS, NFS, exFAT, FUSE): modes, locks, syncing and mapping are used where
there are any; and the reason of a failed write in words that say what to do.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import logging
import os
from pathlib import Path

LOG = logging.getLogger(__name__)

#: what a file system says that lacks a service; EPERM is the answer of CIFS, exFAT and GVFS
_LACKING = frozenset({errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOTSUP})
#: what a lock says that another process holds
_BUSY = (errno.EACCES, errno.EAGAIN)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_LOST = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN)


class Lock(enum.Enum):
    """The answer to a request for a lock."""

    HELD = "held"
    BUSY = "busy"
    NONE = "none"


def take_lock(fileno: int, path: Path) -> Lock:
    """Lock an open file for this process alone, without waiting; a file system without locks is said.

    Parameters
    ----------
    fileno : int — of the open file.
    path : Path — what the lock protects, for the warning.
    """
    try:
        fcntl.flock(fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in _BUSY:
            return Lock.BUSY
        LOG.warning(
            "%s: this file system has no locks (%s); make sure that no other run writes there", path, exc.strerror
        )
        return Lock.NONE
    return Lock.HELD


def set_mode(path: Path, mode: int) -> None:
    """Give a file its mode, or leave the mode that the file system gave it."""
    try:
        os.chmod(str(path), mode)
    except OSError as exc:
        LOG.debug("%s: its mode cannot be set (%s)", path, exc.strerror)


def sync(fileno: int) -> None:
    """Have an open file's bytes on the disk, where the file system offers that; raises OSError for a failed write."""
    try:
        os.fsync(fileno)
    except OSError as exc:
        if exc.errno not in _LACKING:
            raise


def cannot_map(exc: OSError) -> bool:
    """Whether a file could not be mapped into memory because its file system maps none."""
    return exc.errno in _LACKING | {errno.ENODEV, errno.EACCES}


def is_environment(exc: OSError) -> bool:
    """Whether an error is the disk's, the share's or the permissions', and no mistake of the program."""
    return exc.errno in _FULL + _FORBIDDEN + _LOST


def write_problem(exc: BaseException) -> str:
    """The reason of a failed write and what to do about it: ``No space left on device; free some, …``."""
    number = getattr(exc, "errno", None)
    reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    if number in _FULL:
        advice = "free some space, or choose another output folder"
    elif number in _FORBIDDEN:
        advice = "change the permissions of the folder, or choose another one"
    elif number in _LOST:
        advice = "the disk or the network share failed: try again, or write to a local folder"
    elif number == errno.ENAMETOOLONG:
        advice = "give the file a shorter name"
    else:
        advice = "check the folder and its disk, or choose another output folder"
    return f"{reason}; {advice}"
