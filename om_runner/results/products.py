# SPDX-License-Identifier: Apache-2.0
"""From the network's moved image and flow to the requested results: space, edges, labels, inverse; and their files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np

from om_runner.inputs.scans import LoadedScan
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import Warp, identity_warp
from vxm_convert.geometry.grids import Grid, same_place
from vxm_convert.geometry.inversion import InverseReport, invert, measure
from vxm_convert.geometry.maps import compose
from vxm_convert.geometry.reference_warp import warp_nearest
from vxm_convert.geometry.resample import resample, to_dtype
from vxm_convert.scans.conform import Placement, conform
from vxm_convert.scans.nifti import DEFAULT_LEVEL
from vxm_convert.transforms.warps import check_right_angles

LOG = logging.getLogger(__name__)

OUTPUTS = ("moved", "warp", "inverse", "seg", "jacobian", "qc")
DEFAULT_OUTPUTS = ("moved", "warp", "seg")
SPACES = ("atlas", "network", "native")
#: command line word → name in `vxm_convert.geometry.resample`
LABEL_INTERPOLATIONS = {"nearest": "nearest", "label-safe": "labels"}


@dataclass(frozen=True)
class OutputOptions:
    """The results to write; `edge` None: zeros if the host resamples, the network's own moved image (clamped) if it
    need not; `level`: of compression, which changes bytes and no voxel.
    """

    outputs: Tuple[str, ...] = DEFAULT_OUTPUTS
    warp_format: str = "itk"
    space: str = "atlas"
    edge: Optional[str] = None
    label_interpolation: str = "nearest"
    level: int = DEFAULT_LEVEL

    def to_dict(self) -> Dict[str, Any]:
        """What determines the voxels of the results."""
        entries = {name: value for name, value in vars(self).items() if name != "level"}
        return {**entries, "outputs": list(self.outputs)}


@dataclass(frozen=True)
class Registered:
    """One registered scan in the requested space.

    Parameters
    ----------
    moved : ndarray, shape of the warp's fixed grid — the scan's own intensities and dtype.
    warp : Warp — output grid → voxels of the scan's file.
    moved_seg, seg_before, fixed_seg : ndarray or None — labels after the warp, after the affine alone (if the atlas has
        some to compare them with), and of the atlas, all on that grid.
    edge : str — rule for values outside the scan.
    by_network : bool — the moved image is the network's own.
    inverse : InverseFound or None — the inverse, if it is known already.
    """

    moved: np.ndarray
    warp: Warp
    moved_seg: Optional[np.ndarray]
    seg_before: Optional[np.ndarray]
    fixed_seg: Optional[np.ndarray]
    edge: str
    by_network: bool
    inverse: Optional[InverseFound] = None


class InverseFound(NamedTuple):
    """From the voxels of the scan's file to those of the atlas's, and how well that undoes the warp."""

    warp: Warp
    report: InverseReport


def inverse_of(
    placement: Placement, home: Grid, flow: np.ndarray, backward: Optional[np.ndarray] = None
) -> InverseFound:
    """The inverse on the scan's own grid, by the model's negative velocity if there is one, else numerically.

    Parameters
    ----------
    home : Grid — of the atlas's file.
    flow, backward : ndarray, shape of the network grid + (3,) — voxels: the model's flow, and its inverse if the model gave
        its velocity.
    """
    forward = placement.final_warp(flow, placement.network)
    if backward is None:
        inverse, _, report = invert(forward)
    else:
        inner = Warp(backward, placement.network, placement.network)
        inverse = compose([placement.exact_affine().inverse(), inner], placement.moving, placement.network)
        report = measure(forward, inverse, "negative velocity")
    return InverseFound(inverse.on_moving(home), report)


def warp_of(loaded: LoadedScan, atlas: LoadedScan, flow: np.ndarray, options: OutputOptions) -> Warp:
    """From the grid of the results to the voxels of the scan's file.

    Parameters
    ----------
    flow : ndarray, shape of the network grid + (3,) — the model's flow, voxels; the warp's own array if scan and output
        are on the network grid.
    """
    place = loaded.placed
    if _plain(loaded, atlas, options):
        return Warp(flow, place.network, place.moving)
    return place.final_warp(flow, output_grid(loaded, atlas, options.space))


def by_network(loaded: LoadedScan, atlas: LoadedScan, options: OutputOptions) -> bool:
    """Whether the moved image is the network's own. A scan whose intensities were fitted is resampled itself: the network
    saw other values.
    """
    return _plain(loaded, atlas, options) and options.edge != "zero" and loaded.source is None


def _plain(loaded: LoadedScan, atlas: LoadedScan, options: OutputOptions) -> bool:
    """Whether scan and results are on the network grid."""
    grid = output_grid(loaded, atlas, options.space)
    return loaded.placed.untouched and same_place(grid, loaded.placed.network)


def register(
    loaded: LoadedScan, atlas: LoadedScan, warp: Warp, moved: Optional[np.ndarray], options: OutputOptions
) -> Registered:
    """Resample the original once, or take the network's own image where `by_network` says so.

    Parameters
    ----------
    warp : Warp — of `warp_of`.
    moved : ndarray, shape of the network grid, or None — the model's moved image, network intensities, where it is taken.
    """
    place, grid, plain = loaded.placed, warp.fixed, _plain(loaded, atlas, options)
    edge = options.edge or ("clamp" if plain else "zero")
    seg = loaded.seg if loaded.source is None else loaded.source.seg
    if moved is not None:
        image = to_source_scale(moved, loaded.stored_dtype, loaded.factor)
    else:
        original = loaded.image * np.float32(loaded.factor) if loaded.source is None else loaded.source.image
        image = to_dtype(resample(original, warp, "linear", edge), loaded.stored_dtype)
    moved_seg = before = None
    fixed_seg = _atlas_labels(atlas, grid)
    if seg is not None:
        how = LABEL_INTERPOLATIONS[options.label_interpolation]
        by_flow = moved is not None and how == "nearest"
        moved_seg = warp_nearest(seg, warp.u) if by_flow else resample(seg, warp, how, edge)
        if fixed_seg is not None:
            by_affine = Placement(grid, place.moving, place.exact_affine())
            before = seg if plain else conform(seg, by_affine, "nearest", edge)
    return Registered(image, warp, moved_seg, before, fixed_seg, edge, moved is not None)


def output_grid(loaded: LoadedScan, atlas: LoadedScan, space: str) -> Grid:
    """The grid of ``atlas`` (that of its file), ``network``, or ``native`` (the scan's own voxels), all in the atlas's
    space.
    """
    grids = {"atlas": atlas.file_grid, "network": loaded.placed.network, "native": loaded.placed.moving}
    if space not in grids:
        raise VolumeError(f"space: got {space!r}, expected one of {', '.join(SPACES)}")
    return grids[space]


def check_formats(loaded: LoadedScan, atlas: LoadedScan, options: OutputOptions) -> None:
    """Refuse, before the device has it, a scan whose grid the format of the warps cannot hold; raises VolumeError."""
    for output, grid in (("warp", output_grid(loaded, atlas, options.space)), ("inverse", loaded.placed.moving)):
        if output in options.outputs:
            check_right_angles(loaded.scan.path, options.warp_format, grid)


def atlas_seg(atlas: LoadedScan) -> Optional[np.ndarray]:
    """The atlas's labels on the grid of its file."""
    return atlas.seg if atlas.source is None else atlas.source.seg


def _atlas_labels(atlas: LoadedScan, grid: Grid) -> Optional[np.ndarray]:
    home, seg = atlas.file_grid, atlas_seg(atlas)
    return seg if seg is None or same_place(grid, home) else resample(seg, identity_warp(grid, home), "nearest")


def to_source_scale(moved: np.ndarray, stored_dtype: str, factor: float) -> np.ndarray:
    """Network intensities converted to the scan's scale (times `factor`) and kind: float32 for a float scan, rounded
    for an integer one.
    """
    values = moved * np.float32(factor)
    return to_dtype(values, stored_dtype) if np.dtype(stored_dtype).kind in "ui" else values
