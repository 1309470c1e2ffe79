# SPDX-License-Identifier: Apache-2.0
"""One raw scan on the host, stage by stage: compiled loops beside SciPy and SimpleITK, same arrays, same run; and whether
both give the same results. No device takes part: the flow is a random one.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from scripts.benchmark.common import machine
from vxm_convert.affine.affine_search import Target, search_affine
from vxm_convert.artifacts.files import check_output_folder, write_json
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, SpecError
from vxm_convert.geometry import compiled
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.inversion import InverseReport, invert
from vxm_convert.geometry.jacobian import determinant
from vxm_convert.geometry.resample import resample
from vxm_convert.model.spec import Shape3, parse_shape
from vxm_convert.scans.conform import Placement, conform
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.synthetic.heads import PhantomSettings, make_atlas, random_velocity
from vxm_convert.transforms.warps import write_warp

LOG = logging.getLogger(__name__)
RESULT_NAME = "host.json"
_SEED = 5
#: side of the atlas's cube over the longest side of the network grid: 256 for 224
_CUBE = 8.0 / 7.0
_ENGINES = ("scipy", "numba")
#: of the random field: about 8 voxels at full size, without folds
_LENGTH = 0.4
#: result → unit of a difference, and the largest that is allowed
LIMITS = {
    "scan on the network grid": ("of the range", 1e-4),
    "moved scan": ("of the range", 1e-4),
    "warp": ("voxel", 1e-3),
    "inverse": ("voxel", 1e-3),
    "labels on the network grid": ("of the voxels", 1e-3),
    "moved labels": ("of the voxels", 1e-3),
    "Jacobian": ("", 1e-3),
}

Arrays = Dict[str, np.ndarray]


class Scene(NamedTuple):
    """Arrays of one raw scan.

    Parameters
    ----------
    fixed : ndarray, shape of the network grid, float32.
    moving, labels : ndarray, shape of the scan's grid — float32 and int32.
    placement : Placement — the scan's true one.
    flow : ndarray, shape of the network grid + (3,), float32 — voxels.
    atlas : Grid — a cube around the network grid, as FreeSurfer's conformed volumes are.
    """

    fixed: np.ndarray
    moving: np.ndarray
    labels: np.ndarray
    placement: Placement
    flow: np.ndarray
    atlas: Grid


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.host",
        description="CPU-seconds of the host's stages for one raw scan with every output.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage, 3 results of two engines differ by more than allowed",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/host"),
        metavar="DIR",
        help=f"folder for {RESULT_NAME} and for temporary files (default: %(default)s)",
    )
    parser.add_argument(
        "--shape", default="160,192,224", metavar="X,Y,Z", help="network grid in voxels (default: %(default)s)"
    )
    parser.add_argument(
        "--engines",
        nargs="+",
        default=list(_ENGINES),
        choices=_ENGINES,
        help=f"values of {compiled.VARIABLE} to measure (default: {' '.join(_ENGINES)})",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "host")


def _bench(args: argparse.Namespace) -> int:
    out = check_output_folder(args.out)
    before = machine()
    scene = make_scene(parse_shape(args.shape))
    stages: Dict[str, Dict[str, float]] = {}
    made: Dict[str, Arrays] = {}
    with tempfile.TemporaryDirectory(prefix=".host-", dir=str(out)) as work:
        for engine in args.engines:
            stages[engine], made[engine] = measure(scene, engine, Path(work))
    differences = compared(*(made[engine] for engine in args.engines)) if len(made) == 2 else {}
    result = {
        "schema": 2,
        "kind": "host benchmark",
        "shape": list(scene.fixed.shape),
        "atlas": list(scene.atlas.shape),
        "scan": list(scene.moving.shape),
        "machine": before,
        "cpu_seconds": stages,
        "differences": differences,
    }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    within = all(value <= LIMITS[name][1] for name, value in differences.items())
    return EXIT_OK if within else EXIT_TOLERANCE


def make_scene(shape: Shape3) -> Scene:
    """A synthetic head on the network grid, and the same head as a scan that is turned, scaled and stored otherwise."""
    settings = PhantomSettings(shape, 1, _SEED)
    head = make_atlas(settings)
    flow = _LENGTH * np.moveaxis(random_velocity(settings, np.random.RandomState(_SEED)), 0, -1)
    network, side = Grid(shape, network_affine(shape)), int(round(max(shape) * _CUBE))
    corner = np.eye(4)
    corner[:3, 3] = -((side - np.asarray(shape)) // 2)
    a, b = np.cos(0.15), np.sin(0.15)
    pull = np.array([[1.04 * a, -b, 0, 6], [b, 0.97 * a, 0.03, -8], [0, -0.02, 1.02, 5], [0, 0, 0, 1]])
    scan_shape = tuple(int(n) for n in np.rint(np.asarray(shape)[[0, 2, 1]] * [1.0, 0.95, 0.87]))
    turn = np.diag([1.0, 1.0, 1.0, 1.0])
    turn[:3, 3] = pull[:3, 3] + network.affine[:3, :3] @ (np.asarray(shape) / 2) + network.affine[:3, 3]
    turn[:3, 3] -= np.asarray(scan_shape) / 2.0
    scan = Grid((scan_shape[0], scan_shape[1], scan_shape[2]), turn)
    back = Placement(scan, network, Affine(np.linalg.inv(pull)))
    moving = conform(head.vol.astype(np.float32), back)
    labels = conform(head.seg.astype(np.int32), back, "nearest")
    placement = Placement(network, scan, Affine(pull))
    atlas = Grid((side, side, side), network.affine @ corner)
    return Scene(head.vol.astype(np.float32), moving, labels, placement, flow.astype(np.float32), atlas)


def measure(scene: Scene, engine: str, work: Path) -> Tuple[Dict[str, float], Arrays]:
    """CPU-seconds of every stage, in order, and the results; loops are compiled or loaded before.

    Raises
    ------
    ToolchainError
        Where numba is asked for and missing.
    """
    before = os.environ.get(compiled.VARIABLE)
    os.environ[compiled.VARIABLE] = engine
    try:
        compiled.check_engine()
        if engine == "numba":
            compiled.load_all()
        return _stages(scene, work)
    finally:
        if before is None:
            del os.environ[compiled.VARIABLE]
        else:
            os.environ[compiled.VARIABLE] = before


def _stages(scene: Scene, work: Path) -> Tuple[Dict[str, float], Arrays]:
    place, seconds, made = scene.placement, {}, {}

    def timed(name: str, run: Callable[[], Any]) -> Any:
        begun = time.process_time()
        found = run()
        seconds[name] = round(time.process_time() - begun, 3)
        return found

    write_nifti(work / "scan.nii.gz", scene.moving, place.moving.affine)
    timed("scan read", lambda: ScanFile(work / "scan.nii.gz").image())
    target = Target(scene.fixed, place.network)
    found = timed("affine search", lambda: search_affine(target, scene.moving, place.moving))
    LOG.info("affine search: %s", found.tool)
    # What follows takes the true affine, so that differences are those of each stage alone.
    conformed = timed("scan onto the network grid", lambda: conform(scene.moving, place))
    labels = timed("labels onto the network grid", lambda: conform(scene.labels, place, "nearest"))
    warp = timed("flow and affine composed on the atlas's grid", lambda: place.final_warp(scene.flow, scene.atlas))
    moved = timed("moved scan", lambda: resample(scene.moving, warp))
    moved_labels = timed("moved labels", lambda: resample(scene.labels, warp, "nearest"))
    onto_atlas = Placement(scene.atlas, place.moving, place.exact_affine())
    timed("labels by the affine alone", lambda: conform(scene.labels, onto_atlas, "nearest"))
    jacobian = timed("Jacobian", lambda: determinant(warp))
    timed("moved scan written", lambda: write_nifti(work / "moved.nii.gz", moved, scene.atlas.affine))
    timed("moved labels written", lambda: write_nifti(work / "labels.nii.gz", moved_labels, scene.atlas.affine))
    timed("warp written", lambda: write_warp(work / "warp.nii.gz", warp))
    inverse, _ = timed("inverse with its error", lambda: _inverse(scene))
    timed("atlas's labels in the scan", lambda: resample(labels, inverse, "nearest"))
    inverse = timed("inverse on the atlas's voxels", lambda: inverse.on_moving(scene.atlas))
    timed("inverse written", lambda: write_warp(work / "inverse.nii.gz", inverse))
    seconds["all"] = round(sum(seconds.values()), 3)
    made["scan on the network grid"], made["labels on the network grid"] = conformed, labels
    made["moved scan"], made["moved labels"] = moved, moved_labels
    made["warp"], made["inverse"], made["Jacobian"] = warp.u, inverse.u, jacobian
    return seconds, made


def _inverse(scene: Scene) -> Tuple[Warp, InverseReport]:
    inverse, _, report = invert(scene.placement.final_warp(scene.flow, scene.placement.network))
    if report.moving_mm.n == 0:
        raise SpecError(
            f"shape: no voxel of the scan is inside the network grid {scene.fixed.shape}; pass a larger --shape"
        )
    return inverse, report


def compared(one: Arrays, other: Arrays) -> Dict[str, float]:
    """The largest difference of each result, in the units of `LIMITS`; of labels, the share of the brain's voxels."""
    found = {}
    for name, (unit, _) in LIMITS.items():
        if unit == "of the voxels":
            inside = (one[name] > 0) | (other[name] > 0)
            found[name] = float(np.count_nonzero(one[name] != other[name]) / max(1, np.count_nonzero(inside)))
        else:
            apart = float(np.abs(one[name] - other[name]).max())
            found[name] = apart / float(np.ptp(one[name])) if unit == "of the range" else apart
    return found


def table(result: Mapping[str, Any]) -> str:
    """The figures as text."""
    engines = result["cpu_seconds"]
    sides = {name: "x".join(str(n) for n in result[name]) for name in ("shape", "atlas", "scan")}
    lines = [
        f"one scan of {sides['scan']}, network grid {sides['shape']}, atlas {sides['atlas']}; CPU-seconds, n = 1",
        f"{'':46s}" + "".join(f"{engine:>9s}" for engine in engines),
    ]
    for stage in next(iter(engines.values())):
        lines.append(f"{stage:46s}" + "".join(f"{found[stage]:9.2f}" for found in engines.values()))
    for name, value in result["differences"].items():
        unit, limit = LIMITS[name]
        verdict = "within" if value <= limit else "BEYOND"
        lines.append(f"{name}: apart by at most {value:.1e} {unit}".rstrip() + f", {verdict} the limit of {limit:g}")
    if not result["machine"]["idle"]:
        lines.append(f"The machine was busy before the start (load {result['machine']['load_per_cpu']:.2f} per CPU).")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
