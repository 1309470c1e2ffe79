# SPDX-License-Identifier: Apache-2.0
"""Label maps to train on: random shapes of many sizes, and heads whose size, folds, ventricles and nuclei are drawn at random.

Heads are cut out of a grid of 1 mm voxels at any place, so that a small volume shows a part of a head at its true size.
Axes are those of the network grid: index 0 increases to the left, index 1 to inferior, index 2 to anterior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Sequence, Tuple

import numpy as np

from vxm_convert.synthetic.fields import grid_of, smooth_noise
from vxm_convert.synthetic.heads import STRUCTURES, Structure

#: fluid between the folds; not one of FreeSurfer's ids that are scored
SULCUS = 99
#: what 1 of the phantom's coordinates is in a head of usual size, mm
_HALF_SIDES = np.array((82.0, 88.0, 99.0), np.float32)
_BRAIN_CENTRE = np.array((0.0, -0.10, 0.0), np.float32)
_BRAIN_RADII = np.array((0.80, 0.68, 0.86), np.float32)
#: where the middle of a volume may lie, share of the brain's radii
_VIEW = 0.75
_VENTRICLES = (4, 31, 14, 15, 24)
#: knot distances of shapes: gyri are some 3 voxels wide, ventricles 10, lobes 40
_SHAPE_SCALES = (4.0, 24.0)


def random_shapes(rng: np.random.RandomState, shape: Sequence[int]) -> np.ndarray:
    """At each voxel the number of the random field that is largest there, 1 …; 0 outside a lumpy outline, if there is one.

    Returns
    -------
    ndarray, shape `shape`, uint8.
    """
    low, high = np.sort(rng.uniform(*np.log(_SHAPE_SCALES), size=2))
    best = np.full(shape, -np.inf, np.float32)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, 1 + rng.randint(8, 25)):
        field = smooth_noise(rng, shape, np.exp(rng.uniform(low, high)))
        wins = field > best
        np.copyto(best, field, where=wins)
        labels[wins] = label
    if rng.uniform() < 0.6:
        centred = [(axis - 0.5 * side) / (0.5 * side) for axis, side in zip(grid_of(shape), shape)]
        radii = rng.uniform(0.7, 1.3, 3)
        outline = sum((axis / radius) ** 2 for axis, radius in zip(centred, radii)) + 0.3 * smooth_noise(
            rng, shape, 14.0
        )
        labels[outline > 1.0] = 0
    return labels


@dataclass(frozen=True)
class Head:
    """What one head is drawn from; voxel arrays are of the volume that shows it.

    `at`: (3, X, Y, Z) coordinates as in `vxm_convert.synthetic.heads`, −1..1 over the network grid. `mm`: millimetres per unit.
    `folds`, `lumps`: smooth fields. `fold_depth`: mm. `fluid`: how wide the sulci are.
    """

    at: np.ndarray
    mm: np.ndarray
    structures: Tuple[Tuple[int, np.ndarray, np.ndarray], ...]
    folds: np.ndarray
    lumps: np.ndarray
    fold_depth: float
    fluid: float


def random_head(rng: np.random.RandomState, shape: Sequence[int]) -> Head:
    """A head, and a place in it."""
    size = rng.uniform(0.88, 1.08) * np.exp(rng.normal(0.0, 0.04, 3))
    mm = (_HALF_SIDES * size).astype(np.float32)
    middle = (
        _BRAIN_CENTRE
        + rng.uniform(-_VIEW, _VIEW, 3) * np.maximum(0.15, 1.0 - np.array(shape) / (3.0 * mm)) * _BRAIN_RADII
    )
    turn = np.eye(3) + rng.normal(0.0, 0.06, (3, 3))
    voxels = grid_of(shape) - 0.5 * np.array(shape, np.float32).reshape(3, 1, 1, 1)
    voxels = np.tensordot(turn.astype(np.float32), voxels, axes=1)
    # Bends of some millimetres, or every head would be made of ellipsoids.
    voxels += np.stack([rng.uniform(1.0, 4.0) * smooth_noise(rng, shape, 26.0) for _ in range(3)])
    at = voxels / mm.reshape(3, 1, 1, 1) + middle.astype(np.float32).reshape(3, 1, 1, 1)
    ventricles = np.exp(rng.uniform(-0.4, 0.8))
    structures = tuple(_drawn(rng, one, label, side, ventricles) for one in STRUCTURES for label, side in _sides(one))
    return Head(
        at,
        mm,
        structures,
        smooth_noise(rng, shape, rng.uniform(3.5, 6.0)),
        smooth_noise(rng, shape, 7.0),
        rng.uniform(14.0, 24.0),
        rng.uniform(0.5, 1.2),
    )


def relative_of(rng: np.random.RandomState, head: Head) -> Head:
    """Another head like it, that no deformation makes equal: nuclei change in size and place, folds partly differ."""
    shape = head.folds.shape
    turn = rng.uniform(0.0, 0.8)
    folds = np.float32(np.cos(turn)) * head.folds + np.float32(np.sin(turn)) * smooth_noise(rng, shape, 5.5)
    structures = tuple(
        (label, centre + rng.normal(0.0, 0.012, 3), radii * np.exp(rng.normal(0.0, 0.10)))
        for label, centre, radii in head.structures
    )
    return replace(head, structures=structures, folds=folds, fluid=head.fluid + rng.normal(0.0, 0.1))


def head_labels(head: Head) -> np.ndarray:
    """FreeSurfer ids and `SULCUS`; uint8, (X, Y, Z)."""
    x = head.at[0]
    reach = np.sqrt(sum(((axis - c) / r) ** 2 for axis, c, r in zip(head.at, _BRAIN_CENTRE, _BRAIN_RADII)))
    depth = (1.0 - reach) * (float(np.mean(_BRAIN_RADII * head.mm)) / head.fold_depth)
    labels = np.zeros(x.shape, np.uint8)
    left = x >= 0
    inside = depth > 0
    labels[inside] = SULCUS
    # Along a line inwards, fluid ends first and grey matter later; both reach deepest where the field is largest.
    grey = inside & ((head.folds < head.fluid + 1.3 * depth) | (depth > 1.6))
    white = inside & (((head.folds < head.fluid - 1.6 + 1.3 * depth) & (depth > 0.15)) | (depth > 2.2))
    for mask, pair in ((grey, (3, 42)), (white, (2, 41))):
        labels[mask & left] = pair[0]
        labels[mask & ~left] = pair[1]
    # The cleft between the hemispheres, above the middle.
    labels[inside & (np.abs(x) * head.mm[0] < 1.5 + 0.6 * head.lumps) & (head.at[1] < -0.28) & (depth < 1.6)] = SULCUS
    for label, centre, radii in head.structures:
        _paint(labels, head, label, centre, radii)
    return labels


def _sides(one: Structure) -> List[Tuple[int, int]]:
    return [(one.left, 1)] if one.left == one.right else [(one.left, 1), (one.right, -1)]


def _drawn(
    rng: np.random.RandomState, one: Structure, label: int, side: int, ventricles: float
) -> Tuple[int, np.ndarray, np.ndarray]:
    """Label, centre and radii of a structure of one head, in the phantom's coordinates."""
    centre = np.array(one.centre) * (side, 1, 1) + rng.normal(0.0, 0.015, 3)
    radii = np.array(one.radii) * np.exp(rng.normal(0.0, 0.08, 3))
    return label, centre, radii * (ventricles if one.left in _VENTRICLES else 1.0)


def _paint(labels: np.ndarray, head: Head, label: int, centre: np.ndarray, radii: np.ndarray) -> None:
    """A lumpy ellipsoid, in the box of voxels that may hold it."""
    near = []
    for axis, side in enumerate(labels.shape):
        line = np.take(head.at[axis], side // 2, (axis + 1) % 3)
        keep = (
            np.abs(line - centre[axis]).min(axis=tuple(a for a in range(2) if a != _place(axis)))
            < 1.6 * radii[axis] + 0.15
        )
        found = np.flatnonzero(keep)
        if not len(found):
            return
        near.append(slice(found[0], found[-1] + 1))
    box = tuple(near)
    distance = sum(((head.at[axis][box] - centre[axis]) / radii[axis]) ** 2 for axis in range(3))
    labels[box][distance + 0.25 * head.lumps[box] < 1.0] = label


def _place(axis: int) -> int:
    """Where `axis` is in a plane from which the axis behind it was taken."""
    return axis if axis < (axis + 1) % 3 else axis - 1
