# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner convert-warp``: a warp of one tool as a warp of another."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import List, Optional

from om_runner.commands.common import add_warp_options, make_parser, run_verb
from vxm_convert.transforms.formats import FORMATS
from vxm_convert.warps import convert

LOG = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "convert-warp",
        "Write a warp in another tool's format; the map in space stays the same.",
        "--warp flow.nii.gz --moving scan.mgz --warp-format fsl --out flow_fsl.nii.gz",
    )
    add_warp_options(parser)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE",
        help="converted warp: .nii.gz or .nii; .npz for l2r (required)",
    )
    result.add_argument(
        "--warp-format",
        required=True,
        choices=sorted(FORMATS),
        help="format to write: itk (also for ANTs and Slicer), fsl, freesurfer, l2r or vxm (required)",
    )
    result.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "float16"),
        help="type of the numbers; float16 only for l2r in .npz (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(build_parser(), argv, run)


def run(args: argparse.Namespace) -> int:
    """Read and write."""
    warp = convert(args.warp, args.out, args.warp_format, args.moving, args.fixed, args.source_format, dtype=args.dtype)
    LOG.info("%s: %s, fixed %s, moving %s", args.out, args.warp_format, warp.fixed.describe(), warp.moving.describe())
    return 0
