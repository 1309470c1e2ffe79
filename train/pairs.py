# SPDX-License-Identifier: Apache-2.0
"""Batches of training pairs: every scan against one atlas. Reads scans; knows nothing of TensorFlow."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Tuple

import numpy as np

from vxm_convert.contract import IntensityRule
from vxm_convert.errors import TrainingError, VolumeError
from vxm_convert.scanfiles import scan_files
from vxm_convert.spec import Shape3
from vxm_convert.volumes import load_scan, read_image


@dataclass(frozen=True)
class Batch:
    """Moving images of one step.

    Parameters
    ----------
    moving : ndarray, shape (B, X, Y, Z, 1), float32 — intensities 0..1.
    paths : tuple of Path — where they came from, for messages.
    """

    moving: np.ndarray
    paths: Tuple[Path, ...]


def atlas_shape(atlas: Path) -> Shape3:
    """Voxels of the atlas; raises VolumeError if it cannot be read."""
    shape = read_image(atlas).data.shape
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def find_scans(folder: Path, atlas: Path) -> List[Path]:
    """Scans of a folder in sorted order, without segmentations and without the atlas itself (see `vxm_convert.scanfiles`).

    Raises
    ------
    TrainingError
        If the folder does not exist or holds no scan.
    VolumeError
        If it cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder; pass the folder of training scans as --data")
    scans = scan_files(folder, atlas)
    if not scans:
        raise TrainingError(
            f"{folder}: no scan to train on, expected .npz, .nii, .nii.gz, .mgz or .mgh files (segmentations and the atlas do not count)"
        )
    return scans


class PairSource:
    """Endless seeded batches, every scan once before any scan again."""

    def __init__(self, scans: List[Path], atlas: Path, shape: Shape3, batch: int, seed: int) -> None:
        self.scans = list(scans)
        self._shape = shape
        self._batch = batch
        self._random = np.random.RandomState(seed)
        self._rule = IntensityRule()
        fixed, _ = load_scan(atlas, shape, self._rule)
        #: ndarray, shape (B, X, Y, Z, 1), float32 — the atlas, once per pair
        self.fixed = np.repeat(fixed.data[np.newaxis, ..., np.newaxis], batch, axis=0)

    @property
    def steps_per_pass(self) -> int:
        """Batches that show every scan at least once."""
        return -(-len(self.scans) // self._batch)

    def check_all(self) -> None:
        """Read every scan once, so that a bad one is named before hours of training; raises VolumeError listing all of them."""
        problems = []
        for path in self.scans:
            try:
                load_scan(path, self._shape, self._rule)
            except VolumeError as exc:
                problems.append(str(exc))
        if problems:
            raise VolumeError("\n  ".join([f"{len(problems)} of {len(self.scans)} training scans cannot be used:"] + problems))

    def batches(self) -> Iterator[Batch]:
        """Batches without end."""
        order = self._order()
        while True:
            paths = tuple(next(order) for _ in range(self._batch))
            volumes = [load_scan(path, self._shape, self._rule)[0].data for path in paths]
            yield Batch(np.stack(volumes)[..., np.newaxis], paths)

    def _order(self) -> Iterator[Path]:
        while True:
            for index in self._random.permutation(len(self.scans)):
                yield self.scans[index]
