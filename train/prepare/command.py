# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m train prepare``. Parses; the work is in `train.prepare.run`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import List, Optional

from train.prepare.settings import ARRAYS, CHOOSE, FORMATS, INTENSITIES, TOOLS, PrepareSettings
from train.prepare.work import cpu_count
from vxm_convert.cliargs import add_common_group, run_main, set_up_logging
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LABEL_SETS
from vxm_convert.model.spec import parse_shape
from vxm_convert.scans.affine_search import KINDS


def build_parser() -> argparse.ArgumentParser:
    """Options of the preparation."""
    parser = argparse.ArgumentParser(
        prog="python -m train prepare",
        description="Bring scans and their segmentations onto the network grid: linear registration of each to one "
        "reference, crop, "
        "intensity to 0..1. Scans are brains without skull (FreeSurfer's norm.mgz or brain.mgz). A run that was "
        "stopped goes on where it "
        "was; finished scans are not made again.",
        epilog="exit codes: 0 done, 1 something to fix (one message, or rows in failures.tsv), 2 usage, 130 stopped",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="DIR|FILE",
        help="folder of scans (.npz, .nii, .nii.gz, .mgz, .mgh; segmentations beside them by name), folder of "
        "FreeSurfer "
        "subjects (SUBJECT/mri/norm.mgz, else brain.mgz, with aseg.mgz), or a manifest with the columns moving, seg, "
        "split "
        "(required)",
    )
    files.add_argument(
        "--out",
        default=Path("build/prepared"),
        type=Path,
        metavar="DIR",
        help="folder for scans/, the reference, transforms/, prepare.html (default: %(default)s)",
    )
    files.add_argument(
        "--reference",
        default=CHOOSE,
        metavar="FILE|NAME|auto",
        help="fixed image: a file, the name of a scan, or auto: of the scans without doubts (with a segmentation, "
        "where any "
        "has one) the one whose brain volume and extents are nearest to the cohort's medians (default: %(default)s)",
    )
    files.add_argument("--format", default="npz", choices=FORMATS, help="files of the results (default: %(default)s)")
    files.add_argument(
        "--array",
        default="vol",
        choices=ARRAYS,
        help="name of the image's array in an .npz; vol_data for VoxelMorph's older programs (default: %(default)s)",
    )
    _add_registration(parser)
    run = parser.add_argument_group("run")
    run.add_argument(
        "--jobs",
        default=None,
        type=int,
        metavar="N",
        help="scans at a time, each in a process of its own with about 1 GB; 0: one by one in this process "
        "(default: one per CPU)",
    )
    run.add_argument(
        "--force",
        action="store_true",
        help="make every scan again, choose the reference again, and remove scans that were prepared with other "
        "settings "
        "(default: off)",
    )
    run.add_argument("--dry-run", action="store_true", help="say what would be done, write nothing (default: off)")
    add_common_group(parser)
    return parser


def _add_registration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("registration")
    group.add_argument(
        "--transform", default="affine", choices=KINDS, help="rigid: 6 parameters, affine: 12 (default: %(default)s)"
    )
    group.add_argument(
        "--tool",
        default="auto",
        choices=TOOLS,
        help="what finds the transform: FreeSurfer's mri_robust_register, SimpleITK, or auto: the first where it is "
        "usable "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--shape",
        default="160,192,224",
        metavar="X,Y,Z",
        help="network grid in voxels of 1 mm, axes LIA, each side a multiple of 16 (default: %(default)s)",
    )
    group.add_argument(
        "--intensity",
        default="auto",
        choices=INTENSITIES,
        help="to 0..1. convention: 0..255 / 255 (FreeSurfer's norm.mgz), 0..1 as it is, else refused; percentile: the "
        "99.9th percentile of the positive voxels becomes 0.5; auto: the first, else the second with a warning "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--orientation",
        default=None,
        metavar="XYZ",
        type=str.upper,
        help="directions in which the array axes run, e.g. LIA, whatever the headers say (default: the headers)",
    )
    group.add_argument(
        "--labels",
        default=DEFAULT_LABEL_SET,
        metavar="NAME|FILE",
        help=f"structures of the Dice on the page: {', '.join(sorted(LABEL_SETS))}, or a file with an id and a name "
        "per "
        "line (default: %(default)s)",
    )


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the verb."""
    args = build_parser().parse_args(argv)
    set_up_logging(args)
    return run_main(lambda: _prepare(args), "train prepare")


def _prepare(args: argparse.Namespace) -> int:
    settings = PrepareSettings(
        data=args.data,
        out=args.out,
        reference=args.reference,
        shape=parse_shape(args.shape),
        transform=args.transform,
        tool=args.tool,
        intensity=args.intensity,
        format=args.format,
        array=args.array,
        orientation=args.orientation,
        labels=args.labels,
        jobs=cpu_count() if args.jobs is None else args.jobs,
        force=args.force,
        dry_run=args.dry_run,
    )
    from train.prepare.run import run  # loads nibabel and SciPy, which --help need not wait for

    return run(settings)
