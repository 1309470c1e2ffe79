# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner collect``: all tables of an output folder, made from its records."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from om_runner.bids.group import run_group
from om_runner.commands.common import make_parser, run_verb
from om_runner.names import FAILURES_NAME, METRICS_NAME, QC_FOLDER, RUN_NAME
from om_runner.qc.cohort_page import write_pages
from om_runner.results.cohort_record import CohortRecord
from om_runner.results.collect import View, list_files, view_of, write_tables
from om_runner.results.layout import Layout
from om_runner.results.run_record import collected, write_run
from om_runner.sharing.claims import TABLES
from om_runner.sharing.folder import output_folder
from vxm_convert.artifacts.files import read_json
from vxm_convert.artifacts.sha256sums import files_below
from vxm_convert.errors import EXIT_OK, EXIT_USER, ArtifactError, VxmError

LOG = logging.getLogger(__name__)

#: names of missing scans in the message
_SHOWN = 5


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "collect",
        "Make metrics.tsv, failures.tsv, run.json, the QC page and SHA256SUMS from the records of an output folder, for "
        "example after the tasks of a job array.",
        "build/registered",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of om_runner, plain or BIDS (required)")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(build_parser(), argv, run)


def run(args: argparse.Namespace) -> int:
    """Make the tables; returns 1 if scans failed or are missing."""
    out = Path(args.out)
    common = CohortRecord(out)
    settings = common.settings()
    if settings is None:
        raise ArtifactError(f"{out}: no run has registered scans into it; register first, or check the name")
    if str(settings["key"].get("layout")).startswith("BIDS"):
        return run_group(Path(str(settings["about"].get("input"))), out)
    with output_folder(out) as claims, claims.alone(TABLES):
        layout = Layout(out)
        view = view_of(layout, common.scans(), settings["key"])
        write_tables(layout, view)
        document = collected(_earlier(out) or settings["about"], view, common.processes(), time.time())
        write_run(layout, document)
        pictures = []
        if (out / QC_FOLDER).is_dir():
            write_pages(out / QC_FOLDER, [(failure.subject, failure.reason) for failure in view.failures])
            pictures = files_below(out, QC_FOLDER)
        list_files(layout, view, pictures)
    return _conclude(out, view)


def _conclude(out: Path, view: View) -> int:
    LOG.info("%d registered, %d failed; tables in %s (%s)", len(view.rows), len(view.failures), out, METRICS_NAME)
    if view.failures:
        LOG.error("%d scans failed, reasons in %s", len(view.failures), out / FAILURES_NAME)
    if view.missing:
        names = ", ".join(view.missing[:_SHOWN]) + (" …" if len(view.missing) > _SHOWN else "")
        LOG.error("%d scans are neither registered nor failed: %s", len(view.missing), names)
    return EXIT_USER if view.failures or view.missing else EXIT_OK


def _earlier(out: Path) -> Optional[Dict[str, Any]]:
    """run.json of the last process that ended by itself."""
    try:
        found = read_json(out / RUN_NAME)
    except VxmError as exc:
        LOG.debug("%s", exc)
        return None
    return found if isinstance(found, dict) else None
