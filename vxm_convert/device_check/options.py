# SPDX-License-Identifier: Apache-2.0
"""The command line of ``device-check``, which two programs share: the one that is called and the one that it starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict

from vxm_convert.cliargs import add_toolchain_group, help_texts
from vxm_convert.given import unless

PROG = "python -m vxm_convert device-check"
DEFAULT_OUT = Path("build") / "device-check"
RUNG_SECONDS = 300.0
SUMMARY = "compare a device with what the simulator predicts"


def help_of_check(prog: str = PROG) -> Dict[str, Any]:
    """Keyword arguments of its parser."""
    return help_texts(
        "The first hour on a machine with an Ascend device as one command. Compile and run a ladder of graphs, from one "
        "convolution to the whole network; compare each with NumPy, TensorFlow (where there is one) and the simulator's "
        "prediction. Needs no data.",
        [f"{prog} --short", f"{prog} --compare device-check.zip"] if prog == PROG else [f"{prog} --short"],
        {0: "everything is as predicted", 3: "something differs or failed"},
        writes="OUT/device-check.html, device-check.json and device-check.zip, which names neither host nor user.",
    )


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option but those of the messages."""
    group = parser.add_argument_group("check")
    group.add_argument(
        "--out", default=DEFAULT_OUT, type=Path, metavar="DIR", help="output folder (default: %(default)s)"
    )
    group.add_argument(
        "--short",
        action="store_true",
        help="only the small graphs, within a minute on the simulator (default: also the whole network)",
    )
    group.add_argument(
        "--only", default="", metavar="RUNG,…", help="climb only these rungs (default: all, or those of --short)"
    )
    group.add_argument(
        "--compare",
        default=None,
        type=Path,
        metavar="ARCHIVE",
        help="climb nothing; print which assumptions the differences in a device-check.zip touch (default: climb)",
    )
    group.add_argument(
        "--rung-seconds",
        default=RUNG_SECONDS,
        type=_seconds,
        metavar="S",
        help="seconds that a small rung may take before its process is stopped; the network's rungs get a multiple "
        "(default: %(default)s)",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--shape",
        default="160,192,224",
        metavar="X,Y,Z",
        help="size of the last rung, in voxels (default: %(default)s)",
    )
    network.add_argument(
        "--exported",
        default=None,
        type=Path,
        metavar="DIR",
        help="frozen.pb and contract.json that `python -m export` wrote elsewhere, where this machine has no "
        "TensorFlow 1.15 (default: export models/vm2)",
    )
    network.add_argument(
        "--reference-python",
        default=None,
        metavar="PATH",
        help="Python with TensorFlow 1.15 (default: $VXM_REFERENCE_PYTHON, else this Python)",
    )
    device = parser.add_argument_group("device")
    device.add_argument(
        "--device", default=0, type=_number, metavar="ID", help="number of the device (default: %(default)s)"
    )
    device.add_argument(
        "--soc-version", default=None, metavar="SOC", help="chip, as ATC names it (default: what the device says)"
    )
    add_toolchain_group(parser)


def unused_in_check(args: argparse.Namespace) -> Dict[str, str]:
    """Options that a parsed command line leaves without effect, for `vxm_convert.given.refuse_unused`."""
    climbing = ("--out", "--short", "--only", "--rung-seconds", "--shape", "--exported", "--reference-python")
    device = ("--device", "--soc-version", "--toolchain")
    return unless(args.compare is None, "--compare climbs nothing", *climbing, *device)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of seconds above 0")
    return value


def _number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a device number such as 0")
    return int(text)
