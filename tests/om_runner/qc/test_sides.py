# SPDX-License-Identifier: Apache-2.0
"""Pages of pictures and of the report show the same brain the same way."""

from __future__ import annotations

import numpy as np

from om_runner.qc.slices import Slices
from vxm_convert.geometry.grids import Grid
from vxm_convert.webpage.planes import planes

SHAPE = (20, 24, 28)


def corner(image):
    """Which half of rows and of columns holds the bright block."""
    row, column = (int(np.median(axis)) for axis in np.nonzero(image > 0.5 * image.max()))
    return row >= image.shape[0] / 2, column >= image.shape[1] / 2


def test_every_plane_of_report_and_pictures_faces_the_same_way():
    """A block at the front, above, on the left of a brain on the network's axes (LIA)."""
    affine = np.array([[-1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])
    volume = np.zeros(SHAPE)
    left, above, front = slice(13, 19), slice(2, 8), slice(19, 26)
    volume[left, above, front] = 1
    centre = (15, 5, 22)
    cuts = {title.split(",")[0]: (take(volume), at) for title, take, at in planes("LIA", centre, SHAPE)}
    for name, (image, at) in cuts.items():
        assert image[at] == 1, f"{name}: the ring lies on its voxel"
    grid = Grid(SHAPE, affine)
    slices = Slices(grid, ((0, 0, 0), (19, 27, 23)), per_plane=9)
    for row in slices.cuts:
        drawn = max((slices.smooth(volume, cut) for cut in row), key=np.sum)
        assert corner(drawn) == corner(cuts[row[0].view.name][0]), row[0].view.name
