# SPDX-License-Identifier: Apache-2.0
"""What a preparation is asked to do, and the part of it that decides the bytes of its results."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from vxm_convert.errors import TrainingError
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.model.intensity import IntensityRule
from vxm_convert.model.spec import ModelSpec, Shape3
from vxm_convert.scans.network_grid import network_affine

#: axes and voxel size of the network grid, and the range of its intensities
AXES, RULE = NetworkAxes(), IntensityRule()
FORMATS = ("npz", "nii.gz")
ARRAYS = ("vol", "vol_data")
INTENSITIES = ("auto", "convention", "percentile")
TOOLS = ("auto", "freesurfer", "compiled", "simpleitk")
CHOOSE = "auto"
#: goes up when the same settings give other bytes than before
_SCHEMA = 2


@dataclass(frozen=True)
class PrepareSettings:
    """A parsed command line.

    Parameters
    ----------
    reference : str — a file, a scan's name, or ``auto``.
    transform : str — ``rigid`` or ``affine``.
    orientation : str or None — letters that override the headers of the scans.
    label_map : str or None — a packaged table or a file, for the segmentations of the scans.
    jobs : int — scans at a time, each in a process of its own; 0: one at a time in this process.
    """

    data: Path
    out: Path
    reference: str = CHOOSE
    shape: Shape3 = (160, 192, 224)
    transform: str = "affine"
    tool: str = "auto"
    intensity: str = "auto"
    format: str = "npz"
    array: str = "vol"
    orientation: Optional[str] = None
    labels: str = "paper30"
    label_map: Optional[str] = None
    jobs: int = 0
    force: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        ModelSpec("vm2", self.shape)
        if self.jobs < 0:
            raise TrainingError(f"jobs: got {self.jobs}, expected at least 0; leave --jobs out for one per CPU")
        if self.orientation is not None:
            network_affine(self.shape, NetworkAxes(self.orientation))

    def shaping(self) -> Dict[str, Any]:
        """The settings that decide the bytes of every result, the reference's own ones included."""
        names = ("transform", "intensity", "format", "array", "orientation")
        mapped = {} if self.label_map is None else {"label_map": load_label_map(self.label_map).sha256}
        return {"schema": _SCHEMA, "shape": list(self.shape), **{name: getattr(self, name) for name in names}, **mapped}


def key_of(settings: PrepareSettings, **more: str) -> str:
    """Hex sha256 of the shaping settings and of what else shapes the results: the tool, the reference."""
    text = json.dumps({**settings.shaping(), **more}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_names(name: str, form: str) -> Tuple[str, Optional[str]]:
    """File of an image and of its segmentation (None: the array `seg` of the same .npz)."""
    return (f"{name}.npz", None) if form == "npz" else (f"{name}.nii.gz", f"{name}_seg.nii.gz")
