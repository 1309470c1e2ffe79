# SPDX-License-Identifier: Apache-2.0
"""The BIDS side-car of each result, made from the writer's record beside it (``<file>.json``) and from the file itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from om_runner.bids import names
from om_runner.bids.dataset import read_object
from om_runner.names import FLOW_NAME, INVERSE_NAME, JACOBIAN_NAME, MOVED_NAME, MOVED_SEG_NAME, NATIVE_SEG_NAME
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.checks import skull_doubt
from vxm_convert.scans.scan_file import ScanFile

#: share of zero voxels below which no brain was extracted
_CUT_OUT = 0.2


@dataclass(frozen=True)
class Sources:
    """BIDS URIs of a result's sources, and the name of the scan.

    Parameters
    ----------
    scan, atlas, seg : str — URIs; `seg` None if the scan has none.
    naming : Naming
    method : str — the registration in one sentence, with what was simulated.
    scan_path : Path — the scan, whose own side-car may say that it is skull-stripped.
    """

    scan: str
    atlas: str
    seg: Optional[str]
    naming: names.Naming
    method: str
    scan_path: Path


def sidecar_of(plain: str, path: Path, noted: Dict[str, Any], sources: Sources) -> Optional[Dict[str, Any]]:
    """Entries for a result with that plain name; None for a file without a BIDS side-car.

    Parameters
    ----------
    path : Path — the file at its present path.
    noted : dict — the writer's record of it.
    """
    make = _MAKERS.get(plain)
    if make is None:
        return None
    entries = {
        **make(path, noted, sources),
        "RegistrationMethod": sources.method,
        "Simulated": bool(noted.get("simulated")),
    }
    return {key: value for key, value in entries.items() if value is not None}


def labels_in(path: Path) -> List[int]:
    """The labels of a segmentation, ascending."""
    volume = ScanFile(path).labels()
    return [] if volume is None else [int(label) for label in np.unique(volume.data)]


def _moved(path: Path, noted: Dict[str, Any], sources: Sources) -> Dict[str, Any]:
    stripped, how = _skull_stripped(path, sources.scan_path)
    return {
        "Description": f"{sources.naming.suffix} resampled once onto the atlas, in its own intensities",
        "Sources": [sources.scan, sources.atlas],
        **_grid(noted, sources),
        "SkullStripped": stripped,
        "SkullStrippedFrom": how,
    }


def _moved_seg(path: Path, noted: Dict[str, Any], sources: Sources) -> Dict[str, Any]:
    return {
        "Description": "The scan's own labels carried onto the atlas by the warp",
        "Sources": [sources.seg or sources.scan, sources.atlas],
        **_grid(noted, sources),
        "Manual": False,
        "Labels": labels_in(path),
    }


def _native_seg(path: Path, noted: Dict[str, Any], sources: Sources) -> Dict[str, Any]:
    return {
        "Description": "The atlas's labels carried onto the scan's own grid by the inverse warp",
        "Sources": [sources.scan, sources.atlas],
        "SpatialReference": sources.scan,
        "Manual": False,
        "Interpolation": noted.get("interpolation"),
        "DiceMean": noted.get("dice_mean"),
        "DiceLabelSet": noted.get("label_set"),
        "Labels": labels_in(path),
    }


def _jacobian(path: Path, noted: Dict[str, Any], sources: Sources) -> Dict[str, Any]:
    return {
        "Description": "Jacobian determinant of the map from atlas to scan: above 1 the scan is larger than the "
        "atlas, at most 0 it folds",
        "Sources": [sources.scan, sources.atlas],
        **_grid(noted, sources),
        "Units": "1",
        "FoldedVoxels": noted.get("folded"),
    }


def _warp(path: Path, noted: Dict[str, Any], sources: Sources) -> Dict[str, Any]:
    return _transform(noted, sources, sources.naming.source(), sources.naming.atlas, (sources.scan, sources.atlas))


def _inverse(path: Path, noted: Dict[str, Any], sources: Sources) -> Dict[str, Any]:
    entries = _transform(noted, sources, sources.naming.atlas, sources.naming.source(), (sources.atlas, sources.scan))
    return {**entries, "InverseConsistency": noted.get("consistency")}


def _transform(
    noted: Dict[str, Any], sources: Sources, moving: str, fixed: str, uris: Tuple[str, str]
) -> Dict[str, Any]:
    return {
        "Description": f"Displacement field that resamples images of {moving} onto {fixed} (it maps points of {fixed} "
        f"to {moving})",
        "Sources": [sources.scan, sources.atlas],
        "FromFile": uris[0],
        "ToFile": uris[1],
        "WarpFormat": noted.get("warp_format", "itk"),
        "Layout": noted.get("layout"),
        "Units": noted.get("unit"),
        "Frame": noted.get("frame"),
        "ReadableBy": noted.get("readable_by"),
    }


_MAKERS: Dict[str, Callable[[Path, Dict[str, Any], Sources], Dict[str, Any]]] = {
    MOVED_NAME: _moved,
    MOVED_SEG_NAME: _moved_seg,
    NATIVE_SEG_NAME: _native_seg,
    JACOBIAN_NAME: _jacobian,
    FLOW_NAME: _warp,
    INVERSE_NAME: _inverse,
}


def _grid(noted: Dict[str, Any], sources: Sources) -> Dict[str, Any]:
    grids = {
        "network": "grid of the network, in the atlas's space",
        "native": "the scan's own voxels, in the atlas's space",
    }
    return {
        "SpatialReference": sources.atlas,
        "Resolution": grids.get(sources.naming.space),
        "Interpolation": noted.get("interpolation"),
        "Edge": noted.get("edge"),
    }


def _skull_stripped(moved: Path, scan: Path) -> Tuple[bool, str]:
    """Whether the scan was skull-stripped, and the source: its side-car, its name, else its voxels."""
    name = names.parse(scan.name)
    side = scan.with_name(scan.name[: -len(name.extension)] + ".json")
    try:
        said = read_object(side).get("SkullStripped") if side.is_file() else None
    except VolumeError:
        # The scan itself is intact; the voxels replace the information of its side-car.
        said = None
    if isinstance(said, bool):
        return said, "the side-car of the scan"
    if name.entities.get("desc") == "brain":
        return True, "the name of the scan"
    volume = ScanFile(moved).image()
    headed = skull_doubt(volume.data, Grid(volume.data.shape, volume.affine))
    stripped = headed is None and float(np.mean(volume.data == 0)) >= _CUT_OUT
    return stripped, "judged from the voxels: share of zeros, volume of bright voxels"
