# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner evaluate``: Dice, HD95, ASSD per structure; landmark error; folding and SDlogJ of the warp."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from om_runner.commands.common import (
    add_table_options,
    add_warp_options,
    check_meeting,
    emit,
    grid_from,
    image_grid,
    make_parser,
    render,
    run_verb,
    warp_from,
)
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid, corner_distance_mm
from vxm_convert.geometry.jacobian import jacobian_figures
from vxm_convert.geometry.maps import SpaceMap
from vxm_convert.geometry.resample import resample
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LABEL_SETS, LabelSet, load_label_set
from vxm_convert.metrics.overlap import dice
from vxm_convert.metrics.surfaces import surface_distances
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.scans.values import Volume
from vxm_convert.transforms.points import POINT_FRAMES, read_points, to_ras

_SURFACE_RULE = "HD95 = larger of the two 95th percentiles of surface distances; ASSD = mean over both surfaces"


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
        help=f"structures: {', '.join(sorted(LABEL_SETS))}, or a file with an id and a name per line (default: "
        "%(default)s)",
    )
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
    return run_verb(build_parser(), argv, run)


def run(args: argparse.Namespace) -> int:
    """Whatever the given files allow; VolumeError when they allow nothing."""
    _check_pairs(args)
    warp = None
    if args.warp is not None:
        warp = warp_from(args, args.moving_seg)
    document: Dict[str, Any] = {}
    rows: List[Dict[str, Any]] = []
    if args.fixed_seg is not None:
        document["overlap"], rows = _structures(args, warp)
    if args.fixed_points is not None:
        document["landmarks"] = _landmarks(args, warp)
    if warp is not None:
        document["jacobian"] = jacobian_figures(warp, l2r_compat=args.l2r_compat).to_dict()
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


def _structures(args: argparse.Namespace, warp: Optional[Warp]) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    chosen = load_label_set(args.labels)
    fixed = _labels(args.fixed_seg)
    beside = ScanFile(args.moved_seg).grid if warp is None else warp.fixed
    grid = image_grid(ScanFile(args.fixed_seg), beside)
    moved = _moved_labels(args, warp, grid)
    if moved.shape != fixed.data.shape:
        raise VolumeError(
            f"evaluate: moved segmentation {moved.shape}, fixed {fixed.data.shape}; both must lie on the fixed grid"
        )
    if grid.sheared and not args.l2r_compat:
        raise VolumeError(
            f"{args.fixed_seg}: sheared axes, distances in mm would be wrong; resample it, or score in voxels with "
            "--l2r-compat"
        )
    spacing = (1.0, 1.0, 1.0) if args.l2r_compat else grid.spacing_mm
    scores, distances = dice(moved, fixed.data, chosen.ids), surface_distances(moved, fixed.data, chosen.ids, spacing)
    unit = "voxel" if args.l2r_compat else "mm"
    counts = {
        label: (int(np.count_nonzero(moved == label)), int(np.count_nonzero(fixed.data == label)))
        for label in chosen.ids
    }
    rows = [
        {
            "id": label,
            "structure": chosen.names[label],
            "dice": float(scores.per_label[label]),
            f"hd95_{unit}": distances[label].hd95,
            f"assd_{unit}": distances[label].assd,
            "voxels_moved": counts[label][0],
            "voxels_fixed": counts[label][1],
        }
        for label in chosen.ids
    ]
    return _summary(rows, chosen, unit, args), rows


def _summary(rows: List[Dict[str, Any]], chosen: LabelSet, unit: str, args: argparse.Namespace) -> Dict[str, Any]:
    """Means over the structures present in both, and the rules they follow."""
    figures: Dict[str, Any] = {"label_set": chosen.name, "includes_background": 0 in chosen.ids}
    present = [row for row in rows if np.isfinite(row["dice"])]
    figures["structures_in_both"], figures["structures_missing"] = len(present), len(rows) - len(present)
    for key in ("dice", f"hd95_{unit}", f"assd_{unit}"):
        values = [row[key] for row in present]
        figures[f"{key}_mean"] = float(np.mean(values)) if values else None
        figures[f"{key}_sd"] = float(np.std(values)) if values else None
    figures["rule"] = _SURFACE_RULE
    figures["interpolation"] = args.interpolation if args.moving_seg is not None else "given"
    return figures


def _moved_labels(args: argparse.Namespace, warp: Optional[Warp], grid: Grid) -> np.ndarray:
    if args.moved_seg is not None:
        moved = _labels(args.moved_seg)
        where = image_grid(ScanFile(args.moved_seg), grid)
        if moved.affine is not None and where.shape == grid.shape and corner_distance_mm(where, grid) > 0.1:
            raise VolumeError(
                f"{args.moved_seg}: lies {corner_distance_mm(where, grid):.1f} mm from the fixed segmentation by its "
                "header; "
                "it must be on the fixed grid"
            )
        return moved.data
    moving = _labels(args.moving_seg)
    if warp is None:
        raise VolumeError(f"{args.moving_seg}: needs a warp onto the fixed segmentation's grid; pass --warp")
    if warp.fixed.shape != grid.shape or corner_distance_mm(warp.fixed, grid) > 0.1:
        raise VolumeError(
            f"{args.warp}: on {warp.fixed.describe()}, the fixed segmentation on {grid.describe()}; they must be one "
            "grid"
        )
    warp = warp.on_moving(image_grid(ScanFile(args.moving_seg), warp.moving))
    check_meeting(warp, args.moving_seg)
    return resample(moving.data, warp, args.interpolation)


def _labels(path: Path) -> Volume:
    volume = ScanFile(path).labels()
    if volume is None:
        raise VolumeError(f"{path}: an .npz without 'seg', expected a segmentation")
    return volume


def _points(path: Path, frame: Optional[str], image: Optional[Path], home: Optional[Grid]) -> np.ndarray:
    points = read_points(path)
    frame = points.frame_or(frame, path)
    return to_ras(points.xyz, frame, grid_from(image, home) if frame == "voxel" else None)


def _landmarks(args: argparse.Namespace, warp: Optional[Warp]) -> Dict[str, Any]:
    """Target registration error: distance in mm from the carried fixed landmarks to the moving ones, and without the
    warp.
    """
    homes = (None, None) if warp is None else (warp.fixed, warp.moving)
    sides = ((args.fixed_points, args.fixed, homes[0]), (args.moving_points, args.moving, homes[1]))
    fixed, moving = (_points(path, args.frame, image, home) for path, image, home in sides)
    if len(fixed) != len(moving):
        raise VolumeError(
            f"evaluate: {len(fixed)} fixed and {len(moving)} moving landmarks, expected pairs in one order"
        )
    figures: Dict[str, Any] = {"n": len(fixed)}
    stages = [("before", fixed)] + ([("after", SpaceMap([warp])(fixed))] if warp is not None else [])
    for name, points in stages:
        distance = np.linalg.norm(points - moving, axis=1)
        figures[f"tre_mm_{name}"] = {
            "mean": float(distance.mean()),
            "p95": float(np.percentile(distance, 95)),
            "max": float(distance.max()),
        }
    return figures
