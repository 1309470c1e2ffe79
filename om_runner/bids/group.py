# SPDX-License-Identifier: Apache-2.0
"""The level ``group`` of the BIDS-App call: rebuilds the tables and the list of hashes from the results of participant
runs.
"""

from __future__ import annotations

import logging
from pathlib import Path
from statistics import mean, pstdev
from typing import List

from om_runner.bids.dataset import DESCRIPTION_NAME, GENERATOR, generated_by_us
from om_runner.bids.description import CHANGES_NAME, IGNORE_NAME, LICENSE_NAME, README_NAME
from om_runner.bids.participant_tables import failed, registered, write_tables
from om_runner.bids.participants import Participants, read_participants
from om_runner.bids.request import check_output, open_dataset
from om_runner.names import PRECISION_FOLDER, QC_FOLDER, STATE_FOLDER
from om_runner.sharing.claims import TABLES
from om_runner.sharing.folder import output_folder
from vxm_convert.artifacts.names import RUN_NAME
from vxm_convert.artifacts.sha256sums import begin_manifest, files_below, finish_manifest
from vxm_convert.errors import EXIT_OK, EXIT_USER, VolumeError

LOG = logging.getLogger(__name__)


def run_group(bids_dir: Path, out: Path) -> int:
    """Make metrics.tsv, failures.tsv, participants.tsv, dseg.tsv and SHA256SUMS over all scans; returns 1 if a scan has
    failed.

    Raises
    ------
    VolumeError
        If `out` is not a derivative of this project, or no participant was registered into it.
    """
    dataset = open_dataset(bids_dir, out)
    check_output(out, dataset)
    if not generated_by_us(out):
        raise VolumeError(f"{out}: not a derivative of {GENERATOR}; run the level participant first")
    rows, failures = registered(out), failed(out)
    if not rows and not failures:
        raise VolumeError(f"{out}: no scan was registered into it; run the level participant first")
    participants = read_participants(dataset.root)
    with output_folder(out) as claims, claims.alone(TABLES):
        _write(out, participants)
    people = {row.subject.partition("_")[0] for row in rows}
    LOG.info("%d scans of %d participants, %d failed; tables in %s", len(rows), len(people), len(failures), out)
    simulated = sum(row.toolchain == "simulated" for row in rows)
    if simulated:
        LOG.warning("SIMULATED toolchain: no Ascend device took part in %d of these %d results", simulated, len(rows))
    scores: List[float] = [row.dice_after for row in rows if isinstance(row.dice_after, float)]
    if scores:
        LOG.info("Dice %.3f (sd %.3f over n = %d scans)", mean(scores), pstdev(scores), len(scores))
    return EXIT_USER if failures else EXIT_OK


def _write(out: Path, participants: Participants) -> None:
    earlier = begin_manifest(out)
    made = write_tables(out, participants)
    parts = [path.name for path in sorted(out.iterdir()) if path.is_dir() and path.name.startswith("sub-")]
    standing = [DESCRIPTION_NAME, README_NAME, CHANGES_NAME, IGNORE_NAME, LICENSE_NAME, RUN_NAME]
    folders = (PRECISION_FOLDER, QC_FOLDER, STATE_FOLDER, *parts)
    finish_manifest(out, made + standing + files_below(out, *folders), earlier)
