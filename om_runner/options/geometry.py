# SPDX-License-Identifier: Apache-2.0
"""Options of the batch registration about space: affine, axes, grid of the results, files and their formats."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Tuple

from om_runner.inputs.affine_files import SUBJECT_FIELD, is_choice
from om_runner.inputs.placement import AUTO, PlacingOptions
from om_runner.inputs.series import MEAN, is_series_choice
from om_runner.results.products import DEFAULT_OUTPUTS, LABEL_INTERPOLATIONS, OUTPUTS, SPACES, OutputOptions
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.resample import EDGES
from vxm_convert.model.intensity import INTENSITIES
from vxm_convert.scans.conform import oriented
from vxm_convert.scans.nifti import DEFAULT_LEVEL, MOST_LEVEL
from vxm_convert.transforms.foreign import refuse_foreign
from vxm_convert.transforms.formats import FORMATS


def add_geometry_group(parser: argparse.ArgumentParser) -> None:
    """The group ``geometry`` and the group ``outputs``."""
    group = parser.add_argument_group("geometry")
    group.add_argument(
        "--affine",
        default="none",
        type=_affine,
        metavar="auto|FILE|DIR|none",
        help="affine from the atlas's to the scan's space: auto searches it by the intensities; FILE is an LTA, ITK or "
        f"4x4 text file ({SUBJECT_FIELD} in its name is replaced by the subject); DIR is the --out of an earlier run, whose "
        "affines are taken instead of searched again; none uses the headers alone (default: %(default)s)",
    )
    group.add_argument(
        "--series",
        default=None,
        type=_series,
        metavar="mean|N",
        help="files of several frames (4-D) are registered frame by frame, each frame as a scan SUBJECT_frame-000, … of its "
        "own; --affine auto searches one affine for all frames of a file, on their mean or on frame N, counted from 0 "
        "(default: such files are refused)",
    )
    group.add_argument(
        "--orientation",
        default=None,
        type=_orientation,
        metavar="XYZ",
        help="directions of the array axes, such as LIA, instead of those in the scans' headers (default: the headers)",
    )
    group.add_argument(
        "--intensity",
        default=AUTO,
        choices=(AUTO, *INTENSITIES),
        help="intensity scale of the scans: convention expects 0..255 or 0..1, as in FreeSurfer's brains; match takes any "
        "scale and fits the brain to the atlas by quantiles and slow shading; percentile maps the 99.9th percentile "
        "of the positive voxels to 0.5, which costs precision; contrast takes any contrast (T2, inverted) and gives the "
        "scan that of the atlas; auto is the rule in the model's contract: contrast for weights trained on synthetic images "
        "alone, such as those in models/, else convention (default: %(default)s)",
    )
    group = parser.add_argument_group("outputs")
    group.add_argument(
        "--outputs",
        default=DEFAULT_OUTPUTS,
        type=_outputs,
        metavar="LIST",
        help=f"files per subject, separated by commas: any of {', '.join(OUTPUTS)} (default: "
        f"{','.join(DEFAULT_OUTPUTS)})",
    )
    group.add_argument(
        "--warp-format", default="itk", choices=sorted(FORMATS), help="format of the warps (default: %(default)s)"
    )
    group.add_argument(
        "--space",
        default="atlas",
        choices=SPACES,
        help="grid of the results, in the atlas's space: that of the atlas's file, of the network, or of the scan's "
        "own voxels (default: %(default)s)",
    )
    group.add_argument(
        "--edge",
        default=None,
        choices=EDGES,
        help="values outside the scan: zero, or clamp to repeat its border as the network does (default: zero if the "
        "scan is resampled, clamp if the network's own moved image is the result)",
    )
    group.add_argument(
        "--label-interpolation",
        default="nearest",
        choices=sorted(LABEL_INTERPOLATIONS),
        help="interpolation of segmentations: nearest, or label-safe (interpolate each label's indicator linearly, "
        "take the largest; default: %(default)s)",
    )
    group.add_argument(
        "--compress",
        default=DEFAULT_LEVEL,
        type=_level,
        metavar="0..9|none",
        help="gzip's level of compression of the images: none (0) stores the voxels as they are, in files that are "
        "still named .nii.gz; 1 to 3 are the fast ones where isal is installed; results of an earlier run keep theirs "
        "(default: %(default)s)",
    )


def placing_from(args: argparse.Namespace) -> PlacingOptions:
    """The parsed options of the loader."""
    return PlacingOptions(args.affine, args.orientation, args.intensity, args.label_map, args.series)


def outputs_from(args: argparse.Namespace) -> OutputOptions:
    """The parsed options of the writer."""
    return OutputOptions(args.outputs, args.warp_format, args.space, args.edge, args.label_interpolation, args.compress)


def _affine(text: str) -> str:
    try:
        refuse_foreign(Path(text))
    except VolumeError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if is_choice(text):
        return text
    raise argparse.ArgumentTypeError(f"got {text!r}, expected auto, none, an existing file, or the folder of a run")


def _series(text: str) -> str:
    if not is_series_choice(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {MEAN}, or the number of a frame such as 0")
    return text


def _orientation(text: str) -> str:
    try:
        oriented((2, 2, 2), text.upper(), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    except VolumeError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return text.upper()


def _level(text: str) -> int:
    if text == "none":
        return 0
    if not text.isdigit() or int(text) > MOST_LEVEL:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a level from 0 to {MOST_LEVEL}, or none")
    return int(text)


def _outputs(text: str) -> Tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    wrong = [word for word in words if word not in OUTPUTS]
    if wrong:
        raise argparse.ArgumentTypeError(
            f"got {wrong[0]!r}, expected names from {', '.join(OUTPUTS)}, separated by commas"
        )
    return tuple(dict.fromkeys(words))
