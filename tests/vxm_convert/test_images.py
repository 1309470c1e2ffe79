# SPDX-License-Identifier: Apache-2.0
"""Images in memory on their way to a file: what they keep, and what is refused in one message that names them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from vxm_convert.errors import VolumeError
from vxm_convert.images import on_disk
from vxm_convert.scans.scan_file import ScanFile

AFFINE = np.array([[-1.1, 0.2, 0, 8], [0.1, 0, 1, -16], [0, -1, 0, 8], [0, 0, 0, 1]])
VOXELS = np.arange(40 * 36 * 32, dtype=np.int16).reshape(40, 36, 32) % 251


def qform_alone() -> nib.Nifti1Image:
    image = nib.Nifti1Image(VOXELS, None)
    image.set_qform(np.diag((2.0, 2, 2, 1)), 1)
    image.header["sform_code"] = 0
    return image


@pytest.mark.parametrize(
    "image, affine",
    [
        ((VOXELS, AFFINE), AFFINE),
        ((VOXELS[..., np.newaxis], AFFINE.tolist()), AFFINE),
        ((np.asfortranarray(VOXELS).astype(">f8"), AFFINE), AFFINE),
        (nib.Nifti1Pair(VOXELS, AFFINE), AFFINE),
        (nib.Nifti2Pair(VOXELS, AFFINE), AFFINE),
        (nib.Nifti2Image(VOXELS[..., np.newaxis], AFFINE), AFFINE),
        (qform_alone(), np.diag((2.0, 2, 2, 1))),
    ],
)
def test_values_and_place_are_kept(image, affine: np.ndarray) -> None:
    with on_disk(image) as path:
        file = ScanFile(path)
        assert np.array_equal(file.image().data, VOXELS)
        assert np.allclose(file.grid.affine, affine, atol=1e-5)
    assert not path.exists()


@pytest.mark.parametrize(
    "image, said",
    [
        ((VOXELS.astype(np.longdouble), AFFINE), f"mine: array of shape (40, 36, 32), {np.dtype(np.longdouble)}"),
        ((np.stack([VOXELS, VOXELS], -1), AFFINE), "mine.nii: 4-D volume 40x36x32x2"),
        ((VOXELS, None), "mine: grid: affine nan, expected a finite 4x4 matrix in mm; pass the 4x4 matrix"),
        ((VOXELS, "eye"), "mine: affine of str, expected numbers; pass the 4x4 matrix"),
        ((VOXELS, AFFINE[:3]), "expected a finite 4x4 matrix in mm; pass the 4x4 matrix"),
        (nib.AnalyzeImage(VOXELS, np.eye(4)), "mine: got AnalyzeImage"),
        (nib.GiftiImage(), "mine: got GiftiImage"),
    ],
)
def test_what_is_no_image_is_refused_by_its_name(image, said: str) -> None:
    with pytest.raises(VolumeError) as caught, on_disk(image, "mine"):
        pass
    assert str(caught.value).startswith(said) or said in str(caught.value)


def test_a_message_never_names_the_temporary_folder() -> None:
    """It is gone when somebody reads it."""
    with pytest.raises(VolumeError, match=r"^mine\.nii: is bad, see mine\.nii$"), on_disk(
        (VOXELS, AFFINE), "mine"
    ) as path:
        raise VolumeError(f"{path}: is bad, see {path}")
