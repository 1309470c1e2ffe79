# SPDX-License-Identifier: Apache-2.0
"""Options that the batch registration and its verbs share, and the types of their numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from om_runner.device.offline_model import DEFAULT_MODEL
from om_runner.precision.reference import PYTHON_VARIABLE
from vxm_convert.text import whole_in


def add_model_options(group: argparse._ActionsContainer, note: str = "") -> None:
    """``--model`` and ``--contract``; `note` goes into the help of the first."""
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        type=Path,
        metavar="FILE",
        help=f"offline model{note} (default: %(default)s, which make export-om writes)",
    )
    group.add_argument(
        "--contract",
        default=None,
        type=Path,
        metavar="FILE",
        help="contract of the model (default: contract.json beside it)",
    )


def add_reference_python(group: argparse._ActionsContainer) -> None:
    """``--reference-python``."""
    group.add_argument(
        "--reference-python",
        default=None,
        metavar="PATH",
        help=f"Python with TensorFlow 1.15 for the reference (default: ${PYTHON_VARIABLE}, else this Python)",
    )


def add_device_group(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument_group("device").add_argument(
        "--device", default=0, type=_device, metavar="ID", help="number of the device (default: %(default)s)"
    )


def whole_number(text: str) -> int:
    """An argparse type: 1, 2, …"""
    number = whole_in(text)
    if number is None or number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return number


def _device(text: str) -> int:
    number = whole_in(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a device number such as 0")
    return number
