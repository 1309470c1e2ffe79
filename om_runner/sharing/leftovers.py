# SPDX-License-Identifier: Apache-2.0
"""What killed processes left in an output folder: temporary files anywhere, claims, results that were moved aside."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Iterator, Optional

from om_runner.names import PRECISION_FOLDER, QC_FOLDER, STATE_FOLDER
from om_runner.sharing.claims import Claims
from om_runner.sharing.names import COHORT_FOLDER, FAILED_FOLDER
from om_runner.sharing.owners import Owners, listed
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.artifacts.temporaries import MARK, process_is_dead, remove, token_of

LOG = logging.getLogger(__name__)

#: end of the name of a temporary folder that holds the earlier result of a subject
ASIDE = "-old"
_EARLIER_ASIDE = ".old"
#: temporary folders and the lock of earlier versions
_EARLIER_COMPARE, _EARLIER_LOCK = ".compare-", "lock"


def clear_leftovers(out: Path, owners: Owners, claims: Claims, said: bool = True) -> None:
    """Clear what ended processes left; files of processes that live, or may live on another machine, stay.

    The whole folder is searched only if a process was killed: its owner's file is still there then. `said`: whether to
    report it.
    """
    # Before the owners are looked at: a file that is there now has an owner that is there now, or has ended well.
    found = list(_temporaries(out))
    killed = [token for token in owners.others() if owners.is_gone(token)]
    old_lock = out / STATE_FOLDER / _EARLIER_LOCK
    earlier_version = [old_lock] if os.path.lexists(str(old_lock)) else []
    if killed or earlier_version:
        found = list(_everywhere(out)) + earlier_version
    for path in found:
        if _is_dead(path, owners):
            try:
                _clear(path)
            except OSError as exc:
                LOG.warning("%s: left over from a killed run and cannot be removed: %s", path, write_problem(exc))
    claims.clear_dead()
    for token in killed:
        LOG.log(
            logging.WARNING if said else logging.DEBUG,
            "%s: the previous run (%s) was killed; its finished results are kept, the others are registered again",
            out,
            owners.describe(token),
        )
        owners.forget(token)


def _is_dead(path: Path, owners: Owners) -> bool:
    token: Optional[str] = token_of(path.name)
    if token is None:
        return True
    if token == owners.token:
        return False
    return process_is_dead(token) is True or (process_is_dead(token) is None and owners.is_gone(token) is True)


def _temporaries(out: Path) -> Iterator[Path]:
    """Temporary files in the folders that hold few files. The output folder itself may be a link."""
    out = Path(os.path.realpath(str(out)))
    private = [f"{STATE_FOLDER}/{name}" for name in (FAILED_FOLDER, COHORT_FOLDER)]
    for folder in (out, *(out / name for name in (STATE_FOLDER, *private, QC_FOLDER, PRECISION_FOLDER))):
        yield from (folder / name for name in listed(folder) if name.startswith(MARK))
    yield from (out / name for name in listed(out) if name.startswith(_EARLIER_COMPARE))


def _everywhere(out: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(str(out)):
        for name in [name for name in sorted(folders + files) if name.startswith((MARK, _EARLIER_COMPARE))]:
            yield Path(folder) / name
        folders[:] = [name for name in folders if not name.startswith((MARK, _EARLIER_COMPARE))]


def _clear(path: Path) -> None:
    """Remove it; an earlier result that was moved aside goes back if the new one is missing."""
    if path.is_dir() and not path.is_symlink():
        if path.name.endswith(ASIDE):
            for name in listed(path):
                _put_back(path / name, path.parent / name)
        elif path.name.endswith(_EARLIER_ASIDE) and token_of(path.name) is None:
            _put_back(path, path.parent / path.name[: -len(_EARLIER_ASIDE)].split("-", 2)[-1])
    remove(path)


def _put_back(path: Path, home: Path) -> None:
    try:
        if not os.path.lexists(str(home)):
            os.replace(str(path), str(home))
    except FileNotFoundError:
        # Another process that has just started was faster.
        return
