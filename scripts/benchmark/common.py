# SPDX-License-Identifier: Apache-2.0
"""What every benchmark says beside its figures: the machine, how busy it was, spreads; and the files that several
need.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import median
from typing import Any, Dict, Sequence

import numpy as np

from scripts.stages import run_stage
from vxm_convert.model.spec import SIDE_MULTIPLE

GIB = float(1 << 30)
#: load average per CPU above which other work is likely to have disturbed the times
BUSY = 0.3
_SMALL_SHAPE = ",".join([str(2 * SIDE_MULTIPLE)] * 3)


def machine() -> Dict[str, Any]:
    """Processor, Python and load at this moment; `idle` says whether seconds can be trusted, or ratios only."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load_per_cpu": round(load, 2),
        "idle": load <= BUSY,
    }


def spread(values: Sequence[float]) -> Dict[str, Any]:
    """Median, extremes and how many values they rest on."""
    return {
        "median": round(median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "n": len(values),
    }


def make_checkpoint(out: Path, variant: str) -> Path:
    """Weights from a training of two steps at a small size: almost random, which costs the same as trained ones."""
    small, trained = str(out / "small"), out / "train"
    run_stage(["vxm_convert", "phantom", "--out", small, "--shape", _SMALL_SHAPE, "--subjects", "1", "--quiet"])
    run_stage(
        [
            "train",
            "--data",
            small + "/scans",
            "--atlas",
            small + "/atlas.npz",
            "--out",
            str(trained),
            "--variant",
            variant,
            "--epochs",
            "1",
            "--steps-per-epoch",
            "2",
            "--quiet",
        ]
    )
    return trained
