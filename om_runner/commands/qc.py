# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner qc``: pictures and the cohort's page from a folder of results."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import List, Optional

from om_runner.commands.common import make_parser, run_verb
from om_runner.names import QC_FOLDER
from om_runner.qc.cohort_page import Failure, write_pages
from om_runner.qc.from_files import Fixed, Results, case_of, fixed_of_pair, open_fixed, open_results
from om_runner.qc.record import write_case
from om_runner.results.index_page import write_index
from vxm_convert.artifacts.files import check_output_folder
from vxm_convert.artifacts.sha256sums import files_below, refresh_manifest
from vxm_convert.errors import EXIT_OK, EXIT_USER, VolumeError, VxmError

LOG = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "qc",
        "Draw pictures that show whether registrations worked, and one page over the cohort, worst subject first.",
        "--registered build/registered",
        "--registered build/registered --subject sub-01",
    )
    parser.add_argument(
        "--registered",
        required=True,
        type=Path,
        metavar="DIR",
        help="output folder of om_runner, plain or BIDS (required)",
    )
    parser.add_argument(
        "--atlas",
        default=None,
        type=Path,
        metavar="FILE",
        help="fixed image of the run (default: the file named in its run.json; of pairs, that of each)",
    )
    parser.add_argument(
        "--out",
        default=None,
        type=Path,
        metavar="DIR",
        help=f"folder for the pages (default: {QC_FOLDER} in the folder of results)",
    )
    parser.add_argument(
        "--subject",
        default=None,
        action="append",
        metavar="NAME",
        help="draw this subject only; may be repeated (default: all)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(build_parser(), argv, run)


def run(args: argparse.Namespace) -> int:
    """Read, draw, write; a damaged subject is listed and does not stop the others."""
    results = open_results(args.registered)
    atlas = args.atlas or results.atlas
    fixed = None if atlas is None else open_fixed(atlas)
    wanted = _wanted(results, args.subject)
    out = args.out or results.folder / QC_FOLDER
    check_output_folder(out)
    damaged = _draw(results, fixed, wanted, out)
    missing = [(name, "registered according to metrics.tsv, but its moved scan is missing") for name in results.missing]
    for name, reason in missing:
        LOG.error("%s: %s", name, reason)
    page = write_pages(out, list(results.failures) + damaged + missing)
    if args.out is None:
        refresh_manifest(results.folder, write_index(results.folder) + files_below(results.folder, QC_FOLDER))
    LOG.info("%d of %d subjects drawn, page %s", len(wanted) - len(damaged), len(wanted), page)
    return EXIT_USER if damaged or missing else EXIT_OK


def _wanted(results: Results, names: Optional[List[str]]) -> List[str]:
    if names is None:
        return results.subjects
    unknown = [name for name in names if name not in results.subjects]
    if unknown:
        some = ", ".join(results.subjects[:5])
        raise VolumeError(
            f"{results.folder}: no subject {unknown[0]!r}, it holds {len(results.subjects)} of them, e.g. {some}"
        )
    return list(dict.fromkeys(names))


def _draw(results: Results, fixed: Optional[Fixed], subjects: List[str], out: Path) -> List[Failure]:
    """Each subject's folder; returns those that could not be drawn."""
    failed = []
    for subject in subjects:
        try:
            record = write_case(out, case_of(results, subject, fixed or fixed_of_pair(results, subject)))
        except VxmError as exc:
            LOG.error("%s: %s", subject, exc)
            failed.append((subject, str(exc)))
            continue
        LOG.info("%s: drawn%s", subject, f", {len(record.warnings)} warnings" if record.warnings else "")
    return failed
