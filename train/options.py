# SPDX-License-Identifier: Apache-2.0
"""Options of ``python -m train`` and the settings they become."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Mapping, Optional, Tuple

from train.api import spec_and_cohort
from train.data.cohort import Cohort
from train.device_options import add_device_groups, check_npu_use, npu_settings, scale_settings
from train.devices.choice import choose_device
from train.settings.run import (
    AUGMENTATIONS,
    CONVOLUTIONS,
    DEFAULT_SMOOTHNESS,
    PAIRINGS,
    PENALTIES,
    DataSettings,
    LossSettings,
    SyntheticData,
    TrainSettings,
)
from vxm_convert.cliargs import add_common_group, help_texts
from vxm_convert.errors import SpecError
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LABEL_SETS
from vxm_convert.model.spec import INTEGRATION_STEPS, VARIANTS, parse_shape
from vxm_convert.parser import Parser
from vxm_convert.weights.box import checkpoint_or_box
from vxm_convert.weights.keras_h5 import INDEXINGS

LOG = logging.getLogger(__name__)


_USAGE = (
    "python -m train --data DIR|FILE [--atlas FILE] [--out DIR] [option ...]\n       python -m train VERB [option ...]"
)
#: options that --help shows; --help-all shows the others too
_COMMON = (
    "--data --atlas --out --init --resume --split --synthetic --variant --shape --batch --epochs --lr --seed --loss "
    "--lambda --dice-weight --device --verbose --quiet"
).split()
_EXAMPLES = (
    "python -m train --data scans --atlas atlas.npz --out build/train",
    "python -m train --data scans.csv --pairs scans --variant miccai2018 --split 0.8,0.1,0.1",
    "python -m train --data scans --atlas atlas.npz --resume",
    "python -m train prepare --data freesurfer_subjects --out build/prepared",
)


def build_parser(verbs: Optional[Mapping[str, str]] = None) -> argparse.ArgumentParser:
    """Options of training; `verbs` for the help: verb → one line about it."""
    parser = Parser(
        prog="python -m train",
        usage=_USAGE,
        verbs=tuple(verbs or ()),
        common=_COMMON,
        **help_texts(
            "Train a VoxelMorph network: register scans to one atlas, or to each other. Without a verb, train.",
            _EXAMPLES,
            {130: "stopped by Ctrl-C or SIGTERM; checkpoints are kept"},
            verbs,
        ),
    )
    _add_files(parser)
    _add_data(parser)
    _add_synthetic(parser)
    _add_model(parser)
    _add_training(parser)
    _add_losses(parser)
    add_device_groups(parser)
    add_common_group(parser)
    return parser


def settings_from(args: argparse.Namespace) -> Tuple[TrainSettings, Cohort]:
    """Settings and scans of a command line; the atlas gives the shape, and --shape must agree with it."""
    synthetic = None
    if args.synthetic:
        synthetic = SyntheticData(args.synthetic_heads, args.same_contrast, args.validation_pairs, args.makers)
    data = DataSettings(
        source=args.data,
        atlas=args.atlas,
        pairing=args.pairs,
        split=_shares(args.split),
        augment=tuple(name.strip() for name in args.augment.split(",") if name.strip()),
        cache=args.cache,
        synthetic=synthetic,
    )
    loss = LossSettings(
        args.loss,
        args.smoothness,
        args.penalty,
        args.prior_lambda,
        args.image_sigma,
        args.bidir,
        args.dice_weight,
        args.labels,
    )
    asked = None if args.shape is None else parse_shape(args.shape)
    spec, cohort = spec_and_cohort(data, args.variant, asked, args.batch, args.integration_steps or 0, args.seed)
    npu = npu_settings(args)
    device, why = choose_device(args.device)
    LOG.info("device: %s (%s)", device, why)
    check_npu_use(npu, device, why)
    return TrainSettings(
        data=data,
        out=args.out,
        spec=spec,
        loss=loss,
        learning_rate=args.lr,
        lr_half_life=args.lr_half_life,
        epochs=args.epochs,
        steps_per_epoch=args.steps_per_epoch,
        seed=args.seed,
        keep=args.keep,
        save_every=args.save_every,
        init=checkpoint_or_box(args.init, args.variant) if args.init is not None else None,
        h5_indexing=args.h5_indexing,
        resume=args.resume,
        threads=args.threads,
        convolutions=args.convolutions,
        tensorboard=not args.no_tensorboard,
        device=device,
        npu=npu,
        scale=scale_settings(args, device),
        workers=tuple(w.strip() for w in args.workers.split(",") if w.strip()),
        rank=args.rank,
        worker_timeout=args.worker_timeout,
    ), cohort


def _shares(text: str) -> Tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in text.split(","))
        return train, validation, test
    except ValueError as exc:
        raise SpecError(f"split: got {text!r}, expected three shares such as 0.8,0.1,0.1") from exc


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        "--data",
        default=None,
        type=Path,
        metavar="DIR|FILE",
        help="folder of scans on the network grid (.npz, .nii, .nii.gz, .mgz, .mgh, .hdr, .nrrd, .nhdr, .mha, .mhd), or a "
        "manifest: .csv with columns moving, fixed, seg, fixed_seg, split, or .txt with "
        "moving[,fixed[,seg]] per line (required unless --synthetic)",
    )
    files.add_argument(
        "--atlas",
        default=None,
        type=Path,
        metavar="FILE",
        help="fixed image, on the network grid (required unless --pairs scans, or the manifest names every fixed scan)",
    )
    files.add_argument(
        "--out",
        default=Path("build/train"),
        type=Path,
        metavar="DIR",
        help="folder for checkpoints, spec.json and logs (default: %(default)s)",
    )
    files.add_argument(
        "--init",
        default=None,
        type=Path,
        metavar="FILE|box",
        help="weights to start from: a TensorFlow checkpoint (also from an Ascend 910), a Keras .h5, or box for those in "
        "models/ (default: random)",
    )
    files.add_argument(
        "--h5-indexing",
        default="ij",
        choices=INDEXINGS,
        help="axis order of the flow in a .h5 file (default: %(default)s)",
    )
    files.add_argument(
        "--resume", action="store_true", help="continue exactly where the run in --out stopped (default: off)"
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("pairs")
    data.add_argument(
        "--pairs",
        default="atlas",
        choices=PAIRINGS,
        help="register every scan to the atlas, or to another scan drawn at random (default: %(default)s)",
    )
    data.add_argument(
        "--split",
        default="1,0,0",
        metavar="A,B,C",
        help="shares of the scans for training, validation and test, drawn by --seed; a column 'split' of the "
        "manifest has priority (default: %(default)s)",
    )
    data.add_argument(
        "--augment",
        default="",
        metavar="NAMES",
        help=f"any of {', '.join(AUGMENTATIONS)}, separated by commas: mirror left-right, change gain and gamma of the "
        "moving scan (default: none)",
    )
    data.add_argument(
        "--cache", action="store_true", help="keep decoded scans in memory, 4 bytes per voxel (default: off)"
    )


def _add_synthetic(parser: argparse.ArgumentParser) -> None:
    made = parser.add_argument_group("synthetic pairs")
    made.add_argument(
        "--synthetic",
        action="store_true",
        help="train on pairs that are made at random, of shapes and heads with any contrast, and on no scan at all; "
        "needs --shape (default: off)",
    )
    made.add_argument(
        "--synthetic-heads",
        default=0.5,
        type=float,
        metavar="SHARE",
        help="share of the pairs that show heads (default: %(default)s)",
    )
    made.add_argument(
        "--same-contrast",
        default=0.5,
        type=float,
        metavar="SHARE",
        help="share of the pairs whose two images have the same contrast (default: %(default)s)",
    )
    made.add_argument(
        "--validation-pairs",
        default=16,
        type=int,
        metavar="N",
        help="pairs that are registered after every epoch to rank the checkpoints (default: %(default)s)",
    )
    made.add_argument(
        "--makers",
        default=1,
        type=int,
        metavar="N",
        help="processes that make pairs; the pairs do not depend on it (default: %(default)s)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--variant",
        default="vm2",
        choices=sorted(VARIANTS),
        help="network variant; miccai2018 is the diffeomorphic one (default: %(default)s)",
    )
    model.add_argument(
        "--shape",
        default=None,
        metavar="X,Y,Z",
        help="network grid in voxels; atlas and scans must have it (default: that of the atlas)",
    )
    model.add_argument("--batch", default=1, type=int, metavar="N", help="pairs per step (default: %(default)s)")
    model.add_argument(
        "--integration-steps",
        default=None,
        type=int,
        metavar="N",
        help=f"scaling-and-squaring steps of miccai2018 (default: {INTEGRATION_STEPS})",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("training")
    run.add_argument(
        "--epochs",
        default=50,
        type=int,
        metavar="N",
        help="number of epochs; each ends with a checkpoint (default: %(default)s)",
    )
    run.add_argument(
        "--steps-per-epoch", default=None, type=int, metavar="N", help="steps per epoch (default: every scan once)"
    )
    run.add_argument(
        "--lr", default=1e-4, type=float, metavar="RATE", help="Adam's learning rate (default: %(default)s)"
    )
    run.add_argument(
        "--lr-half-life",
        default=None,
        type=int,
        metavar="STEPS",
        help="steps after which the learning rate is half as large, and so on (default: it stays)",
    )
    run.add_argument(
        "--seed",
        default=0,
        type=int,
        metavar="N",
        help="seed of initial weights, order of the scans, split, augmentation and sampling (default: %(default)s)",
    )
    run.add_argument(
        "--keep",
        default=5,
        type=int,
        metavar="N",
        help="number of newest checkpoints to keep, in addition to the best one in validation (default: %(default)s)",
    )
    run.add_argument(
        "--save-every",
        default=0,
        type=int,
        metavar="STEPS",
        help="steps between checkpoints within an epoch; 0: only at its end (default: %(default)s)",
    )
    run.add_argument(
        "--threads", default=0, type=int, metavar="N", help="CPU threads of TensorFlow; 0: all (default: %(default)s)"
    )
    run.add_argument(
        "--convolutions",
        default="auto",
        choices=CONVOLUTIONS,
        help="direct: TensorFlow's operations; blocks: the same sums in another order, several times faster on CPUs; "
        "auto: blocks on the CPU, direct elsewhere (default: %(default)s)",
    )
    run.add_argument(
        "--no-tensorboard", action="store_true", help="write no event files for TensorBoard (default: write them)"
    )


def _add_losses(parser: argparse.ArgumentParser) -> None:
    loss = parser.add_argument_group("losses")
    loss.add_argument(
        "--loss",
        default="mse",
        choices=sorted(DEFAULT_SMOOTHNESS),
        help="image loss: mean squared error, or local correlation in windows of 9x9x9 voxels (default: %(default)s)",
    )
    loss.add_argument(
        "--lambda",
        dest="smoothness",
        default=None,
        type=float,
        metavar="WEIGHT",
        help="weight of the smoothness loss of the flow (default: 0.01 with mse, 1.0 with ncc)",
    )
    loss.add_argument(
        "--penalty", default="l2", choices=PENALTIES, help="norm of the flow's gradient (default: %(default)s)"
    )
    loss.add_argument(
        "--prior-lambda",
        default=10.0,
        type=float,
        metavar="WEIGHT",
        help="miccai2018: strength of the velocity's smoothness prior (default: %(default)s)",
    )
    loss.add_argument(
        "--image-sigma",
        default=0.02,
        type=float,
        metavar="SIGMA",
        help="miccai2018: standard deviation of the image noise, intensity 0..1 (default: %(default)s)",
    )
    loss.add_argument(
        "--bidir",
        action="store_true",
        help="miccai2018: also compare the fixed image, warped by the inverse, with the moving image (default: off)",
    )
    loss.add_argument(
        "--dice-weight",
        default=0.0,
        type=float,
        metavar="WEIGHT",
        help="weight of 1 - soft Dice of the segmentations; 0: off (default: %(default)s)",
    )
    loss.add_argument(
        "--labels",
        default=DEFAULT_LABEL_SET,
        choices=sorted(LABEL_SETS),
        help="structures in the Dice loss and the validation Dice (default: %(default)s)",
    )
