# SPDX-License-Identifier: Apache-2.0
"""An output folder while this process works on it: checked, joined, cleared of what dead processes left."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from om_runner.names import STATE_FOLDER
from om_runner.sharing.claims import CLAIMS_FOLDER, Claims
from om_runner.sharing.leftovers import clear_leftovers
from om_runner.sharing.links import refuse_links
from om_runner.sharing.names import COHORT_FOLDER, FAILED_FOLDER
from om_runner.sharing.owners import OWNERS_FOLDER, Owners
from vxm_convert.artifacts.files import check_output_folder

LOG = logging.getLogger(__name__)


@contextmanager
def output_folder(out: Path, session: str = "") -> Iterator[Claims]:
    """Create the folder, check that it is writable, join its owners; yields this process's claims. On exit, claims are
    given back and empty private folders removed, as is the whole folder if it was new and stays empty.

    Raises
    ------
    ArtifactError
        If it cannot be written, or has a link where the runner has a folder.
    """
    out = Path(out)
    existed = out.exists()
    check_output_folder(out)
    refuse_links(out)
    state = out / STATE_FOLDER
    owners = Owners(state)
    claims = Claims(owners, session)
    try:
        owners.join()
        try:
            clear_leftovers(out, owners, claims)
            yield claims
        finally:
            claims.close()
            owners.leave()
    finally:
        for name in (CLAIMS_FOLDER, OWNERS_FOLDER, FAILED_FOLDER, COHORT_FOLDER):
            _remove_if_empty(state / name)
        _remove_if_empty(state)
        if not existed:
            _remove_if_empty(out)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as exc:
        # Not empty, not there, or just used by another process.
        LOG.debug("%s stays: %s", folder, exc.strerror)
