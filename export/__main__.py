# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""``python -m export``: one checkpoint to frozen.pb, vxm.onnx, vxm.om and their contract; the verbs check a frozen
graph and search for a precision plan.
"""

from __future__ import annotations

import vxm_convert.interrupts  # noqa: F401 -- before anything that takes time

# isort: split
import argparse
import importlib
import logging
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from export.api import Exported, export_model
from export.autobatch import AUTO
from export.plans import load_plan, plan_rules
from vxm_convert import cliargs
from vxm_convert.artifacts.names import CONTRACT_NAME, FROZEN_PB_NAME, OM_NAME, ONNX_NAME, PARITY_NAME, PREFLIGHT_JSON
from vxm_convert.ascend import atc_flags
from vxm_convert.ascend.chips import DEFAULT_SOC
from vxm_convert.errors import EXIT_OK
from vxm_convert.given import refuse_unused
from vxm_convert.model.spec import parse_shape
from vxm_convert.parser import Parser, command_line
from vxm_convert.weights.keras_h5 import INDEXINGS

_LOG = logging.getLogger(__name__)
_PROG = "export"
#: first word of the command line → (module with ``main(argv, default_soc) -> int``, one line of help); any other first
#: word exports
VERBS: Dict[str, Tuple[str, str]] = {
    "golden": ("export.golden", "write inputs and TensorFlow's outputs for msame, ais_bench, msaccucmp"),
    "preflight": ("export.preflight.command", "find what ATC would refuse in a frozen graph; estimate its time"),
    "tune": ("export.tune.command", "find the fewest nodes that must stay in fp32 to meet an acceptance profile"),
}
_USAGE = "python -m export --checkpoint CKPT --out DIR [option ...]\n       python -m export VERB [option ...]"
_EXAMPLES = (
    "python -m export --checkpoint build/train --out build/vxm",
    "python -m export --checkpoint vm2_cc.h5 --variant vm2 --precision accurate --out build/vxm",
    "python -m export preflight --pb build/vxm/frozen.pb --estimate",
)
_SUMMARY = (
    ("frozen graph", FROZEN_PB_NAME),
    ("ONNX", ONNX_NAME),
    ("offline model", OM_NAME),
    ("contract", CONTRACT_NAME),
    ("parity", PARITY_NAME),
    ("preflight", PREFLIGHT_JSON),
)


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m export``."""
    parser = Parser(
        prog="python -m export",
        usage=_USAGE,
        verbs=tuple(VERBS),
        **cliargs.help_texts(
            "Turn a VoxelMorph checkpoint into an offline model for the Ascend 910, with its contract and a parity "
            "report. Without a verb, export.",
            _EXAMPLES,
            {3: "an artefact does not compute what the checkpoint computes"},
            {verb: text for verb, (_, text) in VERBS.items()},
        ),
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="CKPT",
        help="TensorFlow checkpoint prefix, folder of checkpoints (the newest is taken), Keras .h5 file, or box for the "
        "weights that come with the package (required)",
    )
    files.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder for the artefacts; created if it does not exist (required)",
    )
    files.add_argument(
        "--h5-indexing",
        default="ij",
        choices=INDEXINGS,
        help="axis convention in the training of a .h5 network; xy swaps flow channels 0 and 1 (default: %(default)s)",
    )
    files.add_argument("--skip-onnx", action="store_true", help="do not write vxm.onnx (default: write it)")
    files.add_argument(
        "--check-determinism",
        action="store_true",
        help="freeze twice and compare bytes, run frozen.pb itself twice in TensorFlow and compare bits; triples the time "
        "of the parity check (default: vxm.onnx, made from frozen.pb, is compared with the checkpoint once)",
    )
    cliargs.add_model_group(parser)
    device = parser.add_argument_group("device")
    device.add_argument(
        "--batch",
        default=1,
        type=_batch,
        metavar="N|auto",
        help="pairs per run, fixed in the model; auto takes 1, 2, 4 or 8 by an ESTIMATE of time and memory on the "
        "chip (`python -m export preflight --estimate` prints it; default: %(default)s)",
    )
    device.add_argument(
        "--soc-version", default=DEFAULT_SOC, metavar="SOC", help="chip, as ATC names it (default: %(default)s)"
    )
    device.add_argument(
        "--preflight",
        default="stop",
        choices=("stop", "report"),
        help="effect of errors in the check before ATC: stop the export, or only report them (default: %(default)s)",
    )
    device.add_argument(
        "--tune-kernels",
        action="store_true",
        help="have CANN's tuner AOE measure kernels for this graph on the device, which can take hours, and keep the best "
        "in OUT/kernels for this and later exports; without AOE, one message (default: off)",
    )
    cliargs.add_precision_group(parser)
    device.add_argument(
        "--plan",
        default=None,
        type=Path,
        metavar="FILE",
        help="precision plan in a file that `python -m export tune` wrote, instead of --precision (default: none)",
    )
    device.add_argument(
        "--atc-flag",
        default=[],
        action="append",
        metavar="NAME=VALUE",
        help="another flag for ATC, written into the contract; may be repeated; NAME is one of: "
        f"{atc_flags.listing()} (default: none)",
    )
    cliargs.add_toolchain_group(parser)
    cliargs.add_common_group(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Parse, export, print the paths of the results; returns the exit code."""
    words = command_line(argv)
    if words and words[0] in VERBS:
        return int(importlib.import_module(VERBS[words[0]][0]).main(words[1:], DEFAULT_SOC))
    parser = build_parser()
    args = parser.parse_args(words)
    refuse_unused(parser, words, plan_rules(args))
    cliargs.set_up_logging(args)
    return cliargs.run_main(lambda: _export(args), _PROG)


def _export(args: argparse.Namespace) -> int:
    done = export_model(
        args.checkpoint,
        args.out,
        variant=args.variant,
        shape=parse_shape(args.shape),
        batch=args.batch,
        precision=args.precision if args.plan is None else load_plan(args.plan),
        soc_version=args.soc_version,
        h5_indexing=args.h5_indexing,
        onnx=not args.skip_onnx,
        strict_preflight=args.preflight == "stop",
        toolchain=args.toolchain or "",
        atc_flags=args.atc_flag,
        tune_kernels=args.tune_kernels,
        check_determinism=args.check_determinism,
    )
    _print_summary(done)
    return EXIT_OK


def _batch(text: str) -> object:
    """A whole number, or ``auto``; the model's spec checks the number."""
    if text == AUTO:
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number or {AUTO}") from None


def _print_summary(done: Exported) -> None:
    contract, out, model = done.contract, done.folder, done.contract.model
    shape = "x".join(str(n) for n in model.volume_shape)
    print(
        f"exported {model.variant} {shape}, batch {model.batch}, precision {contract.precision.name} for "
        f"{contract.soc_version}"
    )
    for label, name in _SUMMARY:
        if (out / name).exists():
            print(f"  {label:<14}{out / name}")
    if done.simulated:
        print(f"  SIMULATED: vxm.om comes from {done.toolchain.version}, not from CANN; it does not run on a device")


if __name__ == "__main__":
    sys.exit(main())
