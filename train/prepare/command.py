# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m train prepare``. Parses; the work is in `train.prepare.run`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from train.prepare.settings import ARRAYS, CHOOSE, FORMATS, INTENSITIES, TOOLS, PrepareSettings
from train.prepare.work import cpu_count
from vxm_convert.affine.affine_search import KINDS
from vxm_convert.cliargs import add_common_group, add_label_map, help_texts, run_main, set_up_logging
from vxm_convert.given import refuse_unused, unless
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LABEL_SETS
from vxm_convert.model.spec import parse_shape
from vxm_convert.parser import Parser


def build_parser() -> argparse.ArgumentParser:
    """Options of the preparation."""
    parser = Parser(
        prog="python -m train prepare",
        **help_texts(
            "Resample scans and their segmentations onto the network grid: register each linearly to one reference, "
            "crop, scale intensities to 0..1. Scans are brains without skull (FreeSurfer's norm.mgz or brain.mgz). A "
            "stopped run continues where it was and keeps finished scans.",
            [
                "python -m train prepare --data scans --out build/prepared",
                "python -m train prepare --data freesurfer_subjects --reference bert --tool freesurfer",
            ],
            {1: "something to fix (one message), or rows in failures.tsv", 130: "stopped by Ctrl-C or SIGTERM"},
        ),
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="DIR|FILE",
        help="folder of scans (.npz, .nii, .nii.gz, .mgz, .mgh, .hdr, .nrrd, .nhdr, .mha, .mhd; segmentations beside "
        "them), folder of FreeSurfer subjects (SUBJECT/mri/norm.mgz, else brain.mgz, with aseg.mgz), or a manifest with "
        "the columns moving, seg, split (required)",
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
        help="fixed image: a file, the name of a scan, or auto for the scan without warnings whose brain volume and "
        "extents are nearest to the cohort's medians (default: %(default)s)",
    )
    files.add_argument(
        "--format", default="npz", choices=FORMATS, help="file format of the results (default: %(default)s)"
    )
    files.add_argument(
        "--array",
        default="vol",
        choices=ARRAYS,
        help="name of the image's array in a .npz file; vol_data for older VoxelMorph programs (default: %(default)s)",
    )
    _add_registration(parser)
    run = parser.add_argument_group("run")
    run.add_argument(
        "--jobs",
        default=None,
        type=int,
        metavar="N",
        help="number of scans at the same time, each in its own process with about 1 GB; 0: one after the other in "
        "this process (default: one per CPU)",
    )
    run.add_argument(
        "--force",
        action="store_true",
        help="prepare every scan again, choose the reference again, and remove scans with other settings (default: "
        "off)",
    )
    run.add_argument("--dry-run", action="store_true", help="print what the run would do; write nothing (default: off)")
    add_common_group(parser)
    return parser


def _add_registration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("registration")
    group.add_argument(
        "--transform",
        default="affine",
        choices=KINDS,
        help="transform to find: rigid has 6 parameters, affine 12 (default: %(default)s)",
    )
    group.add_argument(
        "--tool",
        default="auto",
        choices=TOOLS,
        help="program that finds the transform: FreeSurfer's mri_robust_register, the search of om_runner --affine auto in "
        "compiled loops or with SimpleITK, or auto for the first that is usable (default: %(default)s)",
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
        help="scaling to 0..1. convention divides 0..255 (FreeSurfer's norm.mgz) by 255, keeps 0..1 and refuses other "
        "ranges; percentile maps the 99.9th percentile of the positive voxels to 0.5; auto takes convention if "
        "it fits, else percentile with a warning (default: %(default)s)",
    )
    group.add_argument(
        "--orientation",
        default=None,
        metavar="XYZ",
        type=str.upper,
        help="directions of the array axes, such as LIA, instead of those in the headers (default: the headers)",
    )
    group.add_argument(
        "--labels",
        default=DEFAULT_LABEL_SET,
        metavar="NAME|FILE",
        help=f"structures in the Dice on the page: {', '.join(sorted(LABEL_SETS))}, or a file with an id and a name "
        "per line (default: %(default)s)",
    )
    add_label_map(group, "the scans")


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the verb."""
    words, parser = sys.argv[2:] if argv is None else argv, build_parser()
    args = parser.parse_args(words)
    refuse_unused(parser, words, unless(args.format == "npz", "it names the image in an .npz", "--array"))
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
        label_map=args.label_map,
        jobs=cpu_count() if args.jobs is None else args.jobs,
        force=args.force,
        dry_run=args.dry_run,
    )
    from train.prepare.run import run  # loads nibabel and SciPy, which --help need not wait for

    return run(settings)
