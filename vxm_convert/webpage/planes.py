# SPDX-License-Identifier: Apache-2.0
"""Slices of a volume for a page, and their orientation: functions that cut arrays."""

from __future__ import annotations

from typing import Callable, Iterator, Sequence, Tuple

import numpy as np

#: an image's slice, (rows, columns)
Take = Callable[[np.ndarray], np.ndarray]


def planes(
    orientation: str, centre: Sequence[int], shape: Sequence[int]
) -> Iterator[Tuple[str, Take, Tuple[int, int]]]:
    """Title, cut and position of `centre` in it. LIA: sagittal with anterior left; coronal and axial with the subject's
    left right.

    Parameters
    ----------
    orientation : str — axis letters of the array.
    centre : voxel that the slices go through.
    shape : of the array; with two sides it is the one slice.
    """
    if len(shape) == 2:
        yield "the whole image", lambda a: a, (centre[0], centre[1])
        return
    x, y, z = centre
    if orientation == "LIA":
        yield f"sagittal, x = {x}", lambda a: a[x, :, ::-1], (y, shape[2] - 1 - z)
        yield f"coronal, z = {z}", lambda a: a[:, :, z].T, (y, x)
        yield f"axial, y = {y}", lambda a: a[:, y, :].T[::-1], (shape[2] - 1 - z, x)
    else:
        yield f"first axis = {x}", lambda a: a[x, :, :], (y, z)
        yield f"second axis = {y}", lambda a: a[:, y, :], (x, z)
        yield f"third axis = {z}", lambda a: a[:, :, z], (x, y)


def middle(image: np.ndarray) -> Tuple[int, ...]:
    """The middle voxel of an image's bright part."""
    bright = np.asarray(image) > 0.1 * float(np.max(image))
    if not bright.any():
        return tuple(side // 2 for side in image.shape)
    return tuple(int(np.median(where)) for where in np.nonzero(bright))
