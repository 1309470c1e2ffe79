# SPDX-License-Identifier: Apache-2.0
"""Options of the batch registration about the whole run: which scans, what to repeat, threads, trace."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from om_runner.options.common import whole_number

#: more threads than this only lengthen the queue of finished scans
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
        help="consider only the first N scans, in name order (default: all)",
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="register scans again even if their results are complete and unchanged (default: skip them)",
    )
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="consider only the scans in failures.tsv of the previous run (default: off)",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print what the run would do with each scan and why; write nothing, open no device (default: off)",
    )
    group.add_argument(
        "--threads",
        default=default_threads(),
        type=whole_number,
        metavar="N",
        help="number of scans finished at the same time; each takes about 0.3 GB at full size (default: one per "
        f"processor, at most {_MOST_THREADS})",
    )
    group.add_argument(
        "--trace",
        default=None,
        type=Path,
        metavar="FILE",
        help="file for a timeline of the stages of each scan, for chrome://tracing or Perfetto (default: none)",
    )


def batch_from(args: argparse.Namespace) -> BatchOptions:
    """The parsed options."""
    return BatchOptions(args.force, args.retry_failed, args.dry_run, args.threads, args.trace)
