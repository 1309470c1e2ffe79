# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner jacobian``: the determinant of a warp as an image and in figures."""

from __future__ import annotations

import argparse
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
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid, corner_distance_mm, same_place
from vxm_convert.geometry.jacobian import determinant, jacobian_figures
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.transforms.landing import MOST_FOLDED, refuse_folded
from vxm_convert.transforms.partners import image_grid


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "jacobian",
        "Compute the Jacobian determinant of a warp in space (volume ratio): map, folding, spread of its logarithm.",
        "--warp flow.nii.gz --map jacobian.nii.gz --format json",
    )
    add_warp_options(parser)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--map",
        default=None,
        type=Path,
        metavar="FILE",
        help="file for the determinant per fixed voxel, float32 (default: not written)",
    )
    result.add_argument(
        "--log-map",
        default=None,
        type=Path,
        metavar="FILE",
        help="file for ln(max(J, 1e-9)) per fixed voxel (default: not written)",
    )
    result.add_argument(
        "--mask",
        default=None,
        type=Path,
        metavar="IMAGE",
        help="compute figures only where this image is not 0 (default: everywhere)",
    )
    result.add_argument(
        "--l2r-compat",
        action="store_true",
        help="compute SDlogJ and folds as Learn2Reg's public evaluation does (default: off)",
    )
    add_table_options(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(build_parser(), argv, run, ("map", "log_map", "out"))


def _mask(path: Path, grid: Grid) -> np.ndarray:
    """Where an image on the warp's grid is not 0; VolumeError for NaN and for one that lies elsewhere."""
    scan = ScanFile(path)
    values = scan.image(grid.shape).data
    unknown = int(values.size - np.count_nonzero(np.isfinite(values)))
    if unknown:
        raise VolumeError(
            f"{path}: {unknown} of {values.size} voxels are NaN or infinite, expected 0 outside the mask and a number "
            "inside; write 0 where nothing is known"
        )
    where = image_grid(scan, grid)
    if scan.has_header and not same_place(where, grid, 0.1):
        raise VolumeError(
            f"{path}: on {where.describe()}, the warp on {grid.describe()}, {corner_distance_mm(where, grid):.1f} mm "
            "apart; resample the mask onto the warp's grid with 'om_runner apply --interpolation nearest'"
        )
    return np.asarray(values != 0)


def run(args: argparse.Namespace) -> int:
    """Read, compute, write."""
    warp = warp_from(args)
    mask = None if args.mask is None else _mask(args.mask, warp.fixed)
    figures = jacobian_figures(warp, mask, args.l2r_compat)
    if figures.folded_fraction > MOST_FOLDED:
        refuse_folded(args.warp, figures.folded_fraction)
    for path, logarithm in ((args.map, False), (args.log_map, True)):
        if path is not None:
            values = determinant(warp)
            write_nifti(path, np.log(np.maximum(values, 1e-9)) if logarithm else values, warp.fixed.affine, np.float32)
            what = "ln(max(J, 1e-9))" if logarithm else "determinant of fixed RAS to moving RAS, central differences"
            write_sidecar(path, hashes(warp=args.warp), {"kind": "none"}, holds=what, unit="1", frame="fixed grid")
    emit(render(figures.to_dict(), [], args.format), args.out)
    return 0
