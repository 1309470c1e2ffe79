# SPDX-License-Identifier: Apache-2.0
"""``python -m train``: options in, a folder of checkpoints out. Parses and reports; the work is in `train.loop`."""
from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Dict, List, Optional

from train.cohort import Cohort, segmentation_of
from train.options import build_parser, settings_from
from train.precheck import check_cohort
from train.settings import TrainSettings
from vxm_convert.artifacts import sha256_of
from vxm_convert.cliargs import run_main, set_up_logging
from vxm_convert.errors import EXIT_OK

LOG = logging.getLogger(__name__)


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of `python -m train`."""
    args = build_parser().parse_args(argv)
    set_up_logging(args)
    return run_main(lambda: _train(args), "train")


def sources_of(cohort: Cohort, atlas: Optional[Path]) -> Dict[str, str]:
    """Role → sha256 of every file a run reads; scans of one name are told apart by their folders."""
    files = {path: None for s in cohort.subjects for path in (s.moving, s.fixed, s.seg, s.fixed_seg) if path is not None}
    names = [path.name for path in files]
    made_from = {"scan " + (p.name if names.count(p.name) == 1 else str(p)): sha256_of(p) for p in files}
    return {**({"atlas": sha256_of(atlas)} if atlas is not None else {}), **made_from}


def _train(args: argparse.Namespace) -> int:
    settings, cohort = settings_from(args)
    atlas_seg = segmentation_of(settings.data.atlas) if settings.data.atlas is not None else None
    check_cohort(cohort, settings.data.atlas, atlas_seg, settings.spec.volume_shape, settings.loss.dice_weight > 0)
    LOG.info("%s", _headline(settings, cohort))
    from train.loop import train  # TensorFlow loads here, so that --help and bad options need none

    trained = train(settings, cohort, sources_of(cohort, settings.data.atlas))
    if trained.best is not None:
        print(f"best checkpoint: {trained.best}")
    print(f"checkpoint: {trained.last}")
    return EXIT_OK


def _headline(settings: TrainSettings, cohort: Cohort) -> str:
    spec, loss = settings.spec, settings.loss
    terms = (f"mse / {loss.image_sigma:g}^2 + divergence with prior {loss.prior_lambda:g}" if spec.diffeomorphic
             else f"{loss.image} + {loss.smoothness:g} x flow gradient")
    terms += f" + {loss.dice_weight:g} x (1 - Dice of {loss.labels})" if loss.dice_weight else ""
    counts = f"{len(cohort.train)} scans, {len(cohort.validation)} for validation, {len(cohort.test)} for test"
    return f"{spec.variant} at {'x'.join(str(n) for n in spec.volume_shape)} on {counts}; loss {terms}"


if __name__ == "__main__":
    sys.exit(main())
