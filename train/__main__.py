# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""``python -m train``: options in, a folder of checkpoints out. Parses and reports; the work is in `train.run.loop`."""

from __future__ import annotations

import vxm_convert.interrupts  # noqa: F401 -- before anything that takes time

# isort: split
import argparse
import importlib
import sys
from typing import Dict, List, Optional, Tuple

from train.api import train_with
from train.options import build_parser, settings_from
from train.unused_options import unused_options
from vxm_convert.artifacts.targets import check_apart
from vxm_convert.cliargs import run_main, set_up_logging
from vxm_convert.errors import EXIT_OK
from vxm_convert.given import refuse_unused
from vxm_convert.parser import command_line

#: first word of the command line → (module with ``main(argv) -> int``, one line of help); any other start trains
VERBS: Dict[str, Tuple[str, str]] = {
    "evaluate": ("train.evaluate.command", "score a checkpoint: Dice per structure, before and after registration"),
    "rank-table": ("train.settings.rank_table", "write HCCL's rank table for training on several NPUs"),
    "prepare": ("train.prepare.command", "register scans and segmentations to one reference, on the network grid"),
}


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of `python -m train`."""
    words = command_line(argv)
    if words and words[0] in VERBS:
        return int(importlib.import_module(VERBS[words[0]][0]).main(list(words[1:])))
    parser = build_parser({verb: text for verb, (_, text) in VERBS.items()})
    args = parser.parse_args(words)
    refuse_unused(parser, words, unused_options(args))
    set_up_logging(args)
    return run_main(lambda: _train(args), "train")


def _train(args: argparse.Namespace) -> int:
    if args.data is not None:
        check_apart(args.out, args.data, "--data")
    trained = train_with(*settings_from(args))
    if trained.best is not None:
        print(f"best checkpoint: {trained.best}")
    print(f"checkpoint: {trained.last}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
