# SPDX-License-Identifier: Apache-2.0
"""Options of the batch registration about the run as a whole: which scans, what is done again, threads, trace."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from om_runner.options.common import whole_number

#: more threads than this only make the queue of finished scans longer
_MOST_THREADS = 4


def default_threads() -> int:
    """One per processor, at most four."""
    return max(1, min(_MOST_THREADS, os.cpu_count() or 1))


@dataclass(frozen=True)
class BatchOptions:
    """``--force``, ``--retry-failed``, ``--dry-run``, ``--threads`` and ``--trace``."""

    force: bool = False
    retry_failed: bool = False
    dry_run: bool = False
    threads: int = 1
    trace: Optional[Path] = None


def add_batch_group(parser: argparse.ArgumentParser) -> None:
    """The group ``batch``."""
    group = parser.add_argument_group("batch")
    group.add_argument(
        "--limit",
        default=None,
        type=whole_number,
        metavar="N",
        help="look at the first N scans only, in name order (default: all)",
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="register scans again whose results are there and unchanged (default: they are skipped)",
    )
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="look at the scans in failures.tsv of the run before only (default: off)",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be done with each scan and why; writes nothing, opens no device (default: off)",
    )
    group.add_argument(
        "--threads",
        default=default_threads(),
        type=whole_number,
        metavar="N",
        help="scans whose results are made and written at a time; each takes some 0.3 GB at full size "
        f"(default: one per processor, at most {_MOST_THREADS})",
    )
    group.add_argument(
        "--trace",
        default=None,
        type=Path,
        metavar="FILE",
        help="timeline of decode, H2D, execute, D2H, products and write per scan, for chrome://tracing or Perfetto "
        "(default: none)",
    )


def batch_from(args: argparse.Namespace) -> BatchOptions:
    """The parsed options."""
    return BatchOptions(args.force, args.retry_failed, args.dry_run, args.threads, args.trace)
