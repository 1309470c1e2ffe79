# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner audit``: parses and prints; the work is in `session`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from om_runner.audit.run import AuditSettings, run_audit
from om_runner.names import AUDIT_NAME
from om_runner.options.common import add_device_group, add_model_options, whole_number
from vxm_convert.cliargs import add_common_group, add_toolchain_group, help_texts, run_main, set_up_logging
from vxm_convert.errors import EXIT_OK, PrecisionError
from vxm_convert.parser import Parser
from vxm_convert.profiles.profile import CHOICE_HELP, DEFAULT_PROFILE

PROG = "om_runner audit"
DEFAULT_OUT = Path("build") / "audit"


def build_parser() -> argparse.ArgumentParser:
    """The command line of the audit."""
    parser = Parser(
        prog=f"python -m {PROG}",
        **help_texts(
            "Check that an offline model gives the same bits for a scan when it runs again, in another order, after "
            "reloading, at another place of the batch, beside other scans, in a padded batch, or in a model with "
            "another batch.",
            [f"python -m {PROG} --input scans --atlas atlas.npz --other-model build/vxm-1/vxm.om"],
            {0: "every result is bit-equal or within the profile", 3: "a result is outside the profile or is NaN"},
            writes=f"OUT/{AUDIT_NAME}.",
        ),
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="DIR|FILE",
        help="folder of scans on the network grid, or one scan (required)",
    )
    files.add_argument(
        "--atlas", required=True, type=Path, metavar="FILE", help="fixed image, on the network grid (required)"
    )
    add_model_options(files)
    files.add_argument(
        "--other-model",
        default=None,
        type=Path,
        metavar="FILE",
        help="the same network and plan, exported with another batch, with contract.json beside it (default: none)",
    )
    files.add_argument(
        "--out",
        default=DEFAULT_OUT,
        type=Path,
        metavar="DIR",
        help="output folder; also holds 330 MB of temporary files per scan at full size (default: %(default)s)",
    )
    files.add_argument(
        "--limit",
        default=None,
        type=whole_number,
        metavar="N",
        help="use the first N scans, in name order (default: one more than the batch, at least 2)",
    )
    parser.add_argument_group("judgement").add_argument(
        "--profile",
        default=DEFAULT_PROFILE,
        metavar="NAME|FILE",
        help=f"acceptance profile that limits differences: {CHOICE_HELP}; none checks NaN and Inf only "
        "(default: %(default)s)",
    )
    add_toolchain_group(parser)
    add_device_group(parser)
    add_common_group(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; returns the exit code."""
    args = build_parser().parse_args(argv)
    set_up_logging(args)
    settings = AuditSettings(
        input=args.input,
        atlas=args.atlas,
        model=args.model,
        contract=args.contract,
        other_model=args.other_model,
        out=args.out,
        profile=args.profile,
        limit=args.limit,
        toolchain=args.toolchain,
        device=args.device,
    )

    def body() -> int:
        text, beyond = run_audit(settings)
        sys.stdout.write(text + "\n")
        if beyond:
            raise PrecisionError(
                f"{args.out / AUDIT_NAME}: {beyond} checks differ beyond profile {args.profile}, expected none; run "
                "it again to see "
                "whether the device or the model is at fault, and do not mix such results"
            )
        return EXIT_OK

    return run_main(body, PROG)
