# SPDX-License-Identifier: Apache-2.0
"""Registers ten scans of a folder from Python; the model is loaded once, and a bad scan does not stop the others."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import List, Optional

from om_runner import Failure, Registrar


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="offline model (.om), with contract.json beside it")
    parser.add_argument("--atlas", required=True, type=Path, help="fixed image")
    parser.add_argument("--input", required=True, type=Path, help="folder of scans")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    args = parser.parse_args(argv)

    scans = sorted(path for path in args.input.iterdir() if path.is_file() and "_seg." not in path.name)[:10]
    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with Registrar(args.model, args.atlas) as register, open(str(args.out / "table.csv"), "w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["scan", "Dice before", "Dice after", "folded, %", "warnings"])
        for result in register.many(scans, on_error="yield"):
            if isinstance(result, Failure):
                failed += 1
                print(f"{result.name}: {result.error}")
                continue
            result.moved.to_filename(str(args.out / f"{result.name}_moved.nii.gz"))
            result.warp.save(args.out / f"{result.name}_warp_fsl.nii.gz", "fsl")
            figures = result.metrics
            folded = 100 * figures.folding_fraction
            table.writerow([result.name, figures.dice_before, figures.dice_after, folded, "; ".join(result.warnings)])
            print(f"{result.name}: longest displacement {figures.flow_max_voxel:.2f} voxels, {folded:.3f} % folded")
    print(f"{len(scans) - failed} of {len(scans)} scans registered, table in {args.out / 'table.csv'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
