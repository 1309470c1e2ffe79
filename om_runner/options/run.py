# SPDX-License-Identifier: Apache-2.0
"""Options of the batch registration about the whole run: which scans, what to repeat, threads, trace."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, TypeVar

from om_runner.options.common import whole_number

#: more threads than this only lengthen the queue of finished scans
_MOST_THREADS = 4
#: seconds; a full-size execution takes about a second on a 910, and up to a minute in the simulator
DEVICE_TIMEOUT = 600.0
T = TypeVar("T")


def default_threads() -> int:
    """One per processor, at most four."""
    return max(1, min(_MOST_THREADS, os.cpu_count() or 1))


@dataclass(frozen=True)
class Shard:
    """Every `count`-th scan, beginning with scan `number` (from 1) in name order: shards are disjoint, make up the
    whole, and have equal sizes but for one scan.
    """

    number: int
    count: int

    def of(self, scans: Sequence[T]) -> List[T]:
        """The scans of this shard, from all of them in name order."""
        return list(scans[self.number - 1 :: self.count])


@dataclass(frozen=True)
class BatchOptions:
    """The options of the group ``batch``."""

    force: bool = False
    retry_failed: bool = False
    dry_run: bool = False
    threads: int = 1
    trace: Optional[Path] = None
    #: seconds after which an execution counts as hanging; 0: never
    device_timeout: float = DEVICE_TIMEOUT
    shard: Optional[Shard] = None


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
        help="number of scans finished at the same time, fewer on the grid of a large atlas; each takes about 0.3 GB at full "
        f"size (default: one per processor, at most {_MOST_THREADS})",
    )
    group.add_argument(
        "--trace",
        default=None,
        type=Path,
        metavar="FILE",
        help="file for a timeline of the stages of each scan, for chrome://tracing or Perfetto (default: none)",
    )
    group.add_argument(
        "--shard",
        default=None,
        type=_shard,
        metavar="I/N",
        help="register only the I-th of N parts of the scans, for job arrays; all parts may write into one --out at the "
        "same time (default: all scans)",
    )
    group.add_argument(
        "--device-timeout",
        default=DEVICE_TIMEOUT,
        type=_seconds,
        metavar="S",
        help="seconds after which an execution on the device counts as hanging and the run ends; 0 waits for ever "
        "(default: %(default)g)",
    )


def batch_from(args: argparse.Namespace) -> BatchOptions:
    """The parsed options."""
    return BatchOptions(
        args.force, args.retry_failed, args.dry_run, args.threads, args.trace, args.device_timeout, args.shard
    )


def _shard(text: str) -> Shard:
    number, slash, count = text.partition("/")
    if not slash or not number.isdigit() or not count.isdigit() or not 1 <= int(number) <= int(count):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected I/N with I from 1 to N, such as 3/20")
    return Shard(int(number), int(count))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of seconds, or 0 for no limit")
    return seconds
