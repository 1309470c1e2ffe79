# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner``: register a folder of scans with an offline model and report its precision."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from om_runner.geometry_args import add_geometry_group, outputs_from, placing_from
from om_runner.options import add_device_group, add_model_options, add_reference_python, whole_number
from om_runner.session import Settings, run_session
from vxm_convert.cliargs import add_common_group, add_toolchain_group, run_main, set_up_logging
from vxm_convert.labels import DEFAULT_LABEL_SET, LABEL_SETS
from vxm_convert.profiles import DEFAULT_PROFILE

PROG = "om_runner"
DEFAULT_OUT = Path("build") / "registered"
#: First word of the command line → (module with ``main(argv) -> int``, one line of help); any other start registers a folder.
VERBS: Dict[str, Tuple[str, str]] = {
    "apply": ("om_runner.verbs.apply", "carry an image, a segmentation or points through warps and affines"),
    "audit": ("om_runner.audit.command", "the same bits again, in any order, place of the batch, and after loading anew?"),
    "convert-warp": ("om_runner.verbs.convert_warp", "a warp as ITK, FSL, FreeSurfer, Learn2Reg or VoxelMorph have it"),
    "evaluate": ("om_runner.verbs.evaluate", "Dice, HD95, ASSD per structure, landmarks, folding"),
    "invert": ("om_runner.verbs.invert", "the inverse of a warp and the error it leaves in mm"),
    "jacobian": ("om_runner.verbs.jacobian", "Jacobian determinant of a warp, map and figures"),
    "layers": ("om_runner.layers.command", "error of every layer against TensorFlow, and which layers it comes from"),
}
_EXIT_CODES = "exit codes: 0 done; 1 something to fix, or a scan failed (failures.tsv); 2 usage; 3 outside the profile, or NaN"


def build_parser() -> argparse.ArgumentParser:
    """The command line of the runner."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {PROG}",
        description="Register every scan of a folder to an atlas with an offline model (.om) through pyACL.",
        epilog="; ".join([_EXIT_CODES] + [f"python -m {PROG} {verb}: {text}" for verb, (_, text) in sorted(VERBS.items())]),
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of scans: .nii, .nii.gz, .mgz, .mgh, and .npz on the network grid (required)",
    )
    files.add_argument("--atlas", required=True, type=Path, metavar="FILE", help="fixed image, like a scan (required)")
    add_model_options(files)
    files.add_argument("--out", default=DEFAULT_OUT, type=Path, metavar="DIR", help="output folder (default: %(default)s)")
    files.add_argument(
        "--limit", default=None, type=whole_number, metavar="N", help="register the first N scans only, in name order (default: all)"
    )
    add_geometry_group(parser)
    report = parser.add_argument_group("precision report")
    report.add_argument(
        "--compare",
        default="1",
        type=_compare,
        metavar="N|all|none",
        help="scans to compare with TensorFlow on the CPU; 165 MB of temporary disk each at full size (default: %(default)s)",
    )
    report.add_argument(
        "--profile",
        default=DEFAULT_PROFILE,
        metavar="NAME|FILE",
        help="acceptance profile: a name that `python -m vxm_convert profiles` lists, a YAML file, or none for NaN and Inf only "
        "(default: %(default)s)",
    )
    report.add_argument(
        "--labels",
        default=DEFAULT_LABEL_SET,
        choices=sorted(LABEL_SETS),
        help="structures that the mean Dice is taken over (default: %(default)s)",
    )
    add_reference_python(report)
    report.add_argument(
        "--reference-cache",
        default=None,
        type=Path,
        metavar="DIR",
        help="keep TensorFlow's results here and take them from here where graph and images are the same (default: computed each time)",
    )
    add_toolchain_group(parser)
    add_device_group(parser)
    add_common_group(parser)
    return parser


def settings_from(args: argparse.Namespace, command: List[str]) -> Settings:
    """The parsed command line as the session takes it."""
    return Settings(
        input=args.input,
        atlas=args.atlas,
        model=args.model,
        contract=args.contract,
        out=args.out,
        compare=None if args.compare == "all" else args.compare,
        label_set=args.labels,
        toolchain=args.toolchain,
        device=args.device,
        reference_python=args.reference_python,
        limit=args.limit,
        command=command,
        reference_cache=args.reference_cache,
        profile=args.profile,
        placing=placing_from(args),
        outputs=outputs_from(args),
    )


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; returns the exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given and given[0] in VERBS:
        return importlib.import_module(VERBS[given[0]][0]).main(given[1:])
    args = build_parser().parse_args(given)
    set_up_logging(args)
    settings = settings_from(args, ["python", "-m", PROG] + given)
    return run_main(lambda: run_session(settings), PROG)


def _compare(text: str) -> object:
    """A count, ``all``, or 0 for ``none``."""
    if text == "all":
        return text
    if text == "none":
        return 0
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number, all or none")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
