# SPDX-License-Identifier: Apache-2.0
"""Options about several devices and machines."""

from __future__ import annotations

import argparse
import os
import re
from typing import List, Optional, Union

from vxm_convert.errors import ToolchainError
from vxm_convert.toolchain.devices import device_nodes

ALL = "all"
#: number of simulated devices
SIMULATED_VARIABLE = "VXM_SIM_DEVICES"


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """``--devices`` and ``--scheduler``."""
    group = parser.add_argument_group("several devices")
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "--devices",
        default=None,
        type=_devices,
        metavar="LIST|all",
        help="register on several devices of this host at the same time, such as 0,1,2 or all, with a process for each "
        "(default: the one of --device)",
    )
    choice.add_argument(
        "--scheduler",
        default=None,
        metavar="ADDRESS",
        help="register on the workers of a running Dask cluster, such as tcp://host:8786 (default: on this host)",
    )


def devices_from(args: argparse.Namespace, simulated: bool) -> Optional[List[int]]:
    """The devices that were asked for; raises ToolchainError for ``all`` where there is none."""
    if args.devices != ALL:
        return args.devices  # type: ignore[no-any-return]
    if simulated:
        return list(range(int(os.environ.get(SIMULATED_VARIABLE) or 1)))
    found = sorted(int(re.sub(r"\D", "", name)) for name in device_nodes()[0])
    if not found:
        raise ToolchainError(
            "--devices all: this host has no device (/dev/davinci0 and so on); name them, or see "
            "`python -m vxm_convert doctor`"
        )
    return found


def _devices(text: str) -> Union[str, List[int]]:
    if text == ALL:
        return ALL
    words = text.split(",")
    if not all(word.isdigit() for word in words) or len(set(words)) != len(words):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected all, or different device numbers such as 0,1,2")
    return [int(word) for word in words]
