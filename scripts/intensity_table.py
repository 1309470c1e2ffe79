# SPDX-License-Identifier: Apache-2.0
"""``make intensity-table``: what each rule of ``--intensity`` keeps of the Dice gain when scans change their intensities.

Writes altered copies of the given scans, registers them as a user would, and reads the runner's tables.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from scripts.stages import fresh_folder, run_stage
from vxm_convert.artifacts.files import write_text
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, VolumeError
from vxm_convert.scans.npz import write_npz
from vxm_convert.scans.scan_file import ScanFile

LOG = logging.getLogger(__name__)
TABLE_NAME = "intensity_table.md"
#: share of the convention's gain that a match must keep
KEPT = 0.95


def shading(shape: Sequence[int]) -> np.ndarray:
    """(X, Y, Z) float32: a slow factor of 0.56 to 1.44, as a receive coil leaves it."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    exponent = 0.6 * x - 0.5 * y * y + 0.7 * z * x + 0.4 * y
    return np.exp(np.log(1.3) * exponent).astype(np.float32)


#: name → change of network intensities (X, Y, Z), 0 outside the brain
CHANGES: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda v: v,
    "times 3000, plus 200": lambda v: v * 3000 + 200,
    "gamma 0.7": lambda v: v ** np.float32(0.7) * 1000,
    "gamma 1.4": lambda v: v ** np.float32(1.4) * 1000,
    "shading 0.56..1.44": lambda v: v * shading(v.shape) * 1000,
}


def build_parser() -> argparse.ArgumentParser:
    """Options of the table."""
    parser = argparse.ArgumentParser(
        prog="make intensity-table",
        description="Change the intensities of scans, register them with every rule, print Dice before and after.",
        epilog="exit codes: 0 done and the match keeps 95 % of the gain everywhere, 1 something to fix, 2 usage, "
        "3 it keeps less",
    )
    parser.add_argument(
        "--input", required=True, type=Path, metavar="DIR", help="folder of .npz scans with `vol` 0..255 and `seg`"
    )
    parser.add_argument("--atlas", required=True, type=Path, metavar="FILE", help="fixed image with segmentation")
    parser.add_argument("--model", required=True, type=Path, metavar="FILE", help="offline model (.om)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/intensity_table"),
        metavar="DIR",
        help="where everything goes (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the table."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_main(lambda: _table(args), "intensity-table")


def _table(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out)
    scans = [path for path in sorted(args.input.glob("*.npz")) if path.resolve() != args.atlas.resolve()]
    rows: Dict[str, List[Dict[str, str]]] = {"convention": _register(args, args.input, "convention", out)}
    rows["percentile"] = _register(args, args.input, "percentile", out)
    for number, (name, change) in enumerate(CHANGES.items()):
        folder = out / f"changed_{number}"
        folder.mkdir()
        for path in scans:
            write_changed(path, change, folder / path.name)
        rows[f"match, {name}"] = _register(args, folder, "match", out / f"changed_{number}_registered")
    text, passed = _markdown(rows)
    write_text(out / TABLE_NAME, text)
    sys.stdout.write(f"\n{text}\n{out / TABLE_NAME}\n")
    return EXIT_OK if passed else EXIT_TOLERANCE


def write_changed(path: Path, change: Callable[[np.ndarray], np.ndarray], target: Path) -> None:
    """Write an ``.npz`` of a scan with its network intensities changed; VolumeError if it has no segmentation."""
    scan = ScanFile(path)
    labels = scan.labels()
    if labels is None:
        raise VolumeError(f"{path}: holds no array `seg`; expected scans with segmentations")
    changed = change(scan.image().data / np.float32(255)).astype(np.float32)
    write_npz(target, {"vol": changed, "seg": labels.data})


def _register(args: argparse.Namespace, folder: Path, rule: str, out: Path) -> List[Dict[str, str]]:
    target = out / rule if rule != "match" else out
    paths = ["--input", str(folder), "--atlas", str(args.atlas), "--model", str(args.model), "--out", str(target)]
    run_stage(["om_runner", *paths, "--intensity", rule, "--compare", "none", "--outputs", "warp", "--quiet"])
    with open(str(target / "metrics.tsv"), encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def _markdown(rows: Dict[str, List[Dict[str, str]]]) -> Tuple[str, bool]:
    """The table, and whether every match keeps its share of the gain."""
    gains = {name: float(np.mean([_gain(row) for row in found])) for name, found in rows.items()}
    subjects = [row["subject"] for row in rows["convention"]]
    lines = [f"| rule, scans | {' | '.join(subjects)} | mean gain | kept |", "|---|" + "---|" * (len(subjects) + 2)]
    for name, found in rows.items():
        cells = " | ".join(f"{float(row['dice_after']):.3f}" for row in found)
        share = gains[name] / gains["convention"]
        lines.append(f"| {name} | {cells} | {gains[name]:.4f} | {share:.0%} |")
    before = ", ".join(f"{float(row['dice_before']):.3f}" for row in rows["convention"])
    lines += ["", f"Dice before: {before}. n = {len(subjects)} scans; toolchain: {rows['convention'][0]['toolchain']}."]
    kept = all(gains[name] >= KEPT * gains["convention"] for name in gains if name.startswith("match"))
    return "\n".join(lines) + "\n", kept


def _gain(row: Dict[str, str]) -> float:
    return float(row["dice_after"]) - float(row["dice_before"])


if __name__ == "__main__":
    sys.exit(main())
