# SPDX-License-Identifier: Apache-2.0
"""One scan in memory: its grid, its intensities as the network takes them, its labels. Says by which rule; resamples
nothing.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

import numpy as np

from train.prepare.settings import AXES, RULE, PrepareSettings
from train.prepare.subjects import REFERENCE, Source
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.intensities.matching import scale_doubts
from vxm_convert.intensities.rules import Intensity, detect_intensity, percentile_intensity
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.scans.checks import kind_doubt
from vxm_convert.scans.grid import Laying, lay
from vxm_convert.scans.labels import labels_of_scan
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.values import Volume, check_values

LOG = logging.getLogger(__name__)
_ADVICE = "pass --intensity percentile"


@dataclass(frozen=True)
class Loaded:
    """A scan as it lies in its own space.

    Parameters
    ----------
    image : ndarray, shape of `grid`, float32 — 0..1.
    seg : ndarray, shape of `grid`, integer, or None.
    rule : str — how file values became 0..1.
    as_filed : bool — the file's header says what `grid` says, so that other programs may read the file itself.
    """

    source: Source
    image: np.ndarray
    grid: Grid
    seg: Optional[np.ndarray]
    rule: str
    as_filed: bool
    sha256: str
    seg_sha256: Optional[str]


def load_source(
    source: Source, settings: PrepareSettings, network: Optional[Grid] = None, beside: Optional[np.ndarray] = None
) -> Loaded:
    """Read and check a scan with its labels.

    Parameters
    ----------
    network : Grid — where the network grid lies; None for the reference, which decides it.
    beside : ndarray — the reference's image, 0..1, whose scale a scan by convention must have.

    Raises
    ------
    VolumeError
        As the readers do, and for a header that leaves open how the array lies where that matters.
    """
    digest = source.file.sha256
    home = network or Grid(settings.shape, network_affine(settings.shape, AXES))
    laid = lay(source.file, home, AXES, settings.orientation, fixed=network is None)
    volume = source.file.image(laid.grid.shape)
    check_values(volume)
    doubt = kind_doubt(volume.data)
    if doubt:
        LOG.warning("%s: %s", source.path, doubt)
    image, rule = to_unit(volume, settings.intensity, beside)
    # A reference that is no scan of --data has labels of its own.
    choice = None if source.name == REFERENCE else settings.label_map
    mapped = None if choice is None else load_label_map(choice)
    seg, seg_digest = labels_of_scan(source.file, source.seg_file, laid, AXES, mapped=mapped)
    as_filed = laid.source is Laying.HEADER and settings.orientation is None and not source.file.notes
    return Loaded(source, image, laid.grid, seg, rule, as_filed, digest, seg_digest)


def to_unit(volume: Volume, how: str, beside: Optional[np.ndarray] = None) -> Tuple[np.ndarray, str]:
    """Intensities 0..1, float32, and the rule in words.

    ``convention``: 0..255 divided by 255, 0..1 as it is, anything else refused. ``percentile``: the 99.9th percentile
    of the positive voxels becomes 0.5. ``auto``: the first, and where it refuses the second, with a warning. By
    convention, a scan whose brain is far darker or brighter than `beside` is refused too.
    """
    if how == "percentile":
        intensity = percentile_intensity(volume)
    else:
        intensity = _by_convention(volume, beside, fall_back=how == "auto")
    scaled = volume.data if intensity.factor == 1.0 else volume.data / np.float32(intensity.factor)
    return np.clip(scaled, RULE.low, RULE.high), f"{intensity.name}, divided by {intensity.factor:.6g}, clipped to 0..1"


def _by_convention(volume: Volume, beside: Optional[np.ndarray], fall_back: bool) -> Intensity:
    try:
        found = detect_intensity(volume, RULE)
        if beside is not None:
            for doubt in scale_doubts(volume.data / np.float32(found.factor), beside, str(volume.path), _ADVICE):
                LOG.warning("%s: %s", volume.path, doubt)
        return found
    except VolumeError as exc:
        if not fall_back:
            raise
        intensity = percentile_intensity(volume)
        LOG.warning("%s; scaled by its own percentile instead", exc)
        return intensity


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: List[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def collected_warnings() -> Iterator[List[str]]:
    """What this project's modules warn of inside goes into the list that is given, and nowhere else."""
    handler, loggers = _Collector(), [logging.getLogger(name) for name in ("vxm_convert", "train")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield handler.messages
    finally:
        for logger, propagate in zip(loggers, before):
            logger.removeHandler(handler)
            logger.propagate = propagate
