# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner apply``: carry an image or points through warps and affines; an image is interpolated once."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

import numpy as np

from om_runner.commands.common import add_grid_options, hashes, make_parser, read_transform, run_verb
from om_runner.commands.outcome import check_cover, check_result, say_beyond, say_new_ids
from vxm_convert.artifacts.files import write_sidecar
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.inversion import TOLERANCE_MM, affine_part, solve
from vxm_convert.geometry.maps import BEYOND, SpaceMap, compose
from vxm_convert.geometry.resample import EDGES, INTERPOLATIONS, resample, to_dtype
from vxm_convert.given import unless
from vxm_convert.scans.checks import holds_labels
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.scans.values import Volume
from vxm_convert.transforms.affines import is_affine_file
from vxm_convert.transforms.formats import READABLE
from vxm_convert.transforms.itk_composite import is_composite
from vxm_convert.transforms.partners import check_meeting, check_signs, image_grid, says_its_place
from vxm_convert.transforms.points import POINT_FRAMES, check_points_target, from_ras, read_points, to_ras, write_points

LOG = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The command line of the verb."""
    parser = make_parser(
        "apply",
        "Resample an image onto the fixed grid, or carry points, through warps and affines.",
        "--transform flow.nii.gz --image scan.mgz --out moved.nii.gz",
        "--transform flow.nii.gz --image aseg.mgz --interpolation labels --out moved_seg.nii.gz",
        "--transform flow.nii.gz --points landmarks.csv --frame lps --out carried.csv",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--transform",
        required=True,
        action="append",
        metavar="FILE",
        help="warp (.nii, .nii.gz, .npz) or affine (.lta, .txt, .tfm, .mat; inverse:FILE inverts an affine); repeat "
        "it for a chain, in the order in which they act on a FIXED point (antsApplyTransforms uses the opposite "
        "order) (required)",
    )
    files.add_argument(
        "--from",
        dest="source_format",
        default=None,
        choices=sorted(READABLE),
        help="format of the warps (default: from header and side-car of each)",
    )
    what = files.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", type=Path, metavar="FILE", help="moving image or segmentation to resample")
    what.add_argument(
        "--points",
        type=Path,
        metavar="FILE",
        help="points to carry: CSV or TSV with columns x, y, z, or Slicer's .fcsv or .mrk.json",
    )
    files.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE",
        help="result: .nii or .nii.gz for an image; points keep the format of their input (required)",
    )
    add_grid_options(files)
    image = parser.add_argument_group("image")
    image.add_argument(
        "--interpolation",
        default=None,
        choices=INTERPOLATIONS,
        help="linear for intensities; nearest or labels (interpolate each label's indicator linearly, take the "
        "largest) for segmentations (default: linear, nearest where the image looks like a segmentation)",
    )
    image.add_argument(
        "--edge",
        default="zero",
        choices=EDGES,
        help="values outside the moving image: zero, or clamp to repeat its border as the network does (default: "
        "%(default)s)",
    )
    image.add_argument(
        "--beyond",
        default="edge",
        choices=BEYOND,
        help="displacement outside a warp's grid: that of its edge, or zero (default: %(default)s)",
    )
    points = parser.add_argument_group("points")
    points.add_argument(
        "--points-are",
        default="fixed",
        choices=("fixed", "moving"),
        help="image that the points are on: fixed points are mapped by the warp itself, moving points by inverting it "
        "(default: %(default)s)",
    )
    points.add_argument(
        "--frame",
        default=None,
        choices=POINT_FRAMES,
        help="frame of the coordinates, in and out: ras and lps in mm, voxel in indices (default: that of a Slicer "
        "file, ras for a table)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the verb; returns the exit code."""
    return run_verb(
        build_parser(),
        argv,
        lambda args: apply_to_points(args) if args.points else apply_to_image(args),
        unused=_unused,
    )


def _unused(args: argparse.Namespace) -> Dict[str, str]:
    warps = [word for word in args.transform if not (is_affine_file(Path(word)) or is_composite(Path(word)))]
    return {
        **unless(args.points is None, "points are not resampled; it goes with --image", "--interpolation", "--edge"),
        **unless(args.points is not None, "an image is resampled; it goes with --points", "--points-are", "--frame"),
        **unless(bool(warps), "no transform is a warp of several formats", "--from"),
    }


def apply_to_image(args: argparse.Namespace) -> int:
    """Compose the chain and resample once; the moving's dtype is kept."""
    if not args.out.name.lower().endswith((".nii", ".nii.gz")):
        raise VolumeError(f"{args.out}: an image is written to .nii or .nii.gz; change the name")
    image = ScanFile(args.image)
    volume, how = _volume(image, args.interpolation)
    fixed, named, moving = _grids(args, image)
    if moving is None:
        raise VolumeError(f"{args.image}: nothing says its grid; name it with --moving")
    steps = _steps(args, fixed, named or moving)
    fixed = fixed or _grid_of_first_warp(steps)
    check_cover(steps, args.transform, fixed, args.beyond)
    chain = compose(steps, fixed, moving, args.beyond)
    check_meeting(chain, args.image)
    check_signs(chain, args.image)
    moved = resample(volume.data, chain, how, args.edge)
    check_result(args.image, volume.data, moved, how)
    if how == "linear":
        moved = to_dtype(moved, volume.stored_dtype)
        if args.interpolation == how and holds_labels(volume.data):
            say_new_ids(args.image, volume.data, moved)
    write_nifti(args.out, moved, fixed.affine)
    write_sidecar(
        args.out,
        {"moving": image.sha256, **_chain_hashes(args.transform)},
        {"kind": "none"},
        maps="moving image resampled onto the fixed grid",
        transforms=list(args.transform),
        interpolation=how,
        edge=args.edge,
        fixed_grid=fixed.to_dict(),
    )
    LOG.info("%s: %s on %s", args.out, how, fixed.describe())
    return 0


def _volume(image: ScanFile, wanted: Optional[str]) -> Tuple[Volume, str]:
    """Values and interpolation of an image: without a wish, a segmentation is not interpolated."""
    how = wanted or "linear"
    volume = image.image() if how == "linear" else image.labels()
    if volume is None:
        raise VolumeError(f"{image.path}: an .npz without 'seg', expected a segmentation for {how}")
    if wanted is not None or not holds_labels(volume.data):
        return volume, how
    LOG.warning(
        "%s: looks like a segmentation (%d whole numbers, neighbours mostly equal): nearest is used instead of linear; "
        "name the --interpolation to have another",
        image.path,
        len(np.unique(volume.data)),
    )
    if image.has_header:
        labels = image.labels()
    else:
        # An image in an .npz is not what its labels are.
        whole = volume.data.astype(volume.stored_dtype)
        labels = Volume(whole, volume.affine, volume.path, volume.stored_dtype)
    return labels or volume, "nearest"


def apply_to_points(args: argparse.Namespace) -> int:
    """Carry points through the chain, or back through it."""
    points = read_points(args.points)
    check_points_target(args.out, points)
    frame = points.frame_or(args.frame, args.points)
    fixed, moving, _ = _grids(args)
    steps = _steps(args, fixed, moving)
    mapping = SpaceMap(steps, args.beyond)
    if frame == "voxel" and (fixed is None or moving is None):
        raise VolumeError("--frame voxel: indices of both images are meant; name them with --fixed and --moving")
    start, end = (fixed, moving) if args.points_are == "fixed" else (moving, fixed)
    ras = to_ras(points.xyz, frame, start)
    say_beyond(args.points, ras if args.points_are == "fixed" else None, steps)
    if args.points_are == "fixed":
        result = mapping(ras)
    else:
        result, residual = solve(mapping, ras, _affine_of(steps))
        lost = int(np.count_nonzero(residual > TOLERANCE_MM))
        if lost:
            LOG.warning(
                "%d of %d points have no preimage within %g mm; the worst misses by %.3g mm",
                lost,
                len(ras),
                TOLERANCE_MM,
                residual.max(),
            )
    write_points(args.out, points, from_ras(result, frame, end))
    other = "moving" if args.points_are == "fixed" else "fixed"
    made_from = {"points": hashes(f=args.points)["f"], **_chain_hashes(args.transform)}
    write_sidecar(
        args.out, made_from, {"kind": "none"}, maps=f"{args.points_are} points to {other} points", frame=frame
    )
    return 0


def _grids(args: argparse.Namespace, image: Optional[ScanFile] = None) -> Tuple[Optional[Grid], ...]:
    """Grids of ``--fixed``, ``--moving`` and an image to carry; the transforms help where a header says nothing."""
    files = [ScanFile(path) if path is not None else None for path in (args.fixed, args.moving)] + [image]
    homes: Tuple[Optional[Grid], Optional[Grid]] = (None, None)
    if any(file is not None and not says_its_place(file) for file in files):
        homes = _ends(args)
    sides = zip(files, (homes[0], homes[1], homes[1]))
    return tuple(None if file is None else image_grid(file, home) for file, home in sides)


def _ends(args: argparse.Namespace) -> Tuple[Optional[Grid], Optional[Grid]]:
    """The fixed grid of the first transform and the moving grid of the last, by themselves."""
    try:
        steps = _steps(args, None, None)
    except VolumeError:
        return None, None
    return steps[0].fixed, steps[-1].moving


def _steps(args: argparse.Namespace, fixed: Optional[Grid], moving: Optional[Grid]) -> List[Union[Warp, Affine]]:
    return [read_transform(word, args.source_format, fixed, moving) for word in args.transform]


def _grid_of_first_warp(steps: List[Union[Warp, Affine]]) -> Grid:
    for step in steps:
        if isinstance(step, Warp):
            return step.fixed
        if step.fixed is not None:
            return step.fixed
    raise VolumeError("the fixed grid is unknown: these affines name none; give an image on it with --fixed")


def _affine_of(steps: List[Union[Warp, Affine]]) -> np.ndarray:
    total = np.eye(4)
    for step in steps:
        total = (step.pull if isinstance(step, Affine) else affine_part(step)) @ total
    return total


def _chain_hashes(words: List[str]) -> Dict[str, str]:
    return {f"transform_{i + 1}": hashes(f=Path(word.split("inverse:", 1)[-1]))["f"] for i, word in enumerate(words)}
