# SPDX-License-Identifier: Apache-2.0
"""The scale of a scan's intensities: its convention, and the factor that converts it to network inputs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.model.intensity import IntensityRule
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.scans.values import Volume, check_values

LOG = logging.getLogger(__name__)

#: 99.9th percentile of the positive voxels, and its network value: FreeSurfer's brains / 255 have 0.43 to 0.59 there
_TOP_PERCENTILE, _TOP_VALUE = 99.9, 0.5
#: allowed interpolation overshoot of a convention, as a fraction of its range
_INTENSITY_SLACK = 2e-3
#: a 0..255 scan with a maximum below this fraction of 255 cannot be distinguished from an overshooting 0..1 scan
_AMBIGUOUS_BELOW = 1.0 / 8.0


@dataclass(frozen=True)
class Intensity:
    """The convention of a scan: its name for logs and tables, and the ratio of file values to network inputs."""

    name: str
    factor: float


def detect_intensity(volume: Volume, rule: IntensityRule) -> Intensity:
    """The convention of a scan: the network's own range, or that range times ``rule.scale``.

    Raises
    ------
    VolumeError
        For values outside both, and for a maximum that could belong to either.
    """
    low, high = float(volume.data.min()), float(volume.data.max())
    slack = _INTENSITY_SLACK * (rule.high - rule.low)
    stored_name, unit_name = f"{rule.low * rule.scale:g}..{rule.high * rule.scale:g}", f"{rule.low:g}..{rule.high:g}"
    advice = f"expected {stored_name} or {unit_name}: {rule.convention}; fit another scale to the atlas with --intensity match"
    if rule.low - slack <= low and high <= rule.high + slack:
        return Intensity(unit_name, 1.0)
    if low < (rule.low - slack) * rule.scale or high > (rule.high + slack) * rule.scale:
        raise VolumeError(f"{volume.path}: intensities {low:g}..{high:g}, {advice}")
    if high < rule.high * rule.scale * _AMBIGUOUS_BELOW:
        raise VolumeError(f"{volume.path}: intensities {low:g}..{high:g} fit both conventions or neither, {advice}")
    return Intensity(stored_name, rule.scale)


def percentile_intensity(volume: Volume) -> Intensity:
    """The convention of a scan of any scale: the 99.9th percentile of its positive voxels becomes 0.5; VolumeError if
    none is positive.

    Values beyond the network's range must be clipped afterwards.
    """
    positive = volume.data[volume.data > 0]
    if not positive.size:
        raise VolumeError(f"{volume.path}: no voxel is above 0, expected a scan with a bright brain")
    top = float(np.percentile(positive, _TOP_PERCENTILE))
    return Intensity(f"{_TOP_PERCENTILE:g} % at {top:.6g} = {_TOP_VALUE:g}", top / _TOP_VALUE)


def load_scan(scan: ScanFile, expected_shape: Tuple[int, int, int], rule: IntensityRule) -> Tuple[Volume, Intensity]:
    """Read, check and normalise one scan to network inputs (value / scale, float32); see the functions it calls for
    Raises.
    """
    volume = scan.image(expected_shape)
    check_values(volume)
    intensity = detect_intensity(volume, rule)
    if intensity.factor != 1.0:
        volume = Volume(volume.data / np.float32(intensity.factor), volume.affine, volume.path, volume.stored_dtype)
    LOG.debug("%s: intensities %s, divided by %g", scan.path, intensity.name, intensity.factor)
    return volume, intensity
