# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner layers``: which layers of an offline model bring in its error."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from om_runner.layers.judge import DEFAULT_LAYER_LIMIT, DEFAULT_OUTPUT_LIMIT, Limits
from om_runner.layers.run import LayerSettings, run_layers
from om_runner.options.common import add_device_group, add_model_options, add_reference_python
from vxm_convert.cliargs import add_common_group, add_toolchain_group, help_texts, run_main, set_up_logging
from vxm_convert.errors import EXIT_OK
from vxm_convert.given import refuse_unused, unless
from vxm_convert.parser import Parser

PROG = "om_runner layers"
_DEFAULT_GIB = 6.0
_GIB = 1 << 30


def build_parser() -> argparse.ArgumentParser:
    """The command line of the layer comparison."""
    parser = Parser(
        prog=f"python -m {PROG}",
        **help_texts(
            "Compare every tensor inside an offline model with TensorFlow's, and name the layers that cause the error.",
            [f"python -m {PROG} --input scan.npz --atlas atlas.npz --out build/layers --single"],
            {0: "compared, however large the errors are"},
            writes="OUT/precision/layers.csv (columns of Ascend's comparer, then ours) and layers.json.",
        ),
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="FILE|DIR",
        help="one scan, or a folder whose first scans fill one batch (required)",
    )
    files.add_argument(
        "--atlas", required=True, type=Path, metavar="FILE", help="fixed image, on the network grid (required)"
    )
    add_model_options(files, ", with frozen.pb beside it")
    files.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="output folder, also for temporary files (required)"
    )
    files.add_argument(
        "--dump",
        default=None,
        type=Path,
        metavar="DIR",
        help="folder of dump files that another device wrote for this model and these scans (default: run the model "
        "here)",
    )
    what = parser.add_argument_group("comparison")
    what.add_argument(
        "--single",
        action="store_true",
        help="also run every layer alone on TensorFlow's inputs; needs the compiler (default: off)",
    )
    what.add_argument(
        "--no-effect",
        action="store_true",
        help="with --single, skip the effect of each layer's own error on the outputs, which takes a run of "
        "TensorFlow per layer (default: off)",
    )
    what.add_argument(
        "--layer-limit",
        default=DEFAULT_LAYER_LIMIT,
        type=_positive,
        metavar="X",
        help="largest acceptable relative Euclidean distance of a layer (default: %(default)s)",
    )
    what.add_argument(
        "--output-limit",
        default=DEFAULT_OUTPUT_LIMIT,
        type=_positive,
        metavar="X",
        help="largest acceptable relative Euclidean distance that one layer alone causes in an output (default: "
        "%(default)s)",
    )
    what.add_argument(
        "--limit-gib",
        default=_DEFAULT_GIB,
        type=_positive,
        metavar="N",
        help="memory limit in GiB; a lower one compares fewer layers at a time and takes longer (default: %(default)s)",
    )
    add_reference_python(what)
    add_toolchain_group(parser)
    add_device_group(parser)
    add_common_group(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; returns the exit code."""
    words, parser = sys.argv[2:] if argv is None else argv, build_parser()
    args = parser.parse_args(words)
    refuse_unused(
        parser,
        words,
        {
            **unless(args.single, "no layer runs alone; it goes with --single", "--no-effect", "--output-limit"),
            **unless(not args.no_effect, "--no-effect leaves out what it limits", "--output-limit"),
            **unless(args.dump is None or args.single, "no device is opened, the dump is given", "--device"),
        },
    )
    set_up_logging(args)
    settings = LayerSettings(
        input=args.input,
        atlas=args.atlas,
        model=args.model,
        contract=args.contract,
        out=args.out,
        dump=args.dump,
        single=args.single,
        effect=not args.no_effect,
        limit_bytes=int(args.limit_gib * _GIB),
        limits=Limits(args.layer_limit, args.output_limit),
        toolchain=args.toolchain,
        device=args.device,
        reference_python=args.reference_python,
    )

    def body() -> int:
        sys.stdout.write(run_layers(settings) + "\n")
        return EXIT_OK

    return run_main(body, PROG)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # NaN fails this comparison too
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return value
