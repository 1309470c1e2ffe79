# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner worker``: offers a device of this host to the runs of a Dask cluster."""

from __future__ import annotations

import argparse
from typing import List, Optional

from om_runner.commands.common import make_parser, run_verb
from om_runner.options.common import whole_number
from vxm_convert.lazy import LazyModule

serve = LazyModule("om_runner.cluster.serve")

#: scans in work at the same time: read, executed, written
_SLOTS = 4


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "worker",
        "Offer a device of this host to the runs of a Dask cluster; ends with the scheduler, or by Ctrl-C.",
        "--scheduler tcp://127.0.0.1:8786 --device 0",
        "--scheduler tcp://head:8786 --device 3 --listen 10.0.0.7",
    )
    parser.add_argument(
        "--scheduler",
        required=True,
        metavar="ADDRESS",
        help="address of the scheduler, such as tcp://head:8786 (required)",
    )
    parser.add_argument(
        "--device", default=0, type=_device, metavar="ID", help="number of the device (default: %(default)s)"
    )
    parser.add_argument(
        "--listen",
        default=None,
        metavar="ADDRESS",
        help="address or interface of this host at which other machines reach the worker; needed for a scheduler on "
        "another host (default: 127.0.0.1, which only this host reaches)",
    )
    parser.add_argument(
        "--slots",
        default=_SLOTS,
        type=whole_number,
        metavar="N",
        help="number of scans in work at the same time; each takes about 0.3 GB at full size (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(build_parser(), argv, run)


def run(args: argparse.Namespace) -> int:
    """Work until the scheduler ends."""
    return int(serve.serve(args.scheduler, args.device, args.listen, args.slots))


def _device(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a device number such as 0")
    return int(text)
