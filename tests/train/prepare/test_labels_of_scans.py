# SPDX-License-Identifier: Apache-2.0
"""Labels of a scan to prepare, whose file lies otherwise than the scan's: each stays in its own hemisphere."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import native
from train.prepare.loaded import load_source
from train.prepare.settings import PrepareSettings
from train.prepare.subjects import Source
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid


def reoriented(path: Path, axes: str) -> None:
    """Store the same image along other axes, under a right header."""
    image = nib.load(str(path))
    data = np.asarray(image.dataobj)
    change = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(axes))
    )
    turned = nib.Nifti1Image(data, image.affine).as_reoriented(change)
    native.save(path, np.ascontiguousarray(turned.dataobj), Grid(turned.shape, turned.affine))


def load(folder: Path) -> np.ndarray:
    source = Source("one", folder / "one.nii.gz", folder / "one_seg.nii.gz")
    loaded = load_source(source, PrepareSettings(folder, folder / "out", shape=native.SHAPE), native.NETWORK)
    assert loaded.seg is not None and loaded.seg.shape == loaded.image.shape
    return loaded.seg


@pytest.mark.parametrize("axes", ["AIR", "RAS", "LIA"])
def test_labels_along_other_axes(tmp_path: Path, axes: str) -> None:
    folder = native.write_native(tmp_path)
    plain = load(folder)
    assert {2, 16, 41} <= set(np.unique(plain))
    reoriented(folder / "one_seg.nii.gz", axes)
    np.testing.assert_array_equal(load(folder), plain)


def test_labels_under_a_header_that_says_nothing_are_refused(tmp_path: Path) -> None:
    folder = native.write_native(tmp_path)
    seg = np.asarray(nib.load(str(folder / "one_seg.nii.gz")).dataobj)
    nib.save(nib.Nifti1Image(seg, np.eye(4)), str(folder / "one_seg.nii.gz"))
    with pytest.raises(VolumeError, match="their relative position is unknown"):
        load(folder)
