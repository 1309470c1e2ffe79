# SPDX-License-Identifier: Apache-2.0
"""From the files of a pair to the arrays of a sample: decoding, the cache, augmentation, the noise of sampling. No
TensorFlow.

The content of a sample depends only on its number and the seed, never on the order or thread in which samples are made.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

import numpy as np

from train.data.checks import labels_for
from train.data.pairs import Pair
from vxm_convert.errors import VolumeError
from vxm_convert.intensities.rules import load_scan
from vxm_convert.metrics.label_maps import LabelMap
from vxm_convert.metrics.labels import label_set
from vxm_convert.model.intensity import IntensityRule
from vxm_convert.model.spec import ModelSpec
from vxm_convert.scans.scan_file import ScanFile

_AUGMENT_STREAM, _NOISE_STREAM = 4, 5
#: intensities become gain · v^gamma
_GAIN, _GAMMA = (0.9, 1.1), (0.9, 1.1)
#: left-right axis of the network grid
_FLIP_AXIS = 0
Sample = Dict[str, np.ndarray]


class Loader:
    """Makes samples; may be used from several threads.

    Parameters
    ----------
    spec : ModelSpec — shapes, and whether samples include noise.
    atlas : Path — fixed image of pairs without one, or None.
    atlas_seg : Path — its labels, or None.
    with_labels : bool — samples include `moving_seg` and `fixed_seg`, every second voxel along each axis.
    augment : tuple of str — see `train.settings.run`.
    cache : bool — keep decoded files in memory.
    seed : int — of augmentation and noise.
    mapped : LabelMap or None — into whose labels those of all scans but the atlas are turned.
    """

    synthetic = False

    def __init__(
        self,
        spec: ModelSpec,
        atlas: Optional[Path],
        atlas_seg: Optional[Path] = None,
        with_labels: bool = False,
        augment: Tuple[str, ...] = (),
        cache: bool = False,
        seed: int = 0,
        mapped: Optional[LabelMap] = None,
    ) -> None:
        self.spec = spec
        self.with_labels = with_labels
        self.error: Optional[Exception] = None
        self._augment, self._seed, self._cache_all = augment, seed, cache
        self._rule = IntensityRule()
        self._atlas, self._atlas_seg, self._mapped = atlas, atlas_seg, mapped
        self._kept: Dict[Tuple[str, Optional[Path]], np.ndarray] = {}
        self._lock = threading.Lock()

    def arrays(self, pair: Pair, sample: int) -> Sample:
        """One sample with augmentation and noise.

        Returns
        -------
        dict — ``moving``, ``fixed`` (X, Y, Z, 1) float32, 0..1; with labels ``moving_seg``, ``fixed_seg`` (X/2, Y/2,
        Z/2) int32; for diffeomorphic variants ``noise`` (X/2, Y/2, Z/2, 3) float32, standard normal.
        """
        try:
            found = self.plain(pair)
            self._augmented(found, np.random.RandomState([self._seed, _AUGMENT_STREAM, sample % (1 << 32)]))
            if self.spec.diffeomorphic:
                random = np.random.RandomState([self._seed, _NOISE_STREAM, sample % (1 << 32)])
                found["noise"] = random.standard_normal(self.spec.velocity_shape[1:]).astype(np.float32)
            return found
        except Exception as exc:
            # TensorFlow turns exceptions of its reader threads into text; the loop wants the original.
            self.error = exc
            raise

    def plain(self, pair: Pair) -> Sample:
        """As `arrays`, without augmentation and noise."""
        fixed = self._fixed_of(pair)
        found = {"moving": self.image(pair.moving), "fixed": self.image(fixed[0])}
        if self.with_labels:
            for name, (scan, seg) in (("moving_seg", (pair.moving, pair.seg)), ("fixed_seg", fixed)):
                found[name] = np.ascontiguousarray(self.labels(scan, seg)[::2, ::2, ::2], dtype=np.int32)
        return found

    def image(self, path: Path) -> np.ndarray:
        """A scan as network input, (X, Y, Z, 1)."""
        return self._remember(
            "image",
            path,
            lambda: load_scan(ScanFile(path), self.spec.volume_shape, self._rule)[0].data[..., np.newaxis],
        )

    def labels(self, scan: Path, seg: Optional[Path]) -> np.ndarray:
        """A segmentation on the grid of its scan, (X, Y, Z); raises VolumeError where there is none."""
        return self._remember("labels", seg, lambda: self._read_labels(scan, seg))

    def labels_of(self, pair: Pair) -> Tuple[Optional[np.ndarray], Optional[np.ndarray]]:
        """Labels of moving and fixed; None if a file has none."""
        found = []
        for scan, seg in ((pair.moving, pair.seg), self._fixed_of(pair)):
            try:
                found.append(self.labels(scan, seg))
            except VolumeError:
                found.append(None)
        return found[0], found[1]

    def label_ids(self, name: str) -> Tuple[int, ...]:
        """Labels of a set that are scored."""
        return tuple(n for n in label_set(name) if n != 0)

    def _fixed_of(self, pair: Pair) -> Tuple[Path, Optional[Path]]:
        """The fixed image and its segmentation: the pair's own, else the atlas."""
        if pair.fixed is not None:
            return pair.fixed, pair.fixed_seg
        if self._atlas is None:
            raise VolumeError(f"{pair.moving}: has no fixed image, and there is no atlas; pass --atlas")
        return self._atlas, self._atlas_seg

    def _read_labels(self, scan: Path, seg: Optional[Path]) -> np.ndarray:
        mapped = None if (scan, seg) == (self._atlas, self._atlas_seg) else self._mapped
        found = labels_for(scan, seg, self.spec.volume_shape, mapped=mapped) if seg is not None else None
        if found is None:
            raise VolumeError(
                f"{seg or 'a scan'}: no segmentation, expected one beside it or in its .npz; omit --dice-weight"
            )
        return found

    def _remember(self, kind: str, path: Optional[Path], read: Callable[[], np.ndarray]) -> np.ndarray:
        """The atlas is always kept, scans only with the cache."""
        key = (kind, path)
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        value = read()
        if self._cache_all or path in (self._atlas, self._atlas_seg):
            with self._lock:
                self._kept[key] = value
        return value

    def _augmented(self, sample: Sample, random: np.random.RandomState) -> None:
        """Flip changes both images and labels, so that left stays left in both; intensity changes only the moving
        image.
        """
        flip, gain, gamma = random.rand() < 0.5, random.uniform(*_GAIN), random.uniform(*_GAMMA)
        if "flip" in self._augment and flip:
            for name, value in sample.items():
                sample[name] = np.ascontiguousarray(np.flip(value, _FLIP_AXIS))
        if "intensity" in self._augment:
            sample["moving"] = np.clip(gain * np.clip(sample["moving"], 0, 1) ** gamma, 0, 1).astype(np.float32)
