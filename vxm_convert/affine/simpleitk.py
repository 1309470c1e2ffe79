# SPDX-License-Identifier: Apache-2.0
"""The search with SimpleITK: the reference. The only module of the search that imports it, on first use.

Regular sampling, one thread and a fixed seed: the same images give the same matrix.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Iterator, List

import numpy as np

from vxm_convert.affine.schedule import (
    AUTO_OPTION,
    BINS,
    EMPTY,
    LEVELS,
    PARTED,
    SEED,
    Found,
    Level,
    NotFound,
    levels_for,
)
from vxm_convert.errors import ToolchainError
from vxm_convert.geometry.affines import from_lps
from vxm_convert.geometry.grids import Grid

if TYPE_CHECKING:
    import SimpleITK

LOG = logging.getLogger(__name__)


@dataclass
class _Searches:
    """How many searches run in this process, and SimpleITK's number of threads before the first."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: int = 0
    before: int = 1


_SEARCHES = _Searches()


def search(
    fixed: np.ndarray, fixed_grid: Grid, moving: np.ndarray, moving_grid: Grid, kind: str, asked_by: str
) -> Found:
    """The transform with the largest mutual information, as `search_affine`, which knows the parameters.

    Raises
    ------
    ToolchainError
        Without SimpleITK.
    NotFound
        If SimpleITK gives up.
    """
    itk = _simpleitk(asked_by)
    images = [as_image(itk, array, grid) for array, grid in ((fixed, fixed_grid), (moving, moving_grid))]
    levels = [LEVELS[number] for number in levels_for(min(fixed.shape + moving.shape))]
    try:
        with one_thread(itk):
            rigid = itk.CenteredTransformInitializer(
                *images, itk.Euler3DTransform(), itk.CenteredTransformInitializerFilter.MOMENTS
            )
            found, metric = _optimise(itk, images, itk.Euler3DTransform(rigid), levels)
            if kind == "affine":
                start = itk.AffineTransform(3)
                start.SetCenter(found.GetCenter())
                start.SetMatrix(found.GetMatrix())
                start.SetTranslation(found.GetTranslation())
                found, metric = _optimise(itk, images, start, levels)
    except RuntimeError as exc:
        LOG.debug("%s: %s", asked_by, exc)
        raise NotFound(_why(exc)) from exc
    return Found(from_lps(_matrix(found)).pull, metric)


@contextmanager
def one_thread(itk: ModuleType) -> Iterator[None]:
    """SimpleITK computes with one thread while any search runs, in whatever thread of this process.

    Sums over threads would depend on their number and order; `SetNumberOfThreads` alone does not affect the metric. The
    number is SimpleITK's own and global: the first search sets it, the last one sets it back.
    """
    with _SEARCHES.lock:
        if not _SEARCHES.running:
            _SEARCHES.before = itk.ProcessObject.GetGlobalDefaultNumberOfThreads()
            itk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        _SEARCHES.running += 1
    try:
        yield
    finally:
        with _SEARCHES.lock:
            _SEARCHES.running -= 1
            if not _SEARCHES.running:
                itk.ProcessObject.SetGlobalDefaultNumberOfThreads(_SEARCHES.before)


def _optimise(
    itk: ModuleType, images: List[SimpleITK.Image], start: SimpleITK.AffineTransform, levels: List[Level]
) -> Any:
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentagePerLevel([level.share_of(images[0].GetSize()) for level in levels], SEED)
    method.SetShrinkFactorsPerLevel([level.shrink for level in levels])
    method.SetSmoothingSigmasPerLevel([level.sigma_mm for level in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInterpolator(itk.sitkLinear)
    # With the default tolerance of the gradient, 1e-4, a brain in 256³ voxels ended 0.2 mm before the maximum.
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=200, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=True)
    method.SetNumberOfThreads(1)
    method.Execute(*images)
    LOG.debug("affine search: %s, metric %.5f", method.GetOptimizerStopConditionDescription(), method.GetMetricValue())
    return start, float(method.GetMetricValue())


def as_image(itk: ModuleType, array: np.ndarray, grid: Grid) -> SimpleITK.Image:
    """A volume as SimpleITK's image, float32, at its place in space; the grid has right angles."""
    image = itk.GetImageFromArray(np.ascontiguousarray(array.T, dtype=np.float32))
    lps = grid.to_lps()
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(tuple(float(v) for v in lps[:3, 3]))
    image.SetDirection(tuple(float(v) for v in (lps[:3, :3] / np.asarray(grid.spacing_mm)).ravel()))
    return image


def _matrix(transform: SimpleITK.AffineTransform) -> np.ndarray:
    """ITK's y = A (x − c) + c + t as one matrix, LPS."""
    matrix, centre = np.eye(4), np.array(transform.GetCenter())
    matrix[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = centre + np.array(transform.GetTranslation()) - matrix[:3, :3] @ centre
    return matrix


def version(asked_by: str) -> str:
    """SimpleITK's version; raises ToolchainError if it is not installed."""
    return str(_simpleitk(asked_by).Version.VersionString())


def _simpleitk(asked_by: str) -> Any:
    try:
        import SimpleITK
    except ImportError as exc:
        own = ", or pass --affine FILE or none" if asked_by == AUTO_OPTION else ""
        raise ToolchainError(f"{asked_by}: SimpleITK is not installed; pip install SimpleITK{own}") from exc
    return SimpleITK


def _why(exc: Exception) -> str:
    """What ITK's text means for a scan."""
    text = str(exc).lower()
    if "outside" in text and "samples" in text:
        return PARTED
    if "mass" in text or "moments" in text or "pixel intensities" in text:
        return EMPTY
    return "the search in SimpleITK failed (-v shows its own message); check that both are brains of about one size"
