# SPDX-License-Identifier: Apache-2.0
"""Intensities fitted to the atlas: any scale, shift, gamma and slow shading come back to it; what is no brain is refused."""

from __future__ import annotations

from typing import Callable, Tuple

import numpy as np
import pytest

from vxm_convert.errors import VolumeError
from vxm_convert.intensities.matching import (
    EDGE_MM,
    LANDMARKS,
    Reference,
    curve_doubt,
    fit_curve,
    flatten_shading,
    foreground,
    reference_of,
    scale_doubts,
)

SHAPE = (40, 48, 44)


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """Three tissues in a ball, network intensities, 0 outside."""
    rng = np.random.RandomState(7)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    image = np.select([radius < 0.2, radius < 0.6, radius < 0.85], [0.1, 0.4, 0.26], 0.0)
    noisy = np.where(image > 0, np.maximum(image + 0.02 * rng.randn(*SHAPE), 0.01), 0)
    return noisy.astype(np.float32)


def reference(brain: np.ndarray) -> Reference:
    """The brain as an atlas whose edge is as sharp as a scan's: all of it counts."""
    return reference_of(brain, (100.0, 100.0, 100.0))


def shading() -> np.ndarray:
    """A slow factor of 0.75 to 1.33 over the field of view."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return np.exp(0.28 * (0.6 * x - 0.4 * y + 0.5 * z)).astype(np.float32)


CHANGES = {
    "as it is": lambda v: v,
    "dark": lambda v: v * np.float32(0.05),
    "12 bits": lambda v: v * 4095,
    "shifted": lambda v: v * 300 - 150,
    "CT": lambda v: np.where(v > 0, v * 200 - 20, -1024).astype(np.float32),
    "z-scores": lambda v: np.where(v > 0, (v - v[v > 0].mean()) / v[v > 0].std(), 0).astype(np.float32),
    "gamma 0.7": lambda v: v ** np.float32(0.7),
    "gamma 1.4": lambda v: v ** np.float32(1.4),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_monotone_change_comes_back(brain: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> None:
    scan = change(brain)
    curve = fit_curve(scan, reference(brain), "scan.nii")
    fitted = curve.apply(scan)
    inside = brain > 0
    assert np.percentile(fitted[inside], LANDMARKS) == pytest.approx(reference(brain).landmarks, abs=2e-3)
    # Three landmarks straighten a gamma up to the bend between them.
    assert np.abs(fitted - brain)[inside].mean() < 0.02
    assert fitted.dtype == np.float32 and not fitted[~inside].any()
    assert curve_doubt(curve) == ""


def test_the_blurred_edge_of_an_atlas_does_not_lower_its_middle(brain: np.ndarray) -> None:
    edge = np.zeros_like(brain)
    edge[2:-2, 2:-2, 2:-2] = 0.03
    atlas = np.where(brain > 0, brain, edge)
    whole = np.percentile(atlas[atlas > 0], LANDMARKS)
    found = reference_of(atlas, (EDGE_MM / 9,) * 3)
    assert whole[1] < 0.2 < 0.25 < found.landmarks[1]
    assert found.landmarks[2] == pytest.approx(whole[2], rel=0.05)


def test_an_atlas_without_a_brain_is_refused() -> None:
    with pytest.raises(VolumeError, match="atlas has 0 voxels of foreground"):
        reference_of(np.zeros(SHAPE, np.float32), (1.0, 1.0, 1.0))


def test_the_curve_is_monotone_and_does_not_clip_a_lesion(brain: np.ndarray) -> None:
    curve = fit_curve(brain * 1000, reference(brain), "scan.nii")
    values = curve.apply(np.linspace(-100, 900, 5001, dtype=np.float32))
    assert (np.diff(values) >= 0).all() and values[0] == 0
    lesion = curve.apply(np.float32([600.0, 700.0]))
    assert 0.5 < lesion[0] < lesion[1] < 1


def test_slow_shading_is_taken_out(brain: np.ndarray) -> None:
    scan = brain * shading()
    before = np.abs(scan - brain)[brain > 0].mean()
    # The head of the test is small: its millimetres are large.
    flat = flatten_shading(scan, reference_of(brain, (5.0, 5.0, 5.0)))
    after = np.abs(flat - brain)[brain > 0].mean()
    assert after < 0.35 * before
    assert flat.dtype == np.float32 and not flat[brain == 0].any()
    assert flat[brain > 0].mean() == pytest.approx(scan[brain > 0].mean(), rel=1e-4)


def test_shading_of_brains_that_do_not_meet_is_left_alone(brain: np.ndarray) -> None:
    assert flatten_shading(np.zeros_like(brain), reference(brain)) is not None
    assert not flatten_shading(np.zeros_like(brain), reference(brain)).any()


@pytest.mark.parametrize("background, sign", [(0.0, 1), (-1024.0, 1), (37.0, 1)])
def test_the_background_is_what_most_voxels_share(brain: np.ndarray, background: float, sign: int) -> None:
    scan = np.where(brain > 0, background + 100 * brain, background).astype(np.float32)
    inside, found = foreground(scan)
    assert found == background and inside.size == np.count_nonzero(brain)


def two_levels(brain: np.ndarray, share: float = 0.48) -> np.ndarray:
    """`share` of the brain at one value, as much at another, a slope between."""
    rank = np.argsort(np.argsort(brain[brain > 0])) / float(np.count_nonzero(brain))
    scan = np.zeros_like(brain)
    scan[brain > 0] = np.where(rank < share, 1 + 0.01 * rank, np.where(rank < 1 - share, 100 * rank, 100 + 0.01 * rank))
    return scan


REFUSED = {
    "mask": (lambda v: (v > 0).astype(np.float32), "expected different values"),
    "nearly empty": (lambda v: np.where(np.arange(v.size).reshape(v.shape) < 50, 1 + v, 0), "voxels of foreground"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_brain_is_refused(brain: np.ndarray, case: str) -> None:
    change, message = REFUSED[case]
    scan = np.asarray(change(brain), np.float32)
    with pytest.raises(VolumeError, match=f"scan.nii: .*{message}"):
        fit_curve(scan, reference(brain), "scan.nii")


def test_another_histogram_than_the_atlas_is_doubted_or_refused(brain: np.ndarray) -> None:
    """A brain of two grey levels against an atlas of all of them."""
    atlas = np.zeros_like(brain)
    atlas[brain > 0] = np.linspace(0.05, 0.5, np.count_nonzero(brain))
    with pytest.raises(VolumeError, match="scan.nii: matched to the atlas, its histogram is still off by 0.4"):
        fit_curve(two_levels(brain), reference(atlas), "scan.nii")
    assert "still off by 0.2" in curve_doubt(fit_curve(two_levels(brain, 0.28), reference(atlas), "scan.nii"))


@pytest.mark.parametrize(
    "factor, outcome",
    [(1.0, ""), (1.3, ""), (1.5, "1.5 times apart"), (0.6, "1.7 times apart"), (2.0, None), (0.5, None), (0.05, None)],
)
def test_a_scale_is_judged_against_the_atlas(brain: np.ndarray, factor: float, outcome: object) -> None:
    if outcome is None:
        with pytest.raises(VolumeError, match="scan.nii: the median of its brain .* --intensity match"):
            scale_doubts(brain * factor, brain, "scan.nii")
    else:
        found = scale_doubts(brain * factor, brain, "scan.nii")
        assert len(found) == (outcome != "") and all(str(outcome) in line for line in found)


def test_empty_images_are_left_to_other_checks(brain: np.ndarray) -> None:
    empty: Tuple[np.ndarray, np.ndarray] = (np.zeros_like(brain), brain)
    assert scale_doubts(*empty, "scan.nii") == [] and scale_doubts(*empty[::-1], "scan.nii") == []
