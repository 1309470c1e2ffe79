# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner device-check``: what ``python -m vxm_convert device-check`` starts; parses and prints."""

from __future__ import annotations

import argparse
import sys
from typing import List, Optional

from om_runner.device_check.climb import Request
from om_runner.device_check.run import CheckSettings, run_check
from vxm_convert.cliargs import add_common_group, run_main, set_up_logging
from vxm_convert.device_check.archive import PAGE_NAME
from vxm_convert.device_check.comparison import lines_of
from vxm_convert.device_check.options import add_check_arguments, help_of_check, unused_in_check
from vxm_convert.errors import EXIT_OK, PrecisionError
from vxm_convert.given import refuse_unused
from vxm_convert.model.spec import parse_shape
from vxm_convert.parser import Parser

PROG = "om_runner device-check"


def build_parser() -> argparse.ArgumentParser:
    """The command line of the check."""
    parser = Parser(prog=f"python -m {PROG}", **help_of_check(f"python -m {PROG}"))
    add_check_arguments(parser)
    add_common_group(parser)
    return parser


def settings_from(args: argparse.Namespace) -> CheckSettings:
    """The parsed command line; raises SpecError for a shape that no network has."""
    shape = ",".join(str(side) for side in parse_shape(args.shape))
    request = Request(
        work=str((args.out / "work").resolve()),
        toolchain=args.toolchain,
        device=args.device,
        soc_version=args.soc_version,
        short=args.short,
        reference_python=args.reference_python,
        exported=None if args.exported is None else str(args.exported.resolve()),
        shape=shape,
    )
    only = tuple(name for name in args.only.split(",") if name)
    return CheckSettings(args.out, request, args.short, only, args.rung_seconds)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; returns the exit code."""
    words, parser = sys.argv[2:] if argv is None else argv, build_parser()
    args = parser.parse_args(words)
    refuse_unused(parser, words, unused_in_check(args))
    set_up_logging(args)

    def body() -> int:
        if args.compare is not None:
            sys.stdout.write("\n".join(lines_of(args.compare)) + "\n")
            return EXIT_OK
        text, others = run_check(settings_from(args))
        sys.stdout.write(text + "\n")
        if others:
            raise PrecisionError(
                f"{args.out / PAGE_NAME}: points that differ from the prediction or failed: {others}, expected none; the "
                "page says what to do, and --compare which assumptions they touch"
            )
        return EXIT_OK

    return run_main(body, PROG)
