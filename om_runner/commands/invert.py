# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner invert``: the inverse of a warp by fixed-point iteration, with the error it leaves in mm."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import List, Optional

import numpy as np

from om_runner.commands.common import (
    add_table_options,
    add_warp_options,
    emit,
    hashes,
    make_parser,
    render,
    run_verb,
    warp_from,
)
from vxm_convert.artifacts.files import write_sidecar
from vxm_convert.geometry.inversion import INSIDE_FOLD, NOT_CONVERGED, OUTSIDE, TOLERANCE_MM, invert
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.transforms.formats import FORMATS, warp_format
from vxm_convert.transforms.warps import check_target, write_warp

LOG = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "invert",
        "Invert a warp: the result resamples the fixed image onto the moving grid.",
        "--warp flow.nii.gz --moving scan.mgz --inverse inverse.nii.gz",
    )
    add_warp_options(parser)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--inverse", required=True, type=Path, metavar="FILE", help="file for the inverse warp (required)"
    )
    result.add_argument(
        "--warp-format",
        default="itk",
        choices=sorted(FORMATS),
        help="format of the inverse warp (default: %(default)s)",
    )
    result.add_argument(
        "--mask",
        default=None,
        type=Path,
        metavar="FILE",
        help=f"image on the moving grid whose voxels are the sum of {INSIDE_FOLD} (in a fold, determinant at most 0), "
        f"{NOT_CONVERGED} (not solved) and {OUTSIDE} (outside the fixed grid) (default: none)",
    )
    result.add_argument(
        "--tolerance",
        default=TOLERANCE_MM,
        type=_positive,
        metavar="MM",
        help="residual in mm at which a voxel counts as solved (default: %(default)s)",
    )
    add_table_options(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(build_parser(), argv, run, ("inverse", "mask", "out"))


def run(args: argparse.Namespace) -> int:
    """Read, invert, write, report; a name that cannot be written is refused before the work."""
    check_target(args.inverse, warp_format(args.warp_format))
    warp = warp_from(args)
    inverse, mask, report = invert(warp, tolerance=args.tolerance)
    made_from = hashes(warp=args.warp)
    write_warp(
        args.inverse, inverse, args.warp_format, made_from, inverse_of=args.warp.name, consistency=report.to_dict()
    )
    if args.mask is not None:
        write_nifti(args.mask, mask.astype(np.uint8), inverse.fixed.affine)
        write_sidecar(
            args.mask,
            made_from,
            {"kind": "none"},
            bits={"1": "in a fold", "2": "not converged", "4": "outside the fixed grid"},
        )
    if report.folded or report.not_converged:
        LOG.warning(
            "%d voxels lie in folds, %d were not solved: there the warp has no inverse",
            report.folded,
            report.not_converged,
        )
    emit(render(report.to_dict(), [], args.format), args.out)
    return 0


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a positive number of mm")
    return value
