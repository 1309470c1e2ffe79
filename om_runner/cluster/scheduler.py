# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner scheduler``: the scheduler of a Dask cluster, which workers and runs connect to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import List, Optional

from om_runner.commands.common import make_parser, run_verb
from vxm_convert.lazy import LazyModule

serve = LazyModule("om_runner.cluster.serve")

_PORT, _MOST = 8786, 65535


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "scheduler",
        "Start the scheduler of a Dask cluster, which workers and runs connect to; `dask scheduler` does the same. Ends by "
        "Ctrl-C.",
        "",
        "--listen 10.0.0.1",
    )
    parser.add_argument(
        "--listen",
        default=None,
        metavar="ADDRESS",
        help="address or interface of this host at which other machines reach the scheduler: whoever can reach it can run "
        "code on its workers (default: 127.0.0.1, which only this host reaches)",
    )
    parser.add_argument(
        "--port", default=_PORT, type=_port, metavar="N", help="port; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--scheduler-file",
        default=None,
        type=Path,
        metavar="FILE",
        help="JSON file for the scheduler's address (default: none)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(build_parser(), argv, run)


def run(args: argparse.Namespace) -> int:
    """Schedule until stopped."""
    return int(serve.schedule(args.listen, args.port, args.scheduler_file))


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > _MOST:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a port from 0 to {_MOST}")
    return int(text)
