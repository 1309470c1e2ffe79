# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""``python -m om_runner``: register a folder of scans with an offline model and report its precision."""

from __future__ import annotations

import vxm_convert.interrupts  # noqa: F401 -- before anything that takes time
import vxm_convert.one_blas_thread  # noqa: F401 -- before NumPy

# isort: split
import argparse
import importlib
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from om_runner.bids.options import GROUP, LEVELS, add_app_arguments, add_bids_group, bids_from
from om_runner.inputs.pairs import FIXED, FIXED_LABELS, MOVING, MOVING_LABELS, NAME
from om_runner.options.cluster import add_cluster_options
from om_runner.options.common import add_device_group, add_model_options, add_reference_python
from om_runner.options.geometry import add_geometry_group, outputs_from, placing_from
from om_runner.options.run import add_batch_group, batch_from
from om_runner.registration.job import Settings
from vxm_convert.cliargs import (
    add_common_group,
    add_label_map,
    add_toolchain_group,
    help_texts,
    run_main,
    set_up_logging,
)
from vxm_convert.given import refuse_unused, unless
from vxm_convert.lazy import LazyModule
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LABEL_SETS
from vxm_convert.parser import Parser, command_line, meant
from vxm_convert.profiles.profile import CHOICE_HELP, DEFAULT_PROFILE
from vxm_convert.text import whole_in

group = LazyModule("om_runner.bids.group")
session = LazyModule("om_runner.registration.session")
cluster = LazyModule("om_runner.cluster.session")
PROG = "om_runner"
DEFAULT_OUT = Path("build") / "registered"
#: First word of the command line → (module with ``main(argv) -> int``, one line of help); any other first word
#: registers a folder.
VERBS: Dict[str, Tuple[str, str]] = {
    "apply": ("om_runner.commands.apply", "carry an image, labels or points through warps and affines"),
    "audit": ("om_runner.commands.audit", "check that a model gives the same bits again, in any order and batch"),
    "collect": ("om_runner.commands.collect", "make all tables of an output folder from its records"),
    "compare-files": ("om_runner.commands.compare_files", "judge what msame or ais_bench wrote for golden inputs"),
    "convert-warp": (
        "om_runner.commands.convert_warp",
        "convert a warp to ITK, FSL, FreeSurfer, Learn2Reg, VoxelMorph",
    ),
    "device-check": ("om_runner.commands.device_check", "compare a device with the simulator's predictions"),
    "evaluate": ("om_runner.commands.evaluate", "score a registration: Dice, HD95, ASSD, landmarks, folding"),
    "invert": ("om_runner.commands.invert", "invert a warp and report the error in mm"),
    "jacobian": ("om_runner.commands.jacobian", "compute the Jacobian determinant of a warp"),
    "layers": ("om_runner.commands.layers", "compare every layer with TensorFlow and name the sources of error"),
    "scheduler": ("om_runner.cluster.scheduler", "start the scheduler of a Dask cluster"),
    "worker": ("om_runner.cluster.worker", "offer a device of this host to the runs of a Dask cluster"),
    "qc": ("om_runner.commands.qc", "draw pictures of every subject and a page over the cohort"),
}
#: options that --help shows; --help-all shows the others too
_COMMON = (
    "--input --atlas --pairs --out --model --affine --intensity --outputs --warp-format --space --compare --profile --limit "
    "--force --dry-run --device --toolchain --verbose --quiet"
).split()
_EXITS = {
    1: "something to fix (one message says what), or a scan failed (failures.tsv)",
    3: "the precision report is outside its profile or contains NaN",
    130: "stopped by Ctrl-C or SIGTERM; finished results are kept",
}
_EXAMPLES = (
    f"python -m {PROG} --input scans --atlas atlas.npz",
    f"python -m {PROG} --input scans --atlas atlas.nii.gz --affine auto --outputs moved,warp,seg,qc",
    f"python -m {PROG} --pairs pairs.tsv",
    f"python -m {PROG} bids_dataset bids_dataset/derivatives/vxm participant --atlas atlas.nii.gz",
    f"python -m {PROG} apply --transform flow.nii.gz --image scan.mgz --out moved.nii.gz",
)
_USAGE = (
    f"python -m {PROG} (--input DIR --atlas FILE | --pairs FILE) [--out DIR] [option ...]\n"
    f"       python -m {PROG} BIDS_DIR OUT_DIR participant|group [--atlas FILE] [option ...]\n"
    f"       python -m {PROG} VERB [option ...]"
)


def build_parser(app: bool = False) -> argparse.ArgumentParser:
    """The command line of the runner, or with `app` that of the BIDS-App call, whose folders are positional."""
    parser = Parser(
        prog=f"python -m {PROG}",
        usage=_USAGE,
        verbs=tuple(VERBS),
        common=_COMMON,
        **help_texts(
            "Register every scan of a folder to an atlas with an offline model (.om) through pyACL. Without a verb, "
            "scans are registered.",
            _EXAMPLES,
            _EXITS,
            {verb: text for verb, (_, text) in VERBS.items()},
        ),
    )
    files = parser.add_argument_group("files")
    if app:
        add_app_arguments(parser)
    else:
        files.add_argument(
            "--input",
            default=None,
            type=Path,
            nargs="+",
            metavar="DIR|FILE",
            help="folder of scans (.nii, .nii.gz, .mgz, .mgh, .hdr, .nrrd, .nhdr, .mha, .mhd, or .npz on the network grid), a "
            "BIDS dataset, one or more scans themselves, or a list of them: .txt, a path per line (required, unless --pairs is given)",
        )
        files.add_argument(
            "--pairs",
            default=None,
            type=Path,
            metavar="FILE",
            help="table of pairs instead of --input and --atlas: text with tabs or commas and the columns "
            f"{MOVING} and {FIXED}, if wanted {MOVING_LABELS}, {FIXED_LABELS} and {NAME}; relative paths start at its "
            "folder (default: none)",
        )
        files.add_argument(
            "--out", default=DEFAULT_OUT, type=Path, metavar="DIR", help="output folder (default: %(default)s)"
        )
    files.add_argument(
        "--atlas",
        default=None,
        type=Path,
        metavar="FILE",
        help="fixed image, in a scan format (required" + (")" if app else ", unless --pairs is given)"),
    )
    add_model_options(files)
    add_batch_group(parser)
    add_geometry_group(parser)
    add_bids_group(parser, app)
    report = parser.add_argument_group("precision report")
    report.add_argument(
        "--compare",
        default="1",
        type=_compare,
        metavar="N|all|none",
        help="number of scans to compare with TensorFlow on the CPU; each takes 165 MB of temporary disk at full size "
        "(default: %(default)s)",
    )
    report.add_argument(
        "--profile",
        default=DEFAULT_PROFILE,
        metavar="NAME|FILE",
        help=f"acceptance profile: {CHOICE_HELP}; none checks NaN and Inf only (default: %(default)s)",
    )
    report.add_argument(
        "--labels",
        default=DEFAULT_LABEL_SET,
        choices=sorted(LABEL_SETS),
        help="structures in the mean Dice (default: %(default)s)",
    )
    add_label_map(report, "the scans and of the fixed images of --pairs")
    add_reference_python(report)
    report.add_argument(
        "--reference-cache",
        default=None,
        type=Path,
        metavar="DIR",
        help="folder that keeps TensorFlow's results for later runs with the same graph and images (default: compute "
        "them each time)",
    )
    add_toolchain_group(parser)
    add_device_group(parser)
    add_cluster_options(parser)
    parser.add_argument_group("profile").add_argument(
        "--profile-ops",
        action="store_true",
        help="have acl.prof record the run, and write the time of every operator beside the export's estimate to "
        "OUT/precision/op_times.csv; slows the run down (default: off)",
    )
    add_common_group(parser)
    return parser


def settings_from(args: argparse.Namespace, command: List[str]) -> Settings:
    """The parsed command line as settings of a session."""
    pairs = getattr(args, "pairs", None)
    first, *more = [pairs] if pairs else args.input if isinstance(args.input, list) else [args.input]
    return Settings(
        input=first,
        more_inputs=tuple(more),
        atlas=None if pairs else args.atlas,
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
        batch=batch_from(args),
        bids=bids_from(args),
        profile_ops=args.profile_ops,
    )


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; returns the exit code."""
    given = command_line(argv)
    if given and given[0] in VERBS:
        return int(importlib.import_module(VERBS[given[0]][0]).main(given[1:]))
    app = bool(given) and not given[0].startswith("-")
    parser = build_parser(app)
    if app and not Path(given[0]).is_dir() and not {*given} & {*LEVELS, "-h", "--help", "--help-all"}:
        parser.error(
            f"{given[0]!r} is not a verb ({', '.join(sorted(VERBS))}); a BIDS-App call names {' or '.join(LEVELS)}"
            f"{meant(given[0], VERBS)}"
        )
    args = parser.parse_args(given)
    refuse_unused(parser, given, _unused(parser, args, app))
    set_up_logging(args)
    if app and args.level == GROUP:
        return run_main(lambda: group.run_group(args.input, args.out), PROG)
    if app and args.atlas is None:
        parser.error("--atlas is needed to register participants")
    if not app and args.pairs is None:
        missing = [name for name in ("input", "atlas") if getattr(args, name) is None]
        if missing:
            named = ", ".join(f"--{name}" for name in missing)
            parser.error(f"the following arguments are required: {named} (or --pairs alone)")
    settings = settings_from(args, ["python", "-m", PROG] + given)
    if args.devices is None and args.scheduler is None:
        return run_main(lambda: session.run_session(settings), PROG)
    return run_main(lambda: cluster.run_on_cluster(settings, args), PROG)


def _unused(parser: argparse.ArgumentParser, args: argparse.Namespace, app: bool) -> Dict[str, str]:
    if app and args.level == GROUP:
        why = f"the level {GROUP} makes tables from results that are there"
        used = ("--verbose", "--quiet", "--log-format", "--help-all", "--skip-bids-validator")
        return {name: why for name in parser._option_string_actions if name.startswith("--") and name not in used}
    warps = {"warp", "inverse"} & {*args.outputs}
    pairs = not app and args.pairs is not None
    return {
        **unless(bool(warps), "no warp is written; it goes with --outputs warp or inverse", "--warp-format"),
        **unless({*args.outputs} != {"qc"}, "no image is written but pictures", "--compress"),
        **unless(not pairs, "--pairs names moving and fixed images itself", "--input", "--atlas", "--series"),
        **unless(
            not pairs,
            "--pairs is no BIDS dataset",
            "--bids",
            "--participant-label",
            "--session-label",
            "--bids-filter",
            "--atlas-label",
        ),
        **unless(args.compare != 0, "--compare none compares no scan", "--reference-python", "--reference-cache"),
    }


def _compare(text: str) -> object:
    """A count, ``all``, or 0 for ``none``."""
    if text == "all":
        return text
    if text == "none":
        return 0
    number = whole_in(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number, all or none")
    return number


if __name__ == "__main__":
    sys.exit(main())
