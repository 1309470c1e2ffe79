# SPDX-License-Identifier: Apache-2.0
"""Figures of the pictures (brightness, similarity) and the rules for warnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional

import numpy as np

from om_runner.qc.case import Case
from vxm_convert.geometry.fields import slabs

#: percentile of an image that is shown as white: single bright vessels would leave the picture dark
_WHITE_PERCENTILE = 99.8
#: share of white above which a voxel of the fixed image counts as inside
_INSIDE = 0.1
MUCH_FOLDING = 0.005
#: a longest displacement below this means no registration: untrained weights, or the wrong input
IDLE_VOXEL = 0.05
#: fall of similarity or Dice that is more than rounding
_FALL = 0.002
_EMPTY_SHARE = 0.1


@dataclass(frozen=True)
class Brightness:
    """Mapping of intensities to grey.

    Parameters
    ----------
    fixed, moved : float — white of the fixed image, and of the scan before and after its warp.
    gain : float — factor that scales the scan to the fixed image, the same before and after.
    """

    fixed: float
    moved: float
    gain: float


def white_of(*images: Optional[np.ndarray]) -> float:
    """The brightness of white: a high percentile of values above 0 in the first image that has such voxels, else 1."""
    for image in images:
        if image is None:
            continue
        some = image[tuple(slice(None, None, 2 if n > 32 else 1) for n in image.shape)]
        with np.errstate(invalid="ignore"):
            some = some[np.isfinite(some) & (some > 0)]
        if some.size:
            return float(np.percentile(some, _WHITE_PERCENTILE))
    return 1.0


def brightness(case: Case) -> Brightness:
    """White of both images and the factor between their scales, least squares over the moved scan."""
    fixed, moved = white_of(case.fixed), white_of(case.moved, case.before)
    image = case.moved if case.moved is not None else case.before
    if image is None:
        return Brightness(fixed, moved, fixed / moved)
    sums = _sums(case.fixed, image, -np.inf)
    gain = sums["xy"] / sums["yy"] if sums["yy"] > 0 else 0.0
    return Brightness(fixed, moved, gain if np.isfinite(gain) and gain > 0 else fixed / moved)


def correlation(fixed: np.ndarray, image: Optional[np.ndarray], white: float) -> Optional[float]:
    """Normalised cross-correlation (Pearson) inside the fixed image; None without an image or if either is constant
    there.

    The inside is the same for every scan: voxels of the fixed image above 10 % of its white.
    """
    if image is None:
        return None
    sums = _sums(fixed, image, _INSIDE * white)
    n = sums["n"]
    if not n:
        return None
    x, y = sums["xx"] - sums["x"] ** 2 / n, sums["yy"] - sums["y"] ** 2 / n
    # 1e-9: rounding error of the spread of a constant image in float64.
    if not (x > 1e-9 * sums["xx"] and y > 1e-9 * sums["yy"]):
        return None
    return float((sums["xy"] - sums["x"] * sums["y"] / n) / np.sqrt(x * y))


def _sums(fixed: np.ndarray, image: np.ndarray, above: float) -> Dict[str, float]:
    """Sums and products over finite voxels of the inside, in slabs and float64; x: fixed, y: image."""
    total = dict.fromkeys(("n", "x", "y", "xx", "yy", "xy"), 0.0)
    for part in slabs(fixed.shape[0]):
        x, y = fixed[part].astype(np.float64), image[part].astype(np.float64)
        with np.errstate(invalid="ignore"):
            use = (x > above) & np.isfinite(x) & np.isfinite(y)
        x, y = x[use], y[use]
        for name, value in (("n", x.size), ("x", x.sum()), ("y", y.sum()), ("xx", x @ x), ("yy", y @ y), ("xy", x @ y)):
            total[name] += float(value)
    return total


def empty_share(fixed: np.ndarray, moved: Optional[np.ndarray], white: float) -> Optional[float]:
    """Share of the fixed image's inside where the moved scan is exactly 0; None without a moved scan or an inside."""
    if moved is None:
        return None
    inside = fixed > _INSIDE * white
    n = int(np.count_nonzero(inside))
    return int(np.count_nonzero(moved[inside] == 0)) / n if n else None


def table_warnings(figures: Mapping[str, Optional[float]]) -> List[str]:
    """The warnings for which the table of results is enough, with pictures or without."""
    found: List[str] = []
    folds, longest = (figures.get(key) for key in ("folding_fraction", "flow_max_voxel"))
    if _fell(figures, "dice"):
        found.append("labels overlap less after the warp than before")
    if folds is not None and folds > MUCH_FOLDING:
        found.append(f"folds in {100 * folds:.2f} % of the voxels, more than {100 * MUCH_FOLDING:g} %")
    if longest is not None and longest < IDLE_VOXEL:
        found.append(
            f"longest displacement {longest:.2g} voxel: nothing moved, are the weights untrained, or is the scan the "
            "atlas itself?"
        )
    return found


def _fell(figures: Mapping[str, Optional[float]], name: str) -> bool:
    before, after = figures.get(f"{name}_before"), figures.get(f"{name}_after")
    return before is not None and after is not None and after < before - _FALL


def warnings_of(figures: Dict[str, Optional[float]], letters: bool) -> List[str]:
    """Warnings for a person, one line each."""
    found = table_warnings(figures)
    empty = figures.get("empty_share")
    if _fell(figures, "ncc"):
        found.append("less similar to the fixed image after the warp than before")
    if figures.get("ncc_after") is None:
        found.append("similarity is undefined: an image is missing or constant")
    if empty is not None and empty > _EMPTY_SHARE:
        found.append(f"the moved scan is empty in {100 * empty:.0f} % of the fixed image: cut off, or misplaced")
    if not letters:
        found.append("the header does not define left and right: pictures have no letters")
    return found
