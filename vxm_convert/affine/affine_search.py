# SPDX-License-Identifier: Apache-2.0
"""The affine that maps a scan onto an atlas: searched by compiled loops or by SimpleITK, and judged by the overlap of the
two brains.

Centres of mass, then a rigid, then an affine transform; Mattes mutual information at three resolutions. One thread per
search: the same images give the same matrix, and several searches run side by side. SimpleITK is the reference and does
the work where loops are not compiled.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any, Callable, Dict, Hashable, Optional, Tuple

import numpy as np

from vxm_convert.affine import quasi_newton, simpleitk
from vxm_convert.affine.levels import Sampled, sampled
from vxm_convert.affine.schedule import AUTO_OPTION, NotFound
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.compiled import compiled_for, numba_version
from vxm_convert.geometry.fields import check_finite
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.conform import Placement, brain_mask, conform

LOG = logging.getLogger(__name__)

#: kinds of transform: rotation and shift; or also scale and shear
KINDS = ("rigid", "affine")
#: volume change larger than between any two adult brains
_MAX_SCALING = 4.0
#: overlap (Dice) of the two brains after the search: refused below the first, a warning below the second
_REFUSED_OVERLAP, _DOUBTED_OVERLAP = 0.4, 0.75


class Target:
    """The fixed side of searches. What follows from it alone is computed once for all scans, by the first search.

    Parameters
    ----------
    image : ndarray, shape of the grid — a brain without skull, on any intensity scale.
    """

    def __init__(self, image: np.ndarray, grid: Grid) -> None:
        self.image, self.grid = image, grid
        self._lock, self._searching = threading.Lock(), threading.Lock()
        self._found: Dict[Hashable, AffineFound] = {}
        self._sampled: Optional[Sampled] = None

    def sampled(self) -> Sampled:
        """Its points at every level."""
        with self._lock:
            if self._sampled is None:
                self._sampled = sampled(self.image, self.grid)
            return self._sampled

    def found_once(self, key: Hashable, search: Callable[[], AffineFound]) -> AffineFound:
        """What `search` returned for this key, which others wait for while it searches."""
        with self._searching:
            if key not in self._found:
                self._found[key] = search()
            return self._found[key]


@dataclass(frozen=True)
class AffineFound:
    """The affine with the result of the search: metric (negative mutual information), overlap of the two brains (Dice),
    and the program that searched.
    """

    affine: Affine
    metric: float
    overlap: float
    tool: str

    def to_dict(self) -> Dict[str, Any]:
        return {
            "affine": "auto",
            "affine_metric": "negative Mattes mutual information",
            "affine_metric_value": self.metric,
            "affine_overlap_dice": self.overlap,
            "affine_tool": self.tool,
        }


def search_affine(
    target: Target,
    moving: np.ndarray,
    moving_grid: Grid,
    kind: str = "affine",
    asked_by: str = AUTO_OPTION,
    compiled: Optional[bool] = None,
) -> AffineFound:
    """The affine that maps a scan onto the atlas.

    Parameters
    ----------
    moving : ndarray, shape of the grid — a brain without skull, on any intensity scale.
    kind : str — one of `KINDS`; ``rigid`` stops before sizes are changed.
    asked_by : str — name for messages: the option or step that needs the affine.
    compiled : bool — False: by SimpleITK, wherever loops are compiled. None: as `compiled_for` says.

    Raises
    ------
    ToolchainError
        Without SimpleITK, where it is needed.
    VolumeError
        For sheared grids, for values that are not finite, and if the two brains do not overlap after the search.
    """
    if kind not in KINDS:
        raise VolumeError(f"{asked_by}: transform {kind!r}, expected one of {', '.join(KINDS)}")
    for role, image, grid in (("fixed", target.image, target.grid), ("moving", moving, moving_grid)):
        # With NaN, ITK looks for the principal axes forever.
        check_finite(image, f"{asked_by}: the {role} image", "finite voxels; correct the image")
        if grid.sheared:
            raise VolumeError(
                f"{asked_by}: the {role} image has sheared axes, but the search needs orthogonal ones; resample it"
            )
    try:
        if compiled_for(target.grid.shape) if compiled is None else compiled:
            found = quasi_newton.search(target.sampled(), moving, moving_grid, kind)
            tool = f"compiled loops, numba {numba_version()}"
        else:
            found = simpleitk.search(target.image, target.grid, moving, moving_grid, kind, asked_by)
            tool = f"SimpleITK {simpleitk.version(asked_by)}"
    except NotFound as exc:
        raise VolumeError(f"{asked_by}: no affine was found, because {exc}") from exc
    affine = Affine(found.pull)
    overlap = judge_affine(target.image, target.grid, moving, moving_grid, affine, asked_by)
    return AffineFound(affine, found.metric, overlap, tool)


def check_search(shape: Tuple[int, int, int], asked_by: str = AUTO_OPTION) -> None:
    """Raise ToolchainError now if a search on an atlas of this shape would need SimpleITK and could not have it."""
    if not compiled_for(shape):
        simpleitk.version(asked_by)


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
