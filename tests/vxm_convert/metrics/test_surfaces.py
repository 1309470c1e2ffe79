# SPDX-License-Identifier: Apache-2.0
"""Surface distances: against brute force and SimpleITK's filters."""

from __future__ import annotations

import numpy as np
import pytest

from vxm_convert.metrics.surfaces import surface_distances


def blobs(seed):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.RandomState(seed).normal(size=(14, 12, 13)), 2)
    return np.digitize(noise, np.percentile(noise, (55, 85))).astype(np.int16)


def test_surface_distance_by_brute_force():
    a, b, spacing = blobs(0), blobs(5), (1.0, 1.5, 0.7)

    def surface(volume, label):
        padded = np.pad(volume == label, 1, mode="constant")
        return (
            np.array(
                [
                    i
                    for i in np.argwhere(volume == label)
                    if any(not padded[tuple(i + 1 + s * np.eye(3, dtype=int)[d])] for d in range(3) for s in (-1, 1))
                ]
            )
            * spacing
        )

    got = surface_distances(a, b, [1, 2, 9], spacing)
    for label in (1, 2):
        gaps = np.linalg.norm(surface(a, label)[:, np.newaxis] - surface(b, label), axis=-1)
        forth, back = gaps.min(axis=1), gaps.min(axis=0)
        assert got[label].hd95 == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)))
        assert got[label].assd == pytest.approx((forth.sum() + back.sum()) / (len(forth) + len(back)))
    assert np.isnan(got[9].hd95) and np.isnan(got[9].assd)
    same = surface_distances(a, a, [1], spacing)[1]
    assert same.hd95 == same.assd == 0


def test_surface_distance_with_simpleitks_filters():
    itk = pytest.importorskip("SimpleITK")
    # Their contour takes no voxel at the volume's face, so shapes stay off it.
    a, b = np.pad(blobs(0), 2, mode="constant"), np.pad(blobs(5), 2, mode="constant")
    images = []
    for volume in (a, b):
        image = itk.GetImageFromArray((volume == 2).astype(np.uint8).T)
        image.SetSpacing((1.0, 1.5, 0.7))
        images.append(image)
    sides = []
    for one, other in (images, images[::-1]):
        distance = itk.Abs(
            itk.SignedMaurerDistanceMap(itk.LabelContour(other), squaredDistance=False, useImageSpacing=True)
        )
        sides.append(itk.GetArrayFromImage(distance)[itk.GetArrayFromImage(itk.LabelContour(one)) == 1])
    got = surface_distances(a, b, [2], (1.0, 1.5, 0.7))[2]
    assert got.hd95 == pytest.approx(max(np.percentile(side, 95) for side in sides), abs=1e-5)
    assert got.assd == pytest.approx(np.concatenate(sides).mean(), abs=1e-5)
