# SPDX-License-Identifier: Apache-2.0
"""Sends one scan through two offline models, such as two precision plans of one network, and compares the results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import List, Optional

import numpy as np

from om_runner import Registrar


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", required=True, nargs=2, type=Path, help="two offline models (.om)")
    parser.add_argument("--atlas", required=True, type=Path, help="fixed image")
    parser.add_argument("--scan", required=True, type=Path, help="moving image")
    args = parser.parse_args(argv)

    results = []
    for model in args.models:
        with Registrar(model, args.atlas) as register:
            results.append(register(args.scan))
        print(f"{model}: {results[-1].metrics.device_seconds:.3f} s{' (SIMULATED)' if results[-1].simulated else ''}")
    first, second = results
    distance = np.linalg.norm(first.flow.astype(np.float64) - second.flow, axis=-1)
    print(
        f"flow, voxels: mean {distance.mean():.4g}, 99.9 % {np.percentile(distance, 99.9):.4g}, max {distance.max():.4g}"
    )
    before, after = first.metrics.dice_after, second.metrics.dice_after
    if before is not None and after is not None:
        print(f"mean Dice ({first.metrics.label_set}): {before:.4f} and {after:.4f}, difference {after - before:+.2g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
