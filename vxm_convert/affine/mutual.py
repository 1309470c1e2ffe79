# SPDX-License-Identifier: Apache-2.0
"""Mutual information of an atlas and a scan as a function of the map between them, with derivatives, in compiled loops."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from vxm_convert.affine.levels import Blurred, Points
from vxm_convert.affine.schedule import BINS, PARTED, NotFound
from vxm_convert.geometry.compiled import kernel

#: of the points that must meet the scan
_LEAST_INSIDE = 0.1


class Information:
    """Negative mutual information (nats) at one level.

    Parameters
    ----------
    points : the atlas.
    image : the scan.
    """

    def __init__(self, points: Points, image: Blurred) -> None:
        self._points, self._image = points, image
        self._places = np.empty(len(points.at), dtype=np.float32)
        self._slopes = np.empty((len(points.at), 3), dtype=np.float32)
        self._count, self._pull = kernel("counted"), kernel("pulled")

    def __call__(self, matrix: np.ndarray) -> Tuple[float, np.ndarray]:
        """Value and its derivatives by the entries of a map, shape (3, 4), from the atlas's points to the scan's RAS mm.

        Raises
        ------
        NotFound
            If hardly a point meets the scan.
        """
        at, bins, image = self._points.at, self._points.bins, self._image
        scale, shift = image.bin_scale()
        to_voxels = image.grid.inverse[:3, :3]
        voxels = np.ascontiguousarray(to_voxels @ matrix)
        voxels[:, 3] += image.grid.inverse[:3, 3]
        joint, sums = np.zeros((BINS, BINS)), np.zeros((3, 4))
        self._count(at, bins, image.data, image.steep, voxels, scale, shift, joint, self._places, self._slopes)
        total = joint.sum()
        if total < _LEAST_INSIDE * len(at):
            raise NotFound(PARTED)
        joint /= total
        fixed, moving = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            table = np.where(joint > 0, np.log(joint / moving), 0.0)
            value = float(np.sum(np.where(joint > 0, joint * (table - np.log(fixed)), 0.0)))
        self._pull(at, bins, self._places, self._slopes, table, sums)
        return -value, to_voxels.T @ sums * (-scale / total)


class Free:
    """`Information` by twelve parameters: the entries of the map in mm at the atlas's radius, so that a step of 1 moves
    the brain by about 1 mm whichever parameter it changes.
    """

    def __init__(self, information: Information, radius_mm: float) -> None:
        self._information = information
        self._unit = np.array([[1.0 / radius_mm] * 3 + [1.0]] * 3)

    def __call__(self, flat: np.ndarray) -> Tuple[float, np.ndarray]:
        value, slope = self._information(self.matrix(flat))
        return value, (slope * self._unit).ravel()

    def matrix(self, flat: np.ndarray) -> np.ndarray:
        """The map of these parameters; shape (3, 4)."""
        return flat.reshape(3, 4) * self._unit

    def flat(self, matrix: np.ndarray) -> np.ndarray:
        """The parameters of a map."""
        found: np.ndarray = (matrix / self._unit).ravel()
        return found


class Turned:
    """`Information` by six parameters: three angles in mm at the atlas's radius, and a shift in mm."""

    def __init__(self, information: Information, radius_mm: float) -> None:
        self._information, self._radius = information, radius_mm

    def __call__(self, place: np.ndarray) -> Tuple[float, np.ndarray]:
        value, slope = self._information(self.matrix(place))
        by_turn = [np.sum(turn * slope[:, :3]) / self._radius for turn in turns(place[:3] / self._radius)[1]]
        return value, np.concatenate([by_turn, slope[:, 3]])

    def matrix(self, place: np.ndarray) -> np.ndarray:
        """The map of these parameters; shape (3, 4)."""
        return np.column_stack([turns(place[:3] / self._radius)[0], place[3:]])


def turns(angles: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The rotation by three angles (rad) about x, then y, then z, and its derivatives by them, shape (3, 3, 3)."""
    each, slopes = np.zeros((3, 3, 3)), np.zeros((3, 3, 3))
    for axis, angle in enumerate(angles):
        # The next two axes in cyclic order, so that all three turn the same way.
        one, two = (axis + 1) % 3, (axis + 2) % 3
        sine, cosine = np.sin(angle), np.cos(angle)
        each[axis, axis, axis] = 1.0
        each[axis, [one, two], [one, two]], slopes[axis, [one, two], [one, two]] = cosine, -sine
        each[axis, two, one], each[axis, one, two] = sine, -sine
        slopes[axis, two, one], slopes[axis, one, two] = cosine, -cosine
    x, y, z = each
    return z @ y @ x, np.stack([z @ y @ slopes[0], z @ slopes[1] @ x, slopes[2] @ y @ x])
