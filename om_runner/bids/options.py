# SPDX-License-Identifier: Apache-2.0
"""BIDS options of the batch registration and the BIDS-App call. Reads no file."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from om_runner.bids.dataset import FILTER_KEYS, Choice
from om_runner.bids.names import SUFFIXES, is_label

PARTICIPANT, GROUP = LEVELS = ("participant", "group")


@dataclass(frozen=True)
class BidsRequest:
    """BIDS request of a command line: whether to write a derivative, which scans, and the label of the atlas."""

    write: bool = False
    choice: Choice = Choice()
    atlas_label: Optional[str] = None


def add_app_arguments(parser: argparse.ArgumentParser) -> None:
    """The three arguments that every BIDS App has."""
    parser.add_argument("input", type=Path, metavar="BIDS_DIR", help="BIDS dataset")
    parser.add_argument(
        "out", type=Path, metavar="OUT_DIR", help="folder of the derivative, for example BIDS_DIR/derivatives/NAME"
    )
    parser.add_argument(
        "level",
        choices=LEVELS,
        metavar="|".join(LEVELS),
        help="participant: register scans; group: rebuild the tables over all participant runs (needs neither atlas "
        "nor model)",
    )


def add_bids_group(parser: argparse.ArgumentParser, app: bool = False) -> None:
    """The group ``BIDS``; a BIDS-App call needs no ``--bids`` and also accepts the spelling with underscores."""
    group = parser.add_argument_group("BIDS")
    if not app:
        group.add_argument(
            "--bids",
            action="store_true",
            help="read --input as a BIDS dataset and write a BIDS derivative (default: write plain folders; a folder "
            "with dataset_description.json is read as BIDS anyway)",
        )
    group.add_argument(
        *(["--participant-label"] + ["--participant_label"] * app),
        dest="participant_label",
        nargs="+",
        type=_label("sub-"),
        default=None,
        metavar="LABEL",
        help="participants to register, with or without sub- (default: all)",
    )
    group.add_argument(
        *(["--session-label"] + ["--session_label"] * app),
        dest="session_label",
        nargs="+",
        type=_label("ses-"),
        default=None,
        metavar="LABEL",
        help="sessions to register, with or without ses- (default: all)",
    )
    group.add_argument(
        "--bids-filter",
        nargs="+",
        action="append",
        type=_filter,
        default=[],
        metavar="KEY=LABEL",
        help=f"scans to take: KEY is one of {', '.join(FILTER_KEYS)}; scans with space-, res- or desc- are taken only "
        "if a filter names them (default: suffix=T1w)",
    )
    group.add_argument(
        "--atlas-label",
        default=None,
        type=_label(""),
        metavar="LABEL",
        help="name of the atlas in space-LABEL of a derivative's files (default: letters and digits of its file name)",
    )
    if app:
        group.add_argument(
            "--skip-bids-validator", "--skip_bids_validator", action="store_true",
            help="accepted for compatibility with other BIDS Apps; the dataset is never validated (default: off)",
        )  # fmt: skip


def bids_from(args: argparse.Namespace) -> BidsRequest:
    """The parsed options."""
    filters = tuple(pair for group in args.bids_filter for pair in group)
    return BidsRequest(
        getattr(args, "bids", True),
        Choice(_tuple(args.participant_label), _tuple(args.session_label), filters),
        args.atlas_label,
    )


def _tuple(labels: Optional[List[str]]) -> Optional[Tuple[str, ...]]:
    return None if labels is None else tuple(labels)


def _label(prefix: str) -> Callable[[str], str]:
    def label(text: str) -> str:
        bare = text[len(prefix) :] if prefix and text.startswith(prefix) else text
        if not is_label(bare):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a BIDS label: letters, digits and +")
        return bare

    return label


def _filter(text: str) -> Tuple[str, str]:
    key, equals, label = text.partition("=")
    if not equals or key not in FILTER_KEYS or not is_label(label):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KEY=LABEL with KEY one of {', '.join(FILTER_KEYS)}")
    if key == "suffix" and label not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"got suffix {label}, expected one of {', '.join(SUFFIXES)}")
    return key, label
