# SPDX-License-Identifier: Apache-2.0
"""Checks of what a Python program chooses, before anything is opened: the command line has its own, in its options."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, Optional

import numpy as np

from om_runner.inputs.affine_files import is_choice
from om_runner.inputs.placement import AUTO, PlacingOptions
from om_runner.results.products import LABEL_INTERPOLATIONS, SPACES, OutputOptions
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.resample import EDGES
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.model.intensity import INTENSITIES
from vxm_convert.scans.conform import oriented
from vxm_convert.transforms.foreign import refuse_foreign


def placing(affine: str, orientation: Optional[str], intensity: str, label_map: Optional[str]) -> PlacingOptions:
    """How scans are placed; raises VolumeError for a wrong value."""
    if not is_choice(affine):
        raise VolumeError(f"affine: got {affine!r}, expected 'auto', 'none', an existing file, or the folder of a run")
    refuse_foreign(Path(affine))
    if orientation is not None:
        orientation = str(orientation).upper()
        oriented((2, 2, 2), orientation, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    check_choice("intensity", intensity, (AUTO, *INTENSITIES))
    if label_map is not None:
        load_label_map(label_map)
    return PlacingOptions(affine, orientation, intensity, label_map)


def outputs(space: str, edge: Optional[str], label_interpolation: str) -> OutputOptions:
    """How results are made; raises VolumeError for a wrong value."""
    check_choice("space", space, SPACES)
    if edge is not None:
        check_choice("edge", edge, EDGES)
    check_choice("label_interpolation", label_interpolation, LABEL_INTERPOLATIONS)
    return OutputOptions(space=space, edge=edge, label_interpolation=label_interpolation)


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise VolumeError unless `value` is one of `choices`."""
    if value not in tuple(choices):
        raise VolumeError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")


def whole(name: str, value: object, least: int) -> int:
    """A whole number; raises VolumeError for anything else and for less than `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise VolumeError(f"{name}: got {value!r}, expected a whole number of at least {least}")
    return int(value)
