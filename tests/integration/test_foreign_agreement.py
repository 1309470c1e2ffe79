# SPDX-License-Identifier: Apache-2.0
"""Every output of a registration, carried back and forth by other people's libraries, agrees with ours: SimpleITK applies
our warps and inverses, fslpy and nibabel read them, NumPy makes the Jacobian; under every rule of intensities.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from om_runner.results.writer import INVERSE_NAME, NATIVE_SEG_NAME
from tests.support import fakes
from tests.support.grids import turn
from tests.support.nifti import NETWORK
from tests.support.registration_bench import Bench
from vxm_convert.geometry.grids import Grid, apply_affine, grid_of_geometry

RULES = ("convention", "match", "percentile", "contrast")
#: the scan: other axes, oblique, three voxel sizes, some mm away from the centre of the network grid
SCAN = grid_of_geometry(
    (42, 28, 30), (1.1, 0.9, 1.0), turn(0.12, -0.08, 0.1) @ np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]]), (1, 0, -1)
)
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
#: of the largest value of a scan
TOLERANCE = 1e-3


def smooth(outputs: Dict[str, np.ndarray]) -> None:
    """A smooth flow of up to two voxels instead of the fake's."""
    x, y, z = (index / 5.0 for index in np.indices(fakes.SHAPE))
    flow = np.stack([1.2 * np.sin(y + 0.3), 1.5 * np.cos(z / 2), -2.0 * np.sin(x / 2 + y / 3)], axis=-1)
    outputs["flow"][:] = flow.astype(np.float32)


def there(values: np.ndarray, order: int) -> np.ndarray:
    """An array of the network grid on the scan's."""
    index = np.stack(np.meshgrid(*map(np.arange, SCAN.shape), indexing="ij"), axis=-1)
    at = apply_affine(NETWORK.inverse @ SCAN.affine, index + np.array([0.0, 0, 0]))
    return ndimage.map_coordinates(values, np.moveaxis(at, -1, 0), order=order, cval=0)


def scan_of(rule: str) -> np.ndarray:
    """0..255, with a bright spot for the rules that bound intensities, and on a scale of its own where that is allowed."""
    image = there(fakes.brain(1)[0].astype(np.float32), 1)
    if rule == "convention":
        return image
    image[12:15, 11:14, 18:22] *= 3.0
    return (7.0 * image).astype(np.float32)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, monkeypatch, spoil=smooth)
    made.inputs.mkdir()
    return made


def register(bench: Bench, rule: str, *options: str) -> Path:
    """The folder of a subject registered under a rule."""
    labels = there(fakes.brain(1)[1].astype(np.float32), 0).astype(np.int16)
    for name, data in (("a.nii.gz", scan_of(rule)), ("a_seg.nii.gz", labels)):
        nib.save(nib.Nifti1Image(data, SCAN.affine), str(bench.inputs / name))
    outputs = "moved,warp,inverse,seg,jacobian"
    assert bench.run("--outputs", outputs, "--intensity", rule, "--edge", "zero", *options) == 0
    return bench.out / "a"


def applied(itk: Any, image: Path, field: Path, like: Path, how: Any) -> np.ndarray:
    """SimpleITK's resampling of an image by our warp onto the grid of another; (X, Y, Z)."""
    warp = itk.DisplacementFieldTransform(itk.ReadImage(str(field), itk.sitkVectorFloat64))
    target, source = itk.ReadImage(str(like)), itk.ReadImage(str(image), itk.sitkFloat64)
    return itk.GetArrayFromImage(itk.Resample(source, target, warp, how, 0.0)).T


def data_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(str(path)).dataobj)


def points_in(folder: Path) -> np.ndarray:
    """RAS points of every third voxel of the moved scan, away from the faces."""
    image = nib.load(str(folder / "moved.nii.gz"))
    index = np.stack(np.meshgrid(*(np.arange(3, n - 3, 3) for n in image.shape), indexing="ij"), axis=-1)
    return apply_affine(image.affine, index).reshape(-1, 3)


def carried(itk: Any, field: Path, ras: np.ndarray) -> np.ndarray:
    """RAS points through a displacement field, by SimpleITK."""
    warp = itk.DisplacementFieldTransform(itk.ReadImage(str(field), itk.sitkVectorFloat64))
    lps = ras * (-1, -1, 1)
    return np.array([warp.TransformPoint(point.tolist()) for point in lps]) * (-1, -1, 1)


@pytest.mark.parametrize("rule", RULES)
def test_simpleitk_on_the_original_gives_our_results(bench: Bench, rule: str) -> None:
    itk = pytest.importorskip("SimpleITK")
    out = register(bench, rule)
    scan = bench.inputs / "a.nii.gz"
    moved = data_of(out / "moved.nii.gz")
    theirs = applied(itk, scan, out / "flow.nii.gz", out / "moved.nii.gz", itk.sitkLinear)
    span = float(np.ptp(scan_of(rule)))
    assert np.ptp(moved) > 0.5 * span, "what the rule bounds is in the moved scan as the scan has it"
    assert np.abs(theirs - moved).max() <= TOLERANCE * span
    labels = data_of(out / "moved_seg.nii.gz")
    near = applied(
        itk, bench.inputs / "a_seg.nii.gz", out / "flow.nii.gz", out / "moved.nii.gz", itk.sitkNearestNeighbor
    )
    # Points half-way between two voxels may go either way.
    assert set(np.unique(labels)) == {0, 2, 16, 41} and (near == labels).mean() > 0.999


@pytest.mark.parametrize("rule", RULES)
def test_simpleitk_goes_there_and_back(bench: Bench, rule: str) -> None:
    itk = pytest.importorskip("SimpleITK")
    out = register(bench, rule)
    ras = points_in(out)
    target = carried(itk, out / "flow.nii.gz", ras)
    inside = SCAN.contains(apply_affine(SCAN.inverse, target))
    error = np.linalg.norm(carried(itk, out / INVERSE_NAME, target) - ras, axis=-1)[inside]
    assert inside.mean() > 0.7 and np.median(error) < 0.02 and error.max() < 0.2
    nib.save(nib.Nifti1Image(fakes.brain(0)[1], NETWORK.affine), str(bench.out.parent / "atlas_seg.nii"))
    theirs = applied(
        itk, bench.out.parent / "atlas_seg.nii", out / INVERSE_NAME, out / NATIVE_SEG_NAME, itk.sitkNearestNeighbor
    )
    assert (theirs == data_of(out / NATIVE_SEG_NAME)).mean() > 0.999 and theirs.shape == SCAN.shape
    # The inverse lies on the scan's own grid.
    assert nib.load(str(out / INVERSE_NAME)).shape[:3] == SCAN.shape
    np.testing.assert_allclose(nib.load(str(out / INVERSE_NAME)).affine, SCAN.affine, atol=1e-5)


def test_the_jacobian_is_that_of_the_field_that_nibabel_reads(bench: Bench) -> None:
    out = register(bench, "convention")
    field = nib.load(str(out / "flow.nii.gz"))
    ras = np.asarray(field.dataobj)[:, :, :, 0].astype(np.float64) * (-1, -1, 1)
    along = np.stack([np.stack(np.gradient(ras[..., d]), axis=-1) for d in range(3)], axis=-2)
    expected = np.linalg.det(np.eye(3) + along @ np.linalg.inv(field.affine[:3, :3]))
    np.testing.assert_allclose(data_of(out / "jacobian.nii.gz"), expected, atol=1e-4)


@pytest.mark.parametrize("form", ["fsl", "freesurfer", "l2r", "vxm"])
def test_every_format_carries_points_as_simpleitk_does(bench: Bench, form: str) -> None:
    """The same registration written for another tool, read by that tool's own library or arithmetic."""
    itk = pytest.importorskip("SimpleITK")
    out = register(bench, "convention")
    ras = points_in(out)
    expected = carried(itk, out / "flow.nii.gz", ras)
    fixed = Grid(nib.load(str(out / "moved.nii.gz")).shape, nib.load(str(out / "moved.nii.gz")).affine)
    out = register(bench, "convention", "--warp-format", form, "--force")
    if form == "fsl":
        fnirt = pytest.importorskip("fsl.transform.fnirt")
        images = pytest.importorskip("fsl.data.image")
        source, reference = images.Image(str(bench.inputs / "a.nii.gz")), images.Image(str(out / "moved.nii.gz"))
        field = fnirt.readFnirt(str(out / "flow.nii.gz"), source, reference)
        got = field.transform(ras, from_="world", to="world")
    else:
        stored = np.asarray(nib.load(str(out / "flow.nii.gz")).dataobj).astype(np.float64)
        vectors = stored[:, :, :, 0] if stored.ndim == 5 else stored
        index = np.rint(apply_affine(fixed.inverse, ras)).astype(int)
        at = vectors[tuple(index.T)]
        got = ras + at if form == "freesurfer" else apply_affine(SCAN.affine, index + at)
    assert np.linalg.norm(got - expected, axis=-1).max() < 1e-3


@pytest.mark.parametrize("space", ["atlas", "network", "native"])
def test_nibabel_finds_every_file_on_the_grid_of_the_results(bench: Bench, space: str) -> None:
    out = register(bench, "percentile", "--space", space)
    home = SCAN if space == "native" else NETWORK
    for name in ("moved.nii.gz", "moved_seg.nii.gz", "flow.nii.gz", "jacobian.nii.gz"):
        image = nib.load(str(out / name))
        assert image.shape[:3] == home.shape, name
        np.testing.assert_allclose(image.affine, home.affine, atol=1e-5, err_msg=name)
        assert image.header.get_xyzt_units()[0] == "mm"
        codes = int(image.header["qform_code"]), int(image.header["sform_code"])
        assert any(codes), f"{name}: no transform is marked as valid"
