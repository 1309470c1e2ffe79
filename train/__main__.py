# SPDX-License-Identifier: Apache-2.0
"""``python -m train``: options in, a folder of checkpoints out. Parses and reports; the work is in `train.loop`."""
from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import List, Optional

from train.pairs import PairSource, atlas_shape, find_scans
from train.settings import DEFAULT_SMOOTHNESS, PENALTIES, TrainSettings
from vxm_convert.artifacts import sha256_of
from vxm_convert.cliargs import add_common_group, run_main, set_up_logging
from vxm_convert.errors import EXIT_OK, VolumeError
from vxm_convert.spec import VARIANTS, ModelSpec, parse_shape

LOG = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Options of training."""
    parser = argparse.ArgumentParser(
        prog="python -m train", description="Train a VoxelMorph network on the CPU: every scan of a folder against one atlas.",
        epilog="exit codes: 0 done, 1 something to fix (one message), 2 usage")
    files = parser.add_argument_group("files")
    files.add_argument("--data", required=True, type=Path, metavar="DIR",
                       help="folder of scans on the network grid: .npz, .nii, .nii.gz, .mgz, .mgh (required)")
    files.add_argument("--atlas", required=True, type=Path, metavar="FILE", help="fixed image, on the network grid (required)")
    files.add_argument("--out", default=Path("build/train"), type=Path, metavar="DIR",
                       help="folder for checkpoints, spec.json, metrics.jsonl (default: %(default)s)")
    model = parser.add_argument_group("model")
    model.add_argument("--variant", default="vm2", choices=sorted(VARIANTS), help="network variant (default: %(default)s)")
    model.add_argument("--shape", default=None, metavar="X,Y,Z",
                       help="network grid in voxels, which atlas and scans must have (default: that of the atlas)")
    model.add_argument("--batch", default=1, type=int, metavar="N", help="pairs per step (default: %(default)s)")
    run = parser.add_argument_group("training")
    run.add_argument("--epochs", default=50, type=int, metavar="N", help="epochs; a checkpoint after each (default: %(default)s)")
    run.add_argument("--steps-per-epoch", default=None, type=int, metavar="N", help="steps in an epoch (default: every scan once)")
    run.add_argument("--lr", default=1e-4, type=float, metavar="RATE", help="Adam's learning rate (default: %(default)s)")
    run.add_argument("--loss", default="mse", choices=sorted(DEFAULT_SMOOTHNESS),
                     help="mse, or ncc: local correlation in windows of 9x9x9 voxels (default: %(default)s)")
    run.add_argument("--lambda", dest="smoothness", default=None, type=float, metavar="WEIGHT",
                     help="weight of the flow's smoothness (default: 0.01 with mse, 1.0 with ncc)")
    run.add_argument("--penalty", default="l2", choices=PENALTIES, help="norm of the flow's gradient (default: %(default)s)")
    run.add_argument("--seed", default=0, type=int, metavar="N", help="initial weights and order of the scans (default: %(default)s)")
    run.add_argument("--keep", default=5, type=int, metavar="N", help="newest checkpoints to keep (default: %(default)s)")
    add_common_group(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of `python -m train`."""
    args = build_parser().parse_args(argv)
    set_up_logging(args)
    return run_main(lambda: _train(args), "train")


def settings_from(args: argparse.Namespace) -> TrainSettings:
    """Settings of a command line; the shape comes from the atlas, and a given one must agree with it."""
    shape = atlas_shape(args.atlas)
    if args.shape is not None and parse_shape(args.shape) != shape:
        have = ",".join(str(n) for n in shape)
        raise VolumeError(f"{args.atlas}: the atlas has {have} voxels, --shape says {args.shape}; resample the atlas or leave --shape out")
    return TrainSettings(
        data=args.data, atlas=args.atlas, out=args.out, spec=ModelSpec(args.variant, shape, args.batch), learning_rate=args.lr,
        epochs=args.epochs, steps_per_epoch=args.steps_per_epoch, loss=args.loss, smoothness=args.smoothness, penalty=args.penalty,
        seed=args.seed, keep=args.keep,
    )


def _train(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    spec = settings.spec
    source = PairSource(find_scans(settings.data, settings.atlas), settings.atlas, spec.volume_shape, spec.batch, settings.seed)
    source.check_all()
    LOG.info("%s at %s on %d scans, loss %s + %g x flow gradient", spec.variant, "x".join(str(n) for n in spec.volume_shape),
             len(source.scans), settings.loss, settings.smoothness)
    from train.loop import train  # TensorFlow loads here, so that --help and bad options need none

    made_from = {"atlas": sha256_of(settings.atlas), **{"scan " + p.name: sha256_of(p) for p in source.scans}}
    last = train(settings, source, made_from)
    print(f"checkpoint: {last}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
