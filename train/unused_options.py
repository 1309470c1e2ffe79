# SPDX-License-Identifier: Apache-2.0
"""Options of ``python -m train`` that other options leave without effect, for `vxm_convert.given.refuse_unused`."""

from __future__ import annotations

import argparse
from typing import Dict

from vxm_convert.given import unless
from vxm_convert.model.spec import DIFFEOMORPHIC_VARIANTS

_SYNTHETIC = ("--synthetic-heads", "--same-contrast", "--validation-pairs", "--makers")
_OF_SCANS = ("--pairs", "--split", "--augment", "--cache", "--labels")
_OF_VELOCITIES = ("--prior-lambda", "--image-sigma")


def unused_options(args: argparse.Namespace) -> Dict[str, str]:
    """Option → why it has no effect."""
    velocity = args.variant in DIFFEOMORPHIC_VARIANTS
    return {
        **unless(args.init is not None, "no weights are read; it goes with --init", "--h5-indexing"),
        **unless(args.synthetic, "no pairs are made; it goes with --synthetic", *_SYNTHETIC),
        **unless(not args.synthetic, "--synthetic uses no scan", *_OF_SCANS),
        **unless(velocity, f"{args.variant} has no velocity; it goes with --variant miccai2018", *_OF_VELOCITIES),
        **unless(not velocity, "the prior of miccai2018 smooths; it has --prior-lambda", "--lambda", "--penalty"),
        **_scaling(args),
        **unless(bool(args.workers), "one process trains; it goes with --workers", "--worker-timeout"),
        # NPUs that find each other by CM_CHIEF_IP have ranks without --workers.
        **unless(
            bool(args.workers) or args.device in ("npu", "auto"), "one process trains; it goes with --workers", "--rank"
        ),
        **unless(args.data_dump, "nothing is dumped; it goes with --data-dump", "--data-dump-step"),
    }


def _scaling(args: argparse.Namespace) -> Dict[str, str]:
    steps = ("--loss-scale-grow-every", "--loss-scale-shrink-after")
    if args.loss_scale == "none":
        return unless(False, "--loss-scale none scales nothing", "--loss-scale-value", *steps)
    return unless(args.loss_scale != "fixed", "--loss-scale fixed keeps its value", *steps)
