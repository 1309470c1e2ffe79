# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner evaluate``: Dice, HD95, ASSD per structure; landmark error; folding and SDlogJ of the warp."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from om_runner.commands.common import (
    add_table_options,
    add_warp_options,
    emit,
    make_parser,
    render,
    run_verb,
    warp_from,
)
from om_runner.commands.outcome import say_beyond
from om_runner.commands.structures import score_structures
from vxm_convert.cliargs import add_label_map
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.jacobian import jacobian_figures
from vxm_convert.geometry.maps import SpaceMap
from vxm_convert.given import unless
from vxm_convert.metrics.labels import ALL_SETS, DEFAULT_LABEL_SET
from vxm_convert.transforms.landing import MOST_FOLDED, refuse_folded
from vxm_convert.transforms.landmarks import pair
from vxm_convert.transforms.partners import grid_from
from vxm_convert.transforms.points import POINT_FRAMES, PointList, read_points, to_ras


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "evaluate",
        "Score a registration: overlap and surface distance of structures, landmarks, regularity of the warp.",
        "--fixed-seg atlas_seg.nii.gz --moving-seg aseg.mgz --warp flow.nii.gz --format csv --out scores.csv",
        "--warp flow.nii.gz --fixed-points atlas.fcsv --moving-points scan.fcsv",
    )
    labels = parser.add_argument_group("segmentations")
    labels.add_argument(
        "--fixed-seg", default=None, type=Path, metavar="FILE", help="segmentation of the fixed image (default: none)"
    )
    both = labels.add_mutually_exclusive_group()
    both.add_argument(
        "--moved-seg", type=Path, metavar="FILE", help="moved segmentation, on the fixed grid (default: none)"
    )
    both.add_argument(
        "--moving-seg",
        type=Path,
        metavar="FILE",
        help="moving segmentation in its own space, which --warp carries to the fixed grid (default: none)",
    )
    labels.add_argument(
        "--labels",
        default=DEFAULT_LABEL_SET,
        metavar="NAME|FILE",
        help=f"structures: {', '.join(ALL_SETS)}, or a file with an id and a name per line (default: %(default)s)",
    )
    add_label_map(labels, "--moved-seg or --moving-seg")
    labels.add_argument(
        "--interpolation",
        default="nearest",
        choices=("nearest", "labels"),
        help="interpolation of the moving segmentation (default: %(default)s)",
    )
    add_warp_options(parser, required=False)
    points = parser.add_argument_group("landmarks")
    points.add_argument(
        "--fixed-points",
        default=None,
        type=Path,
        metavar="FILE",
        help="landmarks on the fixed image: CSV or TSV with x, y, z, or Slicer's .fcsv or .mrk.json (default: none)",
    )
    points.add_argument(
        "--moving-points",
        default=None,
        type=Path,
        metavar="FILE",
        help="the same landmarks on the moving image (default: none)",
    )
    points.add_argument(
        "--frame",
        default=None,
        choices=POINT_FRAMES,
        help="frame of both: ras and lps in mm, voxel in indices of --fixed and --moving (default: that of a Slicer "
        "file, ras for a table)",
    )
    parser.add_argument_group("rules").add_argument(
        "--l2r-compat",
        action="store_true",
        help="compute as Learn2Reg's public evaluation does: surface distances in voxels, SDlogJ of J + 3 (default: "
        "off)",
    )
    add_table_options(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(build_parser(), argv, run, unused=_unused)


def _unused(args: argparse.Namespace) -> Dict[str, str]:
    scored, warped, placed = args.fixed_seg is not None, args.warp is not None, args.fixed_points is not None
    grids = warped or (placed and args.frame == "voxel")
    return {
        **unless(args.moved_seg is None, "--moved-seg is taken as it is; it goes with --moving-seg", "--interpolation"),
        **unless(
            scored, "no segmentation is scored; it goes with --fixed-seg", "--labels", "--label-map", "--interpolation"
        ),
        **unless(placed, "no landmarks are scored; it goes with --fixed-points", "--frame"),
        **unless(warped, "no warp is read; it goes with --warp", "--from"),
        **unless(grids, "it goes with --warp, or with landmarks in --frame voxel", "--fixed", "--moving"),
        **unless(scored or warped, "landmarks are scored alike; it goes with segmentations or --warp", "--l2r-compat"),
    }


def run(args: argparse.Namespace) -> int:
    """Whatever the given files allow; VolumeError when they allow nothing."""
    _check_pairs(args)
    warp = None
    if args.warp is not None:
        warp = warp_from(args, args.moving_seg)
    document: Dict[str, Any] = {}
    rows: List[Dict[str, Any]] = []
    if args.fixed_seg is not None:
        document["overlap"], rows = score_structures(args, warp)
    if args.fixed_points is not None:
        document["landmarks"] = _landmarks(args, warp)
    if warp is not None:
        figures = jacobian_figures(warp, l2r_compat=args.l2r_compat)
        if figures.folded_fraction > MOST_FOLDED:
            refuse_folded(args.warp, figures.folded_fraction)
        document["jacobian"] = figures.to_dict()
    emit(render(document, rows, args.format), args.out)
    return 0


def _check_pairs(args: argparse.Namespace) -> None:
    segmentation = args.moved_seg or args.moving_seg
    if (args.fixed_seg is None) != (segmentation is None):
        raise VolumeError("evaluate: --fixed-seg goes together with --moved-seg or --moving-seg")
    if (args.fixed_points is None) != (args.moving_points is None):
        raise VolumeError("evaluate: --fixed-points goes together with --moving-points")
    if args.moving_seg is not None and args.warp is None:
        raise VolumeError(
            "evaluate: --moving-seg lies in the moving image's space; give --warp, or --moved-seg on the fixed grid"
        )
    if args.fixed_seg is None and args.fixed_points is None and args.warp is None:
        raise VolumeError("evaluate: nothing to score; give segmentations, landmarks or a warp")


def _ras(
    points: PointList, path: Path, frame: Optional[str], image: Optional[Path], home: Optional[Grid]
) -> np.ndarray:
    frame = points.frame_or(frame, path)
    return to_ras(points.xyz, frame, grid_from(image, home) if frame == "voxel" else None)


def _landmarks(args: argparse.Namespace, warp: Optional[Warp]) -> Dict[str, Any]:
    """Target registration error: distance in mm from the carried fixed landmarks to the moving ones, and without the
    warp.
    """
    homes = (None, None) if warp is None else (warp.fixed, warp.moving)
    sides = ((args.fixed_points, args.fixed, homes[0]), (args.moving_points, args.moving, homes[1]))
    lists = [read_points(path) for path, _, _ in sides]
    rows = pair(*lists)
    fixed, moving = (
        _ras(points, path, args.frame, image, home)[list(some)]
        for points, (path, image, home), some in zip(lists, sides, rows)
    )
    if warp is not None:
        say_beyond(args.fixed_points, fixed, [warp])
    figures: Dict[str, Any] = {"n": len(fixed), "n_unpaired": sum(len(points.xyz) for points in lists) - 2 * len(fixed)}
    stages = [("before", fixed)] + ([("after", SpaceMap([warp])(fixed))] if warp is not None else [])
    for name, points in stages:
        distance = np.linalg.norm(points - moving, axis=1)
        figures[f"tre_mm_{name}"] = {
            "mean": float(distance.mean()),
            "p95": float(np.percentile(distance, 95)),
            "max": float(distance.max()),
        }
    return figures
