# SPDX-License-Identifier: Apache-2.0
"""``--intensity contrast``: an inverted scan reaches the network with the atlas's contrast, any scale of it, and any atlas
is taken; which rule a model asks for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from export.contracts import build_contract
from om_runner.inputs.placement import PlacingOptions
from om_runner.inputs.scale import scale_of
from vxm_convert.errors import VolumeError
from vxm_convert.intensities.matching import reference_of
from vxm_convert.model.intensity import CONTRAST, CONVENTION, IntensityRule
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec
from vxm_convert.scans.values import Volume

SHAPE = (32, 40, 36)


def brain(shift: int = 0) -> np.ndarray:
    """Smooth tissues from 0.1 to 0.45, 0 outside; moved by `shift` voxels along the first axis."""
    field = np.roll(ndimage.gaussian_filter(np.random.RandomState(1).rand(*SHAPE), 3.0), shift, axis=0)
    inside = sum((axis / side - 0.5) ** 2 for axis, side in zip(np.indices(SHAPE), SHAPE)) < 0.2
    rank = np.argsort(np.argsort(field.ravel())).reshape(SHAPE) / field.size
    return np.where(inside, 0.1 + 0.35 * rank, 0).astype(np.float32)


@pytest.mark.parametrize("factor", [1.0, 3000.0])
def test_an_inverted_scan_gets_the_contrast_of_the_atlas(factor: float) -> None:
    atlas, scan = brain(), brain(1)
    inverted = np.where(scan > 0, factor * (0.6 - scan), 0).astype(np.float32)
    volume = Volume(inverted, np.eye(4), Path("scan.nii.gz"), "float32")
    scale, notes = scale_of(volume, IntensityRule(), atlas, "contrast", reference_of(atlas, (1.0, 1.0, 1.0)))
    image = scale.finish(scale.apply(volume.data), "scan.nii.gz")
    inside = (scan > 0) & (image > 0)
    assert notes == [] and "contrast" in scale.describe()
    assert image.dtype == np.float32 and 0 <= image.min() and image.max() <= 1
    assert (image[scan == 0] == 0).all()
    assert inside.sum() > 0.95 * (scan > 0).sum()
    assert np.corrcoef(image[inside], scan[inside])[0, 1] > 0.95


def test_an_atlas_outside_the_convention_is_taken() -> None:
    for factor, name in ((255.0, "0..255"), (3000.0, "99.9 %")):
        volume = Volume(factor * brain(), np.eye(4), Path("atlas.nii.gz"), "float32")
        scale, notes = scale_of(volume, IntensityRule(), None, CONTRAST)
        image = scale.apply(volume.data)
        assert notes == [] and scale.describe().startswith(name)
        assert image.max() == pytest.approx(0.45 if factor == 255 else 0.5, abs=0.01) and image.min() == 0
    with pytest.raises(VolumeError, match="--intensity match"):
        scale_of(volume, IntensityRule(), None)


@pytest.mark.parametrize("asked, rule", [("auto", CONTRAST), (CONVENTION, CONVENTION), ("match", "match")])
def test_the_contract_decides_unless_the_user_does(asked: str, rule: str) -> None:
    contract = replace(
        build_contract(ModelSpec("vm2", (16, 16, 16)), PLANS["fast"], "Ascend910A"),
        intensity=IntensityRule(rule=CONTRAST),
    )
    assert PlacingOptions(intensity=asked).for_model(contract).intensity == rule
