# SPDX-License-Identifier: Apache-2.0
"""The fixed image of each scan: one atlas for all, or that of its pair, loaded when it is first needed and kept for the
next pairs.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Callable, Dict, Generic, Hashable, List, Optional, Sequence, Tuple, TypeVar

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.placement import PlacingOptions, load_fixed
from om_runner.inputs.scans import LoadedScan, Scan
from vxm_convert.metrics.labels import load_label_set
from vxm_convert.metrics.numbering import ids_in, wrong_numbering

LOG = logging.getLogger(__name__)

T = TypeVar("T")
#: fixed images in memory, besides those in work; each takes 30 to 150 MB at full size
MOST_KEPT = 4


class LatelyUsed(Generic[T]):
    """The last few things that were made, by their keys; several threads may ask, and each thing is made once."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._made: OrderedDict[Hashable, Future[T]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned for this key; raises what it raised, and the next call tries again."""
        with self._lock:
            future = self._made.get(key)
            ours = future is None
            if future is None:
                future = self._made[key] = Future()
            self._made.move_to_end(key)
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        if ours:
            try:
                future.set_result(make())
            except BaseException as exc:
                with self._lock:
                    self._made.pop(key, None)
                future.set_exception(exc)
        return future.result()


class FixedImages:
    """The fixed images of a run.

    Parameters
    ----------
    atlas : LoadedScan or None — of all scans; None if every scan names its own.
    label_set : str — the structures that the Dice is taken over.
    """

    def __init__(
        self, model: OfflineModel, placing: PlacingOptions, label_set: str, atlas: Optional[LoadedScan] = None
    ) -> None:
        self._model, self._placing, self._label_set, self._atlas = model, placing, label_set, atlas
        self._kept: LatelyUsed[LoadedScan] = LatelyUsed()

    def of(self, scan: Scan) -> LoadedScan:
        """The fixed image of a scan.

        Raises
        ------
        VolumeError, ArtifactError
            For one that cannot be used, in every pair that names it.
        """
        if scan.fixed is not None:
            fixed: Scan = scan.fixed
            return self._kept.get(_place(scan), lambda: self._load(fixed))
        if self._atlas is None:
            raise RuntimeError(f"{scan.subject}: has no fixed image, and the run has no atlas")
        return self._atlas

    def _load(self, fixed: Scan) -> LoadedScan:
        loaded = load_fixed(fixed, self._model, self._placing)
        warn_of_numbering(loaded, self._label_set)
        return loaded


class FixedBatches:
    """The model's input ``fixed``. Batches with the same images are one array, so that the runtime leaves it on the
    device.

    Parameters
    ----------
    batch : int — scans that the model takes at once.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._images: Tuple[np.ndarray, ...] = ()
        self._array = np.empty(0, np.float32)

    def of(self, images: Sequence[LoadedScan]) -> np.ndarray:
        """(B, X, Y, Z, 1) float32; unused positions repeat the last image."""
        wanted = tuple(images[min(place, len(images) - 1)].image for place in range(self._batch))
        if len(wanted) != len(self._images) or any(a is not b for a, b in zip(wanted, self._images)):
            self._images, self._array = wanted, batch_of(wanted, self._batch)
        return self._array


def batch_of(images: Sequence[np.ndarray], size: int) -> np.ndarray:
    """(B, X, Y, Z, 1) float32 in C order of up to `size` images, shape (X, Y, Z); unused positions repeat the last one. A
    batch of one is the image itself, not a copy, if it has that order and dtype.
    """
    if size == 1:
        return np.ascontiguousarray(images[0], dtype=np.float32)[np.newaxis, ..., np.newaxis]
    batch = np.empty((size, *images[0].shape, 1), dtype=np.float32)
    for position in range(size):
        batch[position, ..., 0] = images[min(position, len(images) - 1)]
    return batch


def by_fixed(scans: Sequence[Scan]) -> List[Scan]:
    """Scans with the same fixed image one after the other, otherwise in their order: each is loaded and copied once."""
    places: Dict[Hashable, int] = {}
    for scan in scans:
        places.setdefault(_place(scan), len(places))
    return sorted(scans, key=lambda scan: places[_place(scan)])


def _place(scan: Scan) -> Hashable:
    return None if scan.fixed is None else (scan.fixed.path, scan.fixed.seg_path)


def warn_of_numbering(fixed: LoadedScan, label_set: str) -> None:
    """Warn of a segmentation whose numbers are those of another tool."""
    wrong = None if fixed.seg is None else wrong_numbering(ids_in(fixed.seg), load_label_set(label_set))
    if wrong is not None:
        LOG.warning("%s: label %s; no Dice is computed", fixed.scan.path, wrong)
