# SPDX-License-Identifier: Apache-2.0
"""The network's grid of the fakes, and scans on any grid as NIfTI files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from tests.support import fakes
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.network_grid import network_affine

NETWORK = Grid(fakes.SHAPE, network_affine(fakes.SHAPE))


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, str(path))
    return path


def write_turned(folder: Path, name: str, orientation: str, seed: int = 1, pad: int = 0) -> None:
    """The scan of a seed with its segmentation, stored along other axes, with a margin."""
    for data, ending in zip(fakes.brain(seed), ("", "_seg")):
        home = nib.Nifti1Image(
            np.pad(data, pad, mode="constant"), NETWORK.affine @ nib.affines.from_matvec(np.eye(3), [-pad] * 3)
        )
        change = nib.orientations.ornt_transform(
            nib.io_orientation(home.affine), nib.orientations.axcodes2ornt(orientation)
        )
        turned = home.as_reoriented(change)
        save(folder / f"{name}{ending}.nii.gz", np.asarray(turned.dataobj), turned.affine)
