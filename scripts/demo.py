# SPDX-License-Identifier: Apache-2.0
"""``make demo``: the whole chain once, on a synthetic cohort it makes itself. No download, a few minutes on two
cores.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import List, Optional

from om_runner.names import QC_FOLDER
from scripts.stages import column_mean, fresh_folder, read_table, run_stage
from vxm_convert.artifacts.names import METRICS_NAME, OM_NAME, PRECISION_FOLDER, REPORT_PAGE
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK
from vxm_convert.weights.box import WORD as BOX

LOG = logging.getLogger(__name__)

SHAPE = "32,48,48"
VARIANT = "vm1"
BOX_VARIANT = "vm2"
SUBJECTS = "4"
#: Few steps with a large rate: enough that the scans visibly move onto the atlas, far from a finished training.
TRAINING = ["--epochs", "8", "--steps-per-epoch", "20", "--lr", "2e-3", "--keep", "1"]


def build_parser() -> argparse.ArgumentParser:
    """Options of the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description="Cohort, training, export, registration, report.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/demo"),
        metavar="DIR",
        help="where everything goes (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the demo."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _demo(args.out), "demo")


def _demo(out: Path) -> int:
    start = time.time()
    fresh_folder(out)
    cohort, trained, model, registered = out / "cohort", out / "train", out / "vxm", out / "registered"
    box, by_box = out / "box", out / "registered_by_box"
    scans, atlas = str(cohort / "scans"), str(cohort / "atlas.npz")
    steps = (
        (
            "making a synthetic cohort",
            ["vxm_convert", "phantom", "--out", str(cohort), "--shape", SHAPE, "--subjects", SUBJECTS],
        ),
        (
            "training",
            ["train", "--data", scans, "--atlas", atlas, "--out", str(trained), "--variant", VARIANT] + TRAINING,
        ),
        (
            "exporting",
            ["export", "--checkpoint", str(trained), "--variant", VARIANT, "--shape", SHAPE, "--out", str(model)],
        ),
        (
            "registering",
            [
                "om_runner",
                "--input",
                scans,
                "--atlas",
                atlas,
                "--model",
                str(model / OM_NAME),
                "--out",
                str(registered),
                "--outputs",
                "moved,warp,seg,qc",
                "--compare",
                "1",
            ],
        ),
        (
            "exporting the weights that come with the source",
            ["export", "--checkpoint", BOX, "--variant", BOX_VARIANT, "--shape", SHAPE]
            + ["--skip-onnx", "--out", str(box)],
        ),
        (
            "registering with them",
            ["om_runner", "--input", scans, "--atlas", atlas, "--model", str(box / OM_NAME), "--out", str(by_box)]
            + ["--outputs", "moved,warp,seg", "--compare", "none"],
        ),
        (
            "verifying the chain of files",
            ["vxm_convert", "verify", "--quiet"] + [str(one) for one in (trained, model, registered, box, by_box)],
        ),
    )
    for number, (title, arguments) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {title}: python -m {' '.join(arguments)}", flush=True)
        ran = run_stage(arguments)
        print(f"[{number}/{len(steps)}] done in {ran.seconds:.0f} s", flush=True)
    _report(registered, by_box, time.time() - start)
    return EXIT_OK


def _report(registered: Path, by_box: Path, seconds: float) -> None:
    rows, box_rows = read_table(registered / METRICS_NAME), read_table(by_box / METRICS_NAME)
    before, after = column_mean(rows, "dice_before"), column_mean(rows, "dice_after")
    print(
        f"\nDone in {seconds:.0f} s. The scans are synthetic and the training was brief: these figures show that the "
        "chain works, and nothing else."
    )
    print(f"  mean Dice     {before:.3f} before, {after:.3f} after registration ({len(rows)} scans)")
    print(
        f"                {column_mean(box_rows, 'dice_after'):.3f} with the weights in models/, made for brains of 1 mm "
        "voxels, which these are not"
    )
    print(f"  pictures      {registered / QC_FOLDER / 'index.html'}")
    print(f"  moved scans   {registered}/<subject>/moved.nii.gz")
    print(f"  warps         {registered}/<subject>/flow.nii.gz")
    print(f"  table         {registered / METRICS_NAME}")
    print(f"  report        {registered / PRECISION_FOLDER / REPORT_PAGE}")


if __name__ == "__main__":
    sys.exit(main())
