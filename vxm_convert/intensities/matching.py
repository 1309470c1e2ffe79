# SPDX-License-Identifier: Apache-2.0
"""Fits a scan's intensities to those of the atlas: a monotone curve through quantiles of the brain, and slow shading.

The curve follows landmark-based standardisation (Nyúl and Udupa, Magnetic Resonance in Medicine 42, 1999): quantiles
of the foreground are mapped onto those of a reference, with straight lines between. Three of them are taken: an average
atlas is smoother than a scan, so that its whole histogram is narrower and a fit to all of it would flatten the scan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Sequence, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.lazy import LazyModule

ndimage = LazyModule("scipy.ndimage")

#: quantiles (per cent of the foreground) that are mapped onto the atlas's: the dark end, the middle, the bright end
LANDMARKS = (2.0, 50.0, 98.0)
#: quantiles by which the fitted histogram is compared with the atlas's
_JUDGED = (10.0, 25.0, 40.0, 60.0, 75.0, 90.0)
#: difference at one of them, as a share of the range between the outer landmarks, that is doubted and that is refused
DOUBTED, REFUSED = 0.2, 0.3
#: factor between the medians of two brains of one convention that is doubted, and one that is refused; those of four
#: real brains and an average atlas are within 1.25, and one of half its brightness is registered worse than not at all
_DOUBTED_FACTOR, _REFUSED_FACTOR = 1.4, 1.9
#: a value that at least this share of the voxels has is the background of a skull-stripped image
_BACKGROUND_SHARE = 0.1
_MIN_VOXELS = 100
#: share of the bright end below which a voxel counts as a trace of interpolation
_RINGING = 0.05
#: depth below the surface of an atlas from which on its middle landmark is taken, mm
EDGE_MM = 10.0
#: width of the smoothing that finds the shading, mm: far above any structure
SHADING_MM = 30.0
#: by how much the shading may be corrected in each direction, as a factor
_SHADING_LIMIT = 2.0


@dataclass(frozen=True)
class Curve:
    """A monotone piecewise linear map from a scan's values to network intensities.

    Parameters
    ----------
    outside : float — the scan's value outside the brain; voxels that have it become 0.
    knots, values : tuple of float — scan values in rising order and what they become; 0 below the first.
    residual : float — largest difference of a fitted quantile (10, 25, 40, 60, 75, 90 %) from the atlas's, as a share of the
        range between the outer landmarks.
    """

    outside: float
    knots: Tuple[float, ...]
    values: Tuple[float, ...]
    residual: float

    def apply(self, image: np.ndarray) -> np.ndarray:
        """float32 network intensities in 0..1 of `image`, any shape; beyond the last knot its line goes on to 1."""
        image = np.asarray(image, np.float32)
        fitted = np.interp(image, self.knots, self.values).astype(np.float32)
        slope = (self.values[-1] - self.values[-2]) / (self.knots[-1] - self.knots[-2])
        beyond = image > self.knots[-1]
        fitted[beyond] = self.values[-1] + slope * (image[beyond] - self.knots[-1])
        fitted[(image <= self.knots[0]) | (image == np.float32(self.outside))] = 0
        return np.clip(fitted, 0, 1, out=fitted)

    def describe(self) -> str:
        """One phrase for logs and tables."""
        pairs = ", ".join(f"{knot:.6g} = {value:.3g}" for knot, value in zip(self.knots[1:], self.values[1:]))
        return f"matched to the atlas, {pairs}"


@dataclass(frozen=True)
class Reference:
    """What scans are fitted to, measured once per atlas.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z), float32 — network intensities, 0 outside the brain.
    landmarks : tuple of float — its values at `LANDMARKS`, the middle one taken deep inside.
    judged : tuple of float — its values at the quantiles by which a fit is judged.
    spacing_mm : tuple of float — voxel sizes along the axes.
    """

    image: np.ndarray
    landmarks: Tuple[float, ...]
    judged: Tuple[float, ...]
    spacing_mm: Tuple[float, ...]


def reference_of(atlas: np.ndarray, spacing_mm: Sequence[float]) -> Reference:
    """The landmarks of an atlas, shape (X, Y, Z), network intensities, 0 outside the brain.

    The middle landmark leaves out what lies less than `EDGE_MM` below the surface: averaging blurs the edge of an atlas
    over more voxels than that of a scan, which pulls the median of the whole down.
    """
    mask = atlas > 0
    inside = _without_ringing(np.asarray(atlas[mask], np.float64), 0.0)
    if inside.size < _MIN_VOXELS:
        raise VolumeError(f"the atlas has {inside.size} voxels of foreground; expected a skull-stripped brain")
    low, middle, high = np.percentile(inside, LANDMARKS)
    steps = max(1, int(round(EDGE_MM / float(np.mean(spacing_mm)))))
    deep = ndimage.binary_erosion(ndimage.binary_fill_holes(mask), iterations=steps) & mask
    if np.count_nonzero(deep) >= _MIN_VOXELS:
        middle = np.percentile(atlas[deep], LANDMARKS[1])
    landmarks = tuple(float(value) for value in (low, min(max(middle, low), high), high))
    judged = tuple(float(value) for value in np.percentile(inside, _JUDGED))
    return Reference(atlas, landmarks, judged, tuple(float(side) for side in spacing_mm))


def fit_curve(scan: np.ndarray, atlas: Reference, where: str) -> Curve:
    """The curve that maps the scan's landmarks onto the atlas's.

    Parameters
    ----------
    scan : ndarray, any shape — skull-stripped image in a unit of its own.
    atlas : Reference
    where : str — the scan's file, for messages.

    Raises
    ------
    VolumeError
        Where one of them has hardly any foreground, where landmarks coincide, and where the fitted histogram is far
        from the atlas's.
    """
    inside, outside = foreground(scan)
    if inside.size < _MIN_VOXELS:
        raise VolumeError(
            f"{where}: {inside.size} voxels of foreground; expected a skull-stripped brain; check the file"
        )
    found, wanted = np.percentile(inside, LANDMARKS), atlas.landmarks
    # Half the distance from the lowest value to the first landmark below it: nothing of the brain becomes 0.
    background = outside if inside.min() > outside else float(1.5 * inside.min() - 0.5 * found[0])
    if not background < found[0] < found[1] < found[2]:
        raise VolumeError(
            f"{where}: the quantiles {_text(LANDMARKS)} % of its foreground are {_text(found)} above a background of "
            f"{background:.6g}; expected different values: is it a mask, a label map or an inverted image?"
        )
    curve = Curve(outside, (background, *map(float, found)), (0.0, *map(float, wanted)), 0.0)
    fitted = np.interp(np.percentile(inside, _JUDGED), curve.knots, curve.values)
    residual = float(np.abs(fitted - np.asarray(atlas.judged)).max() / (wanted[2] - wanted[0]))
    if residual > REFUSED:
        raise VolumeError(
            f"{where}: matched to the atlas, its histogram is still off by {residual:.2f} of its range, expected at "
            f"most {REFUSED:g}; it is no brain of the atlas's contrast, or has not been skull-stripped"
        )
    return replace(curve, residual=residual)


def scale_doubts(
    image: np.ndarray, atlas: np.ndarray, where: str, advice: str = "fit it to the atlas with --intensity match"
) -> List[str]:
    """What is doubtful about a scan that claims to be on the atlas's scale already: at most one line.

    Parameters
    ----------
    image, atlas : ndarray, any shapes — network intensities, 0 outside the brain.
    where : str — the scan's file, for the message.
    advice : str — what to do.

    Raises
    ------
    VolumeError
        Where the medians of the two brains are so far apart that the network would not see a brain.
    """
    inside, reference = (_without_ringing(one[one > 0], 0.0) for one in (image, atlas))
    if not inside.size or not reference.size:
        return []
    median, expected = float(np.median(inside)), float(np.median(reference))
    factor = max(median / expected, expected / median)
    if factor <= _DOUBTED_FACTOR:
        return []
    text = (
        f"the median of its brain is {median:.3g} on the network's scale, that of the atlas {expected:.3g}, "
        f"{factor:.1f} times apart; {advice}"
    )
    if factor > _REFUSED_FACTOR:
        raise VolumeError(f"{where}: {text}; expected at most {_REFUSED_FACTOR:g} times")
    return [text]


def curve_doubt(curve: Curve) -> str:
    """What is doubtful about a fit, in one phrase; empty where nothing is."""
    if curve.residual <= DOUBTED:
        return ""
    return (
        f"matched to the atlas, its histogram is still off by {curve.residual:.2f} of its range (expected at most "
        f"{DOUBTED:g}); another contrast, a skull or a lesion would explain it"
    )


def foreground(scan: np.ndarray) -> Tuple[np.ndarray, float]:
    """(values inside the brain, value outside) of a skull-stripped image of any scale.

    A value that a tenth of the voxels share is that of the outside; the brain is what differs from it. It may lie on
    both sides (z-scores). An image without such a value is taken to be brain but for its lowest value.
    """
    flat = np.ravel(scan)
    values, counts = np.unique(flat, return_counts=True)
    most = int(np.argmax(counts))
    if counts[most] < _BACKGROUND_SHARE * flat.size:
        return flat[flat > values[0]].astype(np.float64), float(values[0])
    background = float(values[most])
    above = flat[flat > background]
    # Overshoot of an interpolation lies below the background too, but it is rare.
    if flat.size - counts[most] - above.size <= 0.05 * above.size:
        return _without_ringing(above.astype(np.float64), background), background
    return flat[flat != background].astype(np.float64), background


def _without_ringing(values: np.ndarray, background: float) -> np.ndarray:
    """Values that stand out from the background: an interpolation leaves traces of the brain all around it."""
    if not values.size:
        return values
    return values[values > background + _RINGING * (np.percentile(values, 99) - background)]


def flatten_shading(scan: np.ndarray, reference: Reference) -> np.ndarray:
    """The scan divided by its slow shading against the atlas, which lies in the same place.

    Parameters
    ----------
    scan : ndarray, shape (X, Y, Z), float32 — network intensities on the atlas's grid, 0 outside the brain.
    reference : Reference — the atlas.

    Returns
    -------
    ndarray, shape (X, Y, Z), float32 — with the mean that `scan` has inside both brains.
    """
    atlas = reference.image
    inside = (scan > 0) & (atlas > 0)
    if not inside.any():
        return scan
    sigma = [SHADING_MM / side for side in reference.spacing_mm]
    slow_scan, slow_atlas = (
        ndimage.gaussian_filter(np.where(inside, image, np.float32(0)), sigma, mode="constant", truncate=2.0)
        for image in (scan, atlas)
    )
    ratio = np.log(np.maximum(slow_scan, 1e-6)) - np.log(np.maximum(slow_atlas, 1e-6))
    ratio -= ratio[inside].mean()
    limit = np.log(_SHADING_LIMIT)
    flat = scan / np.exp(np.clip(ratio, -limit, limit))
    return (flat * (scan[inside].mean() / flat[inside].mean())).astype(np.float32)


def _text(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
