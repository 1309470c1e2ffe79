# SPDX-License-Identifier: Apache-2.0
"""Our affine search, resampling and inversion beside those of SimpleITK, and of ANTs where antspyx is installed: the same
synthetic scan, whose transform is known, on one process.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from scripts.benchmark.common import machine
from scripts.benchmark.host import Scene, make_scene
from vxm_convert.affine.affine_search import Target, search_affine
from vxm_convert.affine.simpleitk import as_image
from vxm_convert.artifacts.files import check_output_folder, write_json
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK
from vxm_convert.geometry import compiled
from vxm_convert.geometry.affines import from_lps
from vxm_convert.geometry.fields import Warp, to_frame, warp_from_frame
from vxm_convert.geometry.grids import apply_affine
from vxm_convert.geometry.inversion import invert, measure
from vxm_convert.geometry.resample import resample
from vxm_convert.model.spec import parse_shape
from vxm_convert.scans.conform import brain_mask
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.transforms.affines import read_affine
from vxm_convert.transforms.warps import write_warp

RESULT_NAME = "beside.json"
_EVERY = 997
OURS, ITK, ANTS = "vxm_convert", "SimpleITK", "ANTs"


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.beside",
        description="CPU-seconds and errors of an affine search, a resampling and an inversion, beside other programs.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/beside"),
        metavar="DIR",
        help=f"folder for {RESULT_NAME} and for temporary files (default: %(default)s)",
    )
    parser.add_argument(
        "--shape", default="160,192,224", metavar="X,Y,Z", help="network grid in voxels (default: %(default)s)"
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "beside")


def _bench(args: argparse.Namespace) -> int:
    out, before = check_output_folder(args.out), machine()
    scene = make_scene(parse_shape(args.shape))
    if compiled.compiled_for(scene.fixed.shape):
        compiled.load_all()
    with tempfile.TemporaryDirectory(prefix=".beside-", dir=str(out)) as work:
        rows = [
            row for measure_work in (_searches, _resamplings, _inversions) for row in measure_work(scene, Path(work))
        ]
    result = {
        "schema": 1,
        "kind": "beside benchmark",
        "shape": list(scene.fixed.shape),
        "machine": before,
        "rows": rows,
    }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK


def _timed(run: Callable[[], Any]) -> Tuple[Any, float]:
    """What a call returns, and its CPU-seconds in all threads."""
    begun = time.process_time()
    found = run()
    return found, round(time.process_time() - begun, 3)


def _row(work: str, program: str, seconds: float, error: str) -> Dict[str, Any]:
    return {"work": work, "program": program, "cpu_seconds": seconds, "error": error}


def _ants() -> Optional[ModuleType]:
    try:
        return importlib.import_module("ants")
    except ImportError:
        return None


def _searches(scene: Scene, work: Path) -> Iterator[Dict[str, Any]]:
    """Affine searches; the error is the mean distance of the brain's voxels from where the known transform takes them."""
    network, scan = scene.placement.network, scene.placement.moving
    points = apply_affine(network.affine, np.argwhere(brain_mask(scene.fixed))[::_EVERY])

    def error(pull: np.ndarray) -> str:
        off = apply_affine(pull, points) - apply_affine(scene.placement.exact_affine().pull, points)
        return f"{np.linalg.norm(off, axis=-1).mean():.2f} mm"

    found, seconds = _timed(lambda: search_affine(Target(scene.fixed, network), scene.moving, scan))
    yield _row("affine search", f"{OURS} ({found.tool})", seconds, error(found.affine.pull))
    found, seconds = _timed(lambda: search_affine(Target(scene.fixed, network), scene.moving, scan, compiled=False))
    yield _row("affine search", f"{OURS} ({found.tool})", seconds, error(found.affine.pull))
    pull, seconds = _timed(lambda: _itk_example(scene))
    yield _row("affine search", f"{ITK}'s introduction, affine", seconds, error(pull))
    ants = _ants()
    if ants is not None:
        pull, seconds = _timed(partial(_ants_affine, ants, scene, work))
        yield _row("affine search", f"{ANTS}, AffineFast", seconds, error(pull))


def _itk_example(scene: Scene) -> np.ndarray:
    """The registration of SimpleITK's introductory notebook, with an affine transform in place of the rigid one."""
    itk = importlib.import_module("SimpleITK")
    place = scene.placement
    images = [as_image(itk, scene.fixed, place.network), as_image(itk, scene.moving, place.moving)]
    start = itk.CenteredTransformInitializer(
        *images, itk.AffineTransform(3), itk.CenteredTransformInitializerFilter.GEOMETRY
    )
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.01, 1)
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsGradientDescent(
        learningRate=1.0, numberOfIterations=100, convergenceMinimumValue=1e-6, convergenceWindowSize=10
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrinkFactors=[4, 2, 1])
    method.SetSmoothingSigmasPerLevel(smoothingSigmas=[2, 1, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(*images)
    matrix = np.eye(4)
    origin = np.array(found.TransformPoint((0.0, 0.0, 0.0)))
    matrix[:3, :3] = np.column_stack([np.array(found.TransformPoint(tuple(row))) - origin for row in np.eye(3)])
    matrix[:3, 3] = origin
    return from_lps(matrix).pull


def _ants_images(ants: ModuleType, scene: Scene, work: Path) -> List[Any]:
    images = []
    for name, data, grid in (
        ("fixed", scene.fixed, scene.placement.network),
        ("moving", scene.moving, scene.placement.moving),
    ):
        write_nifti(work / f"{name}.nii", data, grid.affine)
        images.append(ants.image_read(str(work / f"{name}.nii")))
    return images


def _ants_affine(ants: ModuleType, scene: Scene, work: Path) -> np.ndarray:
    fixed, moving = _ants_images(ants, scene, work)
    found = ants.registration(fixed, moving, "AffineFast", outprefix=str(work / "ants_"))
    return read_affine(Path(found["fwdtransforms"][0]), scene.placement.network, scene.placement.moving).pull


def _resamplings(scene: Scene, work: Path) -> Iterator[Dict[str, Any]]:
    """The scan on the atlas's grid; the error is the largest difference from ours, within the brain, of the range."""
    warp = scene.placement.final_warp(scene.flow, scene.atlas)
    ours, seconds = _timed(lambda: resample(scene.moving, warp))
    yield _row("resampling", OURS, seconds, "")

    def off(other: np.ndarray) -> str:
        return f"{np.abs(other - ours).max() / np.ptp(ours):.1e} of the range"

    itk = importlib.import_module("SimpleITK")
    field, image = _itk_field(itk, warp), as_image(itk, scene.moving, warp.moving)
    onto = as_image(itk, np.zeros(warp.fixed.shape, np.float32), warp.fixed)
    transform = itk.DisplacementFieldTransform(field)
    other, seconds = _timed(lambda: itk.Resample(image, onto, transform, itk.sitkLinear, 0.0))
    yield _row("resampling", ITK, seconds, off(itk.GetArrayFromImage(other).T))
    ants = _ants()
    if ants is not None:
        write_warp(work / "warp.nii.gz", warp)
        write_nifti(work / "atlas.nii", np.zeros(warp.fixed.shape, np.float32), warp.fixed.affine)
        moving, atlas = _ants_images(ants, scene, work)[1], ants.image_read(str(work / "atlas.nii"))
        warped = partial(ants.apply_transforms, atlas, moving, [str(work / "warp.nii.gz")], interpolator="linear")
        other, seconds = _timed(warped)
        yield _row("resampling", f"{ANTS} (reads the warp)", seconds, off(other.numpy()))


def _itk_field(itk: ModuleType, warp: Warp) -> Any:
    """A warp as SimpleITK's displacement field."""
    field = to_frame(warp.u, warp.fixed.frame_matrix("lps"), warp.moving.frame_matrix("lps"))
    image = itk.GetImageFromArray(np.ascontiguousarray(field.transpose(2, 1, 0, 3)), isVector=True)
    image.CopyInformation(as_image(itk, np.zeros(warp.fixed.shape, np.float32), warp.fixed))
    return image


def _inversions(scene: Scene, work: Path) -> Iterator[Dict[str, Any]]:
    """The inverse of the flow on the network grid; the error is the 95th percentile there and back."""
    network = scene.placement.network
    warp = Warp(scene.flow, network, network)
    (inverse, _, report), seconds = _timed(lambda: invert(warp))
    yield _row("inversion", OURS, seconds, f"{report.fixed_mm.p95:.3f} mm")
    itk = importlib.import_module("SimpleITK")
    field = _itk_field(itk, warp)
    other, seconds = _timed(lambda: itk.InvertDisplacementField(field))
    back = warp_from_frame(itk.GetArrayFromImage(other).transpose(2, 1, 0, 3), "lps", network, network)
    error = measure(warp, Warp(back.u.astype(np.float32), network, network), ITK).fixed_mm.p95
    yield _row("inversion", f"{ITK}, its defaults", seconds, f"{error:.3f} mm")
    ants = _ants()
    if ants is not None:
        itk.WriteImage(field, str(work / "field.nii.gz"))
        read, nowhere = ants.image_read(str(work / "field.nii.gz")), ants.image_read(str(work / "field.nii.gz")) * 0.0
        other, seconds = _timed(partial(ants.invert_displacement_field, read, nowhere))
        back = warp_from_frame(other.numpy(), "lps", network, network)
        error = measure(warp, Warp(back.u.astype(np.float32), network, network), ANTS).fixed_mm.p95
        yield _row("inversion", f"{ANTS}, its defaults", seconds, f"{error:.3f} mm")


def table(result: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = ["CPU-seconds in all threads, n = 1", f"{'':16s}{'program':44s}{'CPU-s':>9s}  error"]
    lines += [
        f"{row['work']:16s}{row['program']:44s}{row['cpu_seconds']:9.2f}  {row['error']}" for row in result["rows"]
    ]
    if not result["machine"]["idle"]:
        lines.append(f"The machine was busy before the start (load {result['machine']['load_per_cpu']:.2f} per CPU).")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
