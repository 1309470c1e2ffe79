# SPDX-License-Identifier: Apache-2.0
"""Reading and writing one scan and one warp: this project's way against plain nibabel, same arrays, same run."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import nibabel as nib
import numpy as np

from om_runner.names import MOVED_NAME
from scripts.benchmark.common import machine, spread
from vxm_convert.artifacts.files import check_output_folder, write_json
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, SpecError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.model.spec import Shape3, parse_shape
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.synthetic.heads import PhantomSettings, make_atlas, random_velocity
from vxm_convert.transforms.warps import write_warp

RESULT_NAME = "files.json"
_SEED = 5
_MB = 1e6


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.files",
        description="Seconds and sizes of reading and writing a scan and a warp.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/files"),
        metavar="DIR",
        help=f"folder for {RESULT_NAME} and for temporary files (default: %(default)s)",
    )
    parser.add_argument("--shape", default="160,192,224", metavar="X,Y,Z", help="grid in voxels (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="times each, the median counts (default: %(default)s)"
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "files")


def _bench(args: argparse.Namespace) -> int:
    if args.repeats < 1:
        raise SpecError(f"repeats: got {args.repeats}, expected at least 1; pass --repeats 3")
    shape = parse_shape(args.shape)
    out = check_output_folder(args.out)
    with tempfile.TemporaryDirectory(prefix=".files-", dir=str(out)) as work:
        rows = measure(Path(work), shape, args.repeats)
    result = {"schema": 1, "kind": "files benchmark", "shape": list(shape), "machine": machine(), "rows": rows}
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK


def measure(work: Path, shape: Shape3, repeats: int) -> List[Dict[str, Any]]:
    """Every operation: name, who, seconds (spread), megabytes on disk."""
    settings = PhantomSettings(shape, 1, _SEED)
    affine = network_affine(shape)
    grid = Grid(shape, affine)
    scan = make_atlas(settings).vol.astype(np.float32) / np.float32(255)
    flow = np.moveaxis(random_velocity(settings, np.random.RandomState(_SEED)), 0, -1).astype(np.float32)
    # A network's flow has structure down to the voxel; without it gzip would look better than it is.
    flow += (
        np.float32(0.05)
        * np.random.RandomState(_SEED).standard_normal(flow.shape).astype(np.float32)
        * (scan[..., np.newaxis] > 0)
    )
    moved, plain, warp, plain_warp = (
        work / name for name in (MOVED_NAME, "plain.nii.gz", "warp.nii.gz", "plain_warp.nii.gz")
    )
    vectors = nib.Nifti1Image(flow[:, :, :, np.newaxis], affine)
    operations = [
        ("write a moved scan, float32 .nii.gz", "vxm_convert", lambda: write_nifti(moved, scan, affine), moved),
        (
            "write a moved scan, float32 .nii.gz",
            "nibabel",
            lambda: nib.save(nib.Nifti1Image(scan, affine), str(plain)),
            plain,
        ),
        ("read a scan, float32 .nii.gz", "vxm_convert", lambda: ScanFile(moved).image(), moved),
        ("read a scan, float32 .nii.gz", "nibabel", lambda: np.asanyarray(nib.load(str(plain)).dataobj), plain),
        ("write a warp, float32 .nii.gz", "vxm_convert", lambda: write_warp(warp, Warp(flow, grid, grid)), warp),
        ("write a warp, float32 .nii.gz", "nibabel", lambda: nib.save(vectors, str(plain_warp)), plain_warp),
    ]
    return [
        {"operation": name, "by": by, "seconds": _time(run, repeats), "megabytes": round(path.stat().st_size / _MB, 2)}
        for name, by, run, path in operations
    ]


def _time(run: Callable[[], Any], repeats: int) -> Dict[str, Any]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return spread(seconds)


def table(result: Dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'operation':40s}{'by':14s}{'s (median)':>11s}{'n':>4s}{'MB':>9s}"]
    for row in result["rows"]:
        lines.append(
            f"{row['operation']:40s}{row['by']:14s}{row['seconds']['median']:11.3f}{row['seconds']['n']:4d}{row['megabytes']:9.2f}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
