# SPDX-License-Identifier: Apache-2.0
"""Where the search for an affine ends from random starts: compiled loops and SimpleITK, how often each fails, how far
apart they end, what they cost. Results are kept one by one, so that a run which was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.affine.affine_search import Target, search_affine
from vxm_convert.artifacts.files import check_output_folder, write_text
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.model.spec import parse_shape
from vxm_convert.scans.conform import Placement, brain_mask, conform, network_grid_of
from vxm_convert.scans.scan_file import ScanFile

ROWS_NAME, TABLE_NAME = "searches.jsonl", "affine_table.md"
ENGINES = ("numba", "scipy")
_TITLES = {"numba": "compiled loops", "scipy": "SimpleITK"}
#: a search is off if it ends this far from the middle of its own results for that scan, mm
_OFF_MM = 2.0
#: of the brain's voxels, for distances
_EVERY = 499

Row = Dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """Options of the table."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.affine_table",
        description="Search the affine of scans from random starts, by compiled loops and by SimpleITK; print failures, "
        "distances and CPU-seconds. The starts are dealt out to the scans in turn.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument("--input", required=True, nargs="+", type=Path, metavar="FILE", help="scans without skull")
    parser.add_argument("--atlas", required=True, type=Path, metavar="FILE", help="fixed image without skull")
    parser.add_argument(
        "--shape", default="160,192,224", metavar="X,Y,Z", help="network grid in voxels (default: %(default)s)"
    )
    parser.add_argument(
        "--coarser",
        type=int,
        default=1,
        metavar="N",
        help="average cubes of N voxels of scans and atlas, which takes less time (default: %(default)s)",
    )
    parser.add_argument(
        "--engines", nargs="+", default=list(ENGINES), choices=ENGINES, help="which searches (default: both)"
    )
    parser.add_argument("--starts", type=int, default=200, metavar="N", help="of each engine (default: %(default)s)")
    parser.add_argument(
        "--most",
        type=float,
        nargs=2,
        default=[30.0, 30.0],
        metavar=("DEGREES", "MM"),
        help="of a start (default: 30 30)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=None,
        metavar="M",
        help="stop after these; the same command goes on (no default)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/affine_table"),
        metavar="DIR",
        help=f"folder of {ROWS_NAME} and {TABLE_NAME} (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the table."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _table(args), "affine-table")


def _table(args: argparse.Namespace) -> int:
    out = check_output_folder(args.out)
    target = target_of(args.atlas, args.shape, args.coarser)
    scans = {path.name: path for path in args.input}
    rows, end = read_rows(out / ROWS_NAME), time.time() + 60 * (1e6 if args.minutes is None else args.minutes)
    done = {(row["engine"], row["scan"], row["start"]) for row in rows}
    for engine, name, start in _wanted(args.engines, list(scans), args.starts):
        if (engine, name, start) in done or time.time() > end:
            continue
        image, grid = coarser(ScanFile(scans[name]).image().data, ScanFile(scans[name]).grid, args.coarser)
        rows.append({"scan": name, **searched(target, image, grid, engine, start, args.most)})
        # One write a line: a run that is killed leaves whole lines, but the last.
        with open(str(out / ROWS_NAME), "a", encoding="utf-8") as handle:
            handle.write(json.dumps(rows[-1]) + "\n")
    points = apply_affine(target.grid.affine, np.argwhere(brain_mask(target.image))[::_EVERY])
    text = table(rows, points)
    write_text(out / TABLE_NAME, text)
    print(text + f"{out / TABLE_NAME}")
    return EXIT_OK


def target_of(path: Path, shape: str, step: int) -> Target:
    """An atlas on the network grid: as it is if it has that shape, else with the grid placed in it, as the runner does."""
    atlas, sides = ScanFile(path), parse_shape(shape)
    image, grid = atlas.image().data, atlas.grid
    if grid.shape != sides:
        network = network_grid_of(image, grid, sides, NetworkAxes())
        image, grid = conform(image, Placement(network, grid, Affine(np.eye(4)))), network
    return Target(*coarser(image, grid, step))


def coarser(image: np.ndarray, grid: Grid, step: int) -> Tuple[np.ndarray, Grid]:
    """An image of cubes of `step` voxels averaged; voxels beyond the last whole cube are left out."""
    if step == 1:
        return image, grid
    x, y, z = (side // step for side in grid.shape)
    cubes = image[: x * step, : y * step, : z * step].reshape(x, step, y, step, z, step)
    wide = np.diag([float(step)] * 3 + [1.0])
    wide[:3, 3] = (step - 1) / 2
    return cubes.mean(axis=(1, 3, 5), dtype=np.float32), Grid((x, y, z), grid.affine @ wide)


def _wanted(engines: Sequence[str], scans: Sequence[str], starts: int) -> Iterator[Tuple[str, str, int]]:
    for number in range(starts):
        for engine in engines:
            yield engine, scans[number % len(scans)], number // len(scans)


def searched(target: Target, image: np.ndarray, grid: Grid, engine: str, start: int, most: Sequence[float]) -> Row:
    """One search. The first start of a scan is where its header puts it; `pull` is the result as seen from there."""
    way, pull = somewhere(start, *most), None
    if engine == "numba":
        # Once for all scans of a cohort, so no part of one.
        target.sampled()
    begun = time.process_time()
    try:
        found = search_affine(target, image, Grid(grid.shape, way @ grid.affine), compiled=engine == "numba")
        pull = (np.linalg.inv(way) @ found.affine.pull).tolist()
    except VolumeError as exc:
        sys.stderr.write(f"start {start}: {exc}\n")
    return {"engine": engine, "start": start, "cpu_seconds": round(time.process_time() - begun, 3), "pull": pull}


def somewhere(start: int, degrees: float, mm: float) -> np.ndarray:
    """A rotation up to so many degrees and a shift up to so many mm, by the number of the start; none for the first."""
    random, found = np.random.RandomState(start), np.eye(4)
    if start:
        axis, shift = random.normal(size=3), random.normal(size=3)
        x, y, z = axis / np.linalg.norm(axis)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        angle = np.deg2rad(degrees * random.uniform())
        found[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        found[:3, 3] = shift / np.linalg.norm(shift) * mm * random.uniform()
    return found


def read_rows(path: Path) -> List[Row]:
    """The searches of earlier runs; half a line at the end is not counted."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1]:
        # Cut in the middle: what is added next must stand in a line of its own.
        os.truncate(str(path), path.stat().st_size - len(lines[-1].encode("utf-8")))
    return [json.loads(line) for line in lines[:-1]]


def apart(one: np.ndarray, other: np.ndarray, points: np.ndarray) -> Tuple[float, float]:
    """Mean distance (mm) of points after one matrix from the same after another, and the angle between the two."""
    left, _, right = np.linalg.svd(one[:3, :3] @ np.linalg.inv(other[:3, :3]))
    angle = np.rad2deg(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1)))
    off = apply_affine(one, points) - apply_affine(other, points)
    return float(np.linalg.norm(off, axis=-1).mean()), float(angle)


def table(rows: Sequence[Row], points: np.ndarray) -> str:
    """Failures and costs of each engine; then how far apart both end, for the starts that both were given.

    Parameters
    ----------
    points : ndarray, shape (n, 3) — of the atlas's brain, RAS mm.
    """
    lines = [
        f"| search | scan | n | refused | off by more than {_OFF_MM:g} mm | mm from its middle, mean (largest) | CPU-s, median |",
        "|---|---|---|---|---|---|---|",
    ]
    middles: Dict[Tuple[str, str], np.ndarray] = {}
    for engine in ENGINES:
        whole: List[Tuple[List[Row], List[float]]] = []
        for name in sorted({row["scan"] for row in rows if row["engine"] == engine}):
            mine = [row for row in rows if (row["engine"], row["scan"]) == (engine, name)]
            pulls = [np.array(row["pull"]) for row in mine if row["pull"] is not None]
            if pulls:
                middles[engine, name] = np.median(pulls, axis=0)
            whole.append((mine, [apart(pull, middles[engine, name], points)[0] for pull in pulls]))
            lines.append(_line(engine, name, *whole[-1]))
        if len(whole) > 1:
            lines.append(_line(engine, "all", sum((m for m, _ in whole), []), sum((d for _, d in whole), [])))
    lines += ["", "| scan | n | mean mm apart at the same start (largest) | degrees (largest) | middles apart |"]
    lines.append("|---|---|---|---|---|")
    for name in sorted({name for _, name in middles}):
        ends = [
            {
                row["start"]: np.array(row["pull"])
                for row in rows
                if (row["engine"], row["scan"]) == (engine, name) and row["pull"]
            }
            for engine in ENGINES
        ]
        pairs = [apart(ends[0][start], ends[1][start], points) for start in sorted(set(ends[0]) & set(ends[1]))]
        if pairs:
            mm, degrees = np.array(pairs).T
            middle = apart(middles[ENGINES[0], name], middles[ENGINES[1], name], points)
            lines.append(
                f"| {name} | {len(pairs)} | {mm.mean():.3f} ({mm.max():.3f}) | {degrees.mean():.3f} ({degrees.max():.3f}) "
                f"| {middle[0]:.3f} mm, {middle[1]:.3f}° |"
            )
    return "\n".join(lines) + "\n"


def _line(engine: str, name: str, rows: Sequence[Row], distances: Sequence[float]) -> str:
    refused, off = len(rows) - len(distances), sum(mm > _OFF_MM for mm in distances)
    middle = f"{np.mean(distances):.3f} ({max(distances):.3f})" if distances else ""
    seconds = float(np.median([row["cpu_seconds"] for row in rows]))
    return f"| {_TITLES[engine]} | {name} | {len(rows)} | {refused} | {off} | {middle} | {seconds:.2f} |"


if __name__ == "__main__":
    sys.exit(main())
