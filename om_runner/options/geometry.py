# SPDX-License-Identifier: Apache-2.0
"""Options of the batch registration about space: affine, axes, space of the results, which files, in which layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Tuple

from om_runner.inputs.placement import INTENSITIES, SUBJECT_FIELD, PlacingOptions
from om_runner.results.products import DEFAULT_OUTPUTS, LABEL_INTERPOLATIONS, OUTPUTS, SPACES, OutputOptions
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.resample import EDGES
from vxm_convert.scans.conform import oriented
from vxm_convert.transforms.foreign import refuse_foreign
from vxm_convert.transforms.formats import FORMATS


def add_geometry_group(parser: argparse.ArgumentParser) -> None:
    """The group ``geometry`` and the group ``outputs``."""
    group = parser.add_argument_group("geometry")
    group.add_argument(
        "--affine",
        default="none",
        type=_affine,
        metavar="auto|FILE|none",
        help="map from the atlas's to the scan's space before the network: estimated with SimpleITK, read from an "
        "LTA, ITK or 4x4 text "
        f"file ({SUBJECT_FIELD} in its name stands for the subject; .h5 and .xfm are refused with what converts "
        "them), or the headers "
        "alone (default: %(default)s)",
    )
    group.add_argument(
        "--orientation",
        default=None,
        type=_orientation,
        metavar="XYZ",
        help="directions in which the array axes run, e.g. LIA, whatever the headers of the scans say (default: the "
        "headers)",
    )
    group.add_argument(
        "--intensity",
        default="convention",
        choices=INTENSITIES,
        help="scale of the scans: 0..255 or 0..1 as FreeSurfer's brains have it, anything else refused; or any scale, "
        "the 99.9th "
        "percentile of the positive voxels becomes 0.5 (default: %(default)s)",
    )
    group = parser.add_argument_group("outputs")
    group.add_argument(
        "--outputs",
        default=DEFAULT_OUTPUTS,
        type=_outputs,
        metavar="LIST",
        help=f"files per subject, comma-separated, of {', '.join(OUTPUTS)} (default: {','.join(DEFAULT_OUTPUTS)})",
    )
    group.add_argument(
        "--warp-format", default="itk", choices=sorted(FORMATS), help="layout of the warps (default: %(default)s)"
    )
    group.add_argument(
        "--space",
        default="atlas",
        choices=SPACES,
        help="grid of the results: the atlas's file, the network's, or the scan's own voxels, all in the atlas's space "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--edge",
        default=None,
        choices=EDGES,
        help="beyond the scan: 0, or its border as the network has it (default: zero where the scan is resampled, "
        "clamp where the "
        "network's own moved image is the result)",
    )
    group.add_argument(
        "--label-interpolation",
        default="nearest",
        choices=sorted(LABEL_INTERPOLATIONS),
        help="for segmentations: nearest, or every label's indicator linearly and the largest wins (default: "
        "%(default)s)",
    )


def placing_from(args: argparse.Namespace) -> PlacingOptions:
    """The parsed options as the loader takes them."""
    return PlacingOptions(args.affine, args.orientation, args.intensity)


def outputs_from(args: argparse.Namespace) -> OutputOptions:
    """The parsed options as the writer takes them."""
    return OutputOptions(args.outputs, args.warp_format, args.space, args.edge, args.label_interpolation)


def _affine(text: str) -> str:
    try:
        refuse_foreign(Path(text))
    except VolumeError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if text in ("auto", "none") or SUBJECT_FIELD in text or Path(text).is_file():
        return text
    raise argparse.ArgumentTypeError(f"got {text!r}, expected auto, none, or an existing file")


def _orientation(text: str) -> str:
    try:
        oriented((2, 2, 2), text.upper(), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    except VolumeError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return text.upper()


def _outputs(text: str) -> Tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    wrong = [word for word in words if word not in OUTPUTS]
    if wrong:
        raise argparse.ArgumentTypeError(
            f"got {wrong[0]!r}, expected names of {', '.join(OUTPUTS)}, separated by commas"
        )
    return tuple(dict.fromkeys(words))
