# SPDX-License-Identifier: Apache-2.0
"""A rigid or affine registration of two scans with SimpleITK. The only module that imports SimpleITK, on first use.

Centres of mass, then a rigid, then an affine transform; Mattes mutual information with 32 bins; regular sampling of
all, half, and a fifth of the voxels at three resolutions. One thread and a fixed seed: the same images give the same
matrix.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Dict, Iterator, List

import numpy as np

from vxm_convert.errors import ToolchainError, VolumeError
from vxm_convert.geometry.affines import Affine, from_lps
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.conform import Placement, brain_mask, conform

if TYPE_CHECKING:
    import SimpleITK

LOG = logging.getLogger(__name__)

#: kinds of transform: rotation and shift; or also scale and shear
KINDS = ("rigid", "affine")
#: the runner's option
AUTO_OPTION = "--affine auto"
_BINS = 32
_SEED = 20170901
_SHRINK, _SIGMA_MM, _SAMPLED = (8, 4, 2), (4.0, 2.0, 1.0), (1.0, 0.5, 0.2)
#: a joint histogram of 32 x 32 needs at least this many samples, for any fraction
_MIN_SAMPLES = 20000
#: a level with fewer voxels along an axis is useless
_MIN_SIDE = 8
#: volume change larger than between any two adult brains
_MAX_SCALING = 4.0
#: overlap (Dice) of the two brains after the search: refused below the first, a warning below the second
_REFUSED_OVERLAP, _DOUBTED_OVERLAP = 0.4, 0.75


@dataclass
class _Searches:
    """How many searches run in this process, and SimpleITK's number of threads before the first."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: int = 0
    before: int = 1


_SEARCHES = _Searches()


@dataclass(frozen=True)
class AffineFound:
    """The affine with the result of the search: metric (negative mutual information) and overlap of the two brains
    (Dice).
    """

    affine: Affine
    metric: float
    overlap: float
    version: str

    def to_dict(self) -> Dict[str, Any]:
        return {
            "affine": "auto",
            "affine_metric": "negative Mattes mutual information",
            "affine_metric_value": self.metric,
            "affine_overlap_dice": self.overlap,
            "affine_tool": f"SimpleITK {self.version}",
        }


def search_affine(
    fixed: np.ndarray,
    fixed_grid: Grid,
    moving: np.ndarray,
    moving_grid: Grid,
    kind: str = "affine",
    asked_by: str = AUTO_OPTION,
) -> AffineFound:
    """The affine that maps a scan onto the atlas.

    Parameters
    ----------
    fixed, moving : ndarray, shapes of the grids — brains without skull, on any intensity scale.
    kind : str — one of `KINDS`; ``rigid`` stops before sizes are changed.
    asked_by : str — name for messages: the option or step that needs the affine.

    Raises
    ------
    ToolchainError
        Without SimpleITK.
    VolumeError
        For sheared grids, and if the two brains do not overlap after the search.
    """
    if kind not in KINDS:
        raise VolumeError(f"{asked_by}: transform {kind!r}, expected one of {', '.join(KINDS)}")
    itk = _simpleitk(asked_by)
    for role, grid in (("fixed", fixed_grid), ("moving", moving_grid)):
        if grid.sheared:
            raise VolumeError(
                f"{asked_by}: the {role} image has sheared axes, but SimpleITK needs orthogonal ones; resample it"
            )
    images = [_image(itk, array, grid) for array, grid in ((fixed, fixed_grid), (moving, moving_grid))]
    try:
        with one_thread(itk):
            rigid = itk.CenteredTransformInitializer(
                *images, itk.Euler3DTransform(), itk.CenteredTransformInitializerFilter.MOMENTS
            )
            found, metric = _optimise(itk, images, itk.Euler3DTransform(rigid), min(fixed.shape + moving.shape))
            if kind == "affine":
                start = itk.AffineTransform(3)
                start.SetCenter(found.GetCenter())
                start.SetMatrix(found.GetMatrix())
                start.SetTranslation(found.GetTranslation())
                found, metric = _optimise(itk, images, start, min(fixed.shape + moving.shape))
    except RuntimeError as exc:
        LOG.debug("%s: %s", asked_by, exc)
        raise VolumeError(f"{asked_by}: no affine was found, because {_why(exc)}") from exc
    affine = from_lps(_matrix(found))
    overlap = judge_affine(fixed, fixed_grid, moving, moving_grid, affine, asked_by)
    return AffineFound(affine, metric, overlap, itk.Version.VersionString())


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


def _optimise(itk: ModuleType, images: List[SimpleITK.Image], start: SimpleITK.AffineTransform, side: int) -> Any:
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    levels = [i for i, shrink in enumerate(_SHRINK) if side // shrink >= _MIN_SIDE] or [len(_SHRINK) - 1]
    voxels = [images[0].GetNumberOfPixels() / _SHRINK[i] ** 3 for i in levels]
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentagePerLevel(
        [max(_SAMPLED[i], min(1.0, _MIN_SAMPLES / n)) for i, n in zip(levels, voxels)], _SEED
    )
    method.SetShrinkFactorsPerLevel([_SHRINK[i] for i in levels])
    method.SetSmoothingSigmasPerLevel([_SIGMA_MM[i] for i in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=200, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=True)
    method.SetNumberOfThreads(1)
    method.Execute(*images)
    LOG.debug("affine search: %s, metric %.5f", method.GetOptimizerStopConditionDescription(), method.GetMetricValue())
    return start, float(method.GetMetricValue())


def _image(itk: ModuleType, array: np.ndarray, grid: Grid) -> SimpleITK.Image:
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


def judge_affine(
    fixed: np.ndarray,
    fixed_grid: Grid,
    moving: np.ndarray,
    moving_grid: Grid,
    affine: Affine,
    asked_by: str = AUTO_OPTION,
) -> float:
    """Overlap (Dice) of the two brains with an affine from any source; logs a low one.

    Raises
    ------
    VolumeError
        If the brains do not overlap, or the volume changes more than between any two adult brains.
    """
    here = brain_mask(fixed)
    there = conform(brain_mask(moving).astype(np.uint8), Placement(fixed_grid, moving_grid, affine), "nearest") > 0
    overlap = float(2.0 * np.count_nonzero(here & there) / max(1, np.count_nonzero(here) + np.count_nonzero(there)))
    scaling = float(np.linalg.det(affine.pull[:3, :3]))
    if not 1.0 / _MAX_SCALING <= scaling <= _MAX_SCALING or overlap < _REFUSED_OVERLAP:
        own = ", or pass an affine with --affine FILE" if asked_by == AUTO_OPTION else ""
        raise VolumeError(
            f"{asked_by}: ended with brains that overlap by {overlap:.2f} (Dice) and a volume change of "
            f"{scaling:.2f}; check the two scans{own}"
        )
    if overlap < _DOUBTED_OVERLAP:
        LOG.warning(
            "%s: the two brains overlap by only %.2f (Dice); does one of them still have its skull?", asked_by, overlap
        )
    return overlap


def simpleitk_version(asked_by: str = AUTO_OPTION) -> str:
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
        return "the two brains no longer meet during the search; check the header of the scan, or give a first --affine FILE"
    if "mass" in text or "moments" in text or "pixel intensities" in text:
        return "one of the two images is empty; check the scan and the atlas"
    return "the search in SimpleITK failed (-v shows its own message); check that both are brains of about one size"
