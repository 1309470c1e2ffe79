# SPDX-License-Identifier: Apache-2.0
"""From the network's moved image and flow to the results that were asked for: space, edges, labels, inverse; and their files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ContextManager, Dict, Optional, Sequence, Tuple

import numpy as np

from om_runner.outputs import FLOW_NAME, MOVED_NAME, MOVED_SEG_NAME, Provenance, record, to_source_scale
from om_runner.scans import LoadedScan
from vxm_convert.errors import VolumeError
from vxm_convert.flowfile import write_flow
from vxm_convert.geometry.conform import Placement
from vxm_convert.geometry.fields import Warp, identity_warp
from vxm_convert.geometry.grids import Grid, same_place
from vxm_convert.geometry.inversion import InverseReport, invert, measure
from vxm_convert.geometry.jacobian import determinant
from vxm_convert.geometry.maps import compose
from vxm_convert.geometry.resample import resample, to_dtype
from vxm_convert.geometry.warpfiles import write_warp
from vxm_convert.labels import label_set
from vxm_convert.metrics import dice
from vxm_convert.nifti import write_nifti
from vxm_convert.warp_numpy import warp_nearest

LOG = logging.getLogger(__name__)

OUTPUTS = ("moved", "warp", "inverse", "seg", "jacobian", "qc")
DEFAULT_OUTPUTS = ("moved", "warp", "seg")
SPACES = ("atlas", "network", "native")
#: command line word → name in `vxm_convert.geometry.resample`
LABEL_INTERPOLATIONS = {"nearest": "nearest", "label-safe": "labels"}
INVERSE_NAME = "inverse.nii.gz"
NATIVE_SEG_NAME = "atlas_seg_in_scan.nii.gz"
JACOBIAN_NAME = "jacobian.nii.gz"


@dataclass(frozen=True)
class OutputOptions:
    """What to write; `edge` None: zeros where the host resamples, the network's own moved image (clamped) where it need not."""

    outputs: Tuple[str, ...] = DEFAULT_OUTPUTS
    warp_format: str = "itk"
    space: str = "atlas"
    edge: Optional[str] = None
    label_interpolation: str = "nearest"

    def to_dict(self) -> Dict[str, Any]:
        return {**vars(self), "outputs": list(self.outputs)}


@dataclass(frozen=True)
class Registered:
    """One registered scan in the space that was asked for.

    Parameters
    ----------
    moved : ndarray, shape of the warp's fixed grid — the scan's own intensities and dtype.
    warp : Warp — output grid → voxels of the scan's file.
    moved_seg, seg_before, fixed_seg : ndarray or None — labels after the warp, after the affine alone, and the atlas's, all on that grid.
    edge : str — what stands beyond the scan.
    by_network : bool — the moved image is the network's own.
    backward : ndarray or None — the inverse flow on the network grid, voxels, where the model gave its velocity.
    """

    moved: np.ndarray
    warp: Warp
    moved_seg: Optional[np.ndarray]
    seg_before: Optional[np.ndarray]
    fixed_seg: Optional[np.ndarray]
    edge: str
    by_network: bool
    backward: Optional[np.ndarray] = None


def register(loaded: LoadedScan, atlas: LoadedScan, moved: np.ndarray, flow: np.ndarray, options: OutputOptions) -> Registered:
    """Compose and resample the original once, or take the network's own image where scan and output lie on the network grid.

    Parameters
    ----------
    moved, flow : ndarray, shapes of the network grid (+ 3) — what the model returned: network intensities, voxels.
    """
    place = loaded.placement
    grid = output_grid(loaded, atlas, options.space)
    plain = place.untouched and same_place(grid, place.network)
    warp = Warp(flow, place.network, place.moving) if plain else place.final_warp(flow, grid)
    by_network = plain and options.edge != "zero"
    edge = options.edge or ("clamp" if by_network else "zero")
    seg = loaded.seg if loaded.source is None else loaded.source.seg
    if by_network:
        image = to_source_scale(moved, loaded.stored_dtype, loaded.factor)
    else:
        original = loaded.image * np.float32(loaded.factor) if loaded.source is None else loaded.source.image
        image = to_dtype(resample(original, warp, "linear", edge), loaded.stored_dtype)
    moved_seg = before = None
    if seg is not None:
        how = LABEL_INTERPOLATIONS[options.label_interpolation]
        moved_seg = warp_nearest(seg, flow) if by_network and how == "nearest" else resample(seg, warp, how, edge)
        before = seg if plain else resample(seg, compose([place.exact_affine()], grid, place.moving), "nearest", edge)
    return Registered(image, warp, moved_seg, before, _atlas_labels(atlas, grid), edge, by_network)


def output_grid(loaded: LoadedScan, atlas: LoadedScan, space: str) -> Grid:
    """The grid of ``atlas`` (as its file has it), ``network``, or ``native`` (the scan's own voxels), all in the atlas's space."""
    grids = {"atlas": atlas_grid(atlas), "network": loaded.placement.network, "native": loaded.placement.moving}
    if space not in grids:
        raise VolumeError(f"space: got {space!r}, expected one of {', '.join(SPACES)}")
    return grids[space]


def atlas_grid(atlas: LoadedScan) -> Grid:
    """The grid of the atlas's file."""
    return atlas.placement.network if atlas.source is None else atlas.source.grid


def atlas_seg(atlas: LoadedScan) -> Optional[np.ndarray]:
    """The atlas's labels on the grid of its file."""
    return atlas.seg if atlas.source is None else atlas.source.seg


def _atlas_labels(atlas: LoadedScan, grid: Grid) -> Optional[np.ndarray]:
    home, seg = atlas_grid(atlas), atlas_seg(atlas)
    return seg if seg is None or same_place(grid, home) else resample(seg, identity_warp(grid, home), "nearest")


class Writer:
    """Writes one subject's folder.

    Parameters
    ----------
    options : OutputOptions
    atlas : LoadedScan
    labels : str — name of the set over which the Dice in the scan's own space is averaged.
    """

    def __init__(self, options: OutputOptions, atlas: LoadedScan, labels: str) -> None:
        self._options, self._atlas, self._labels = options, atlas, labels

    def write(
        self, place: ContextManager[Path], loaded: LoadedScan, done: Registered, flow: np.ndarray, provenance: Provenance
    ) -> None:
        """All files of a subject into the folder that `place` opens; raises VolumeError for a warp that its format cannot hold."""
        wanted = self._options.outputs
        affine_sha = loaded.placement.how.get("affine_sha256")
        provenance = provenance.of({"affine": affine_sha} if affine_sha else {}, placement=loaded.placement.to_dict())
        with_seg = provenance.of({"moving_seg": loaded.seg_sha256} if loaded.seg_sha256 else {})
        affine = done.warp.fixed.affine
        with place as folder:
            if "moved" in wanted:
                write_nifti(folder / MOVED_NAME, done.moved, affine)
                record(folder / MOVED_NAME, provenance, **self._image_entries(done, "linear"), unit="intensity of the moving file")
            if "warp" in wanted:
                self._write_warp(folder / FLOW_NAME, done.warp, provenance)
            if "seg" in wanted and done.moved_seg is not None:
                write_nifti(folder / MOVED_SEG_NAME, done.moved_seg, affine)
                record(folder / MOVED_SEG_NAME, with_seg, **self._image_entries(done, self._options.label_interpolation), unit="label id")
            if "jacobian" in wanted:
                self._write_jacobian(folder / JACOBIAN_NAME, done.warp, provenance)
            if "inverse" in wanted:
                self._write_inverse(folder, loaded, *_inverse(loaded.placement, flow, done.backward), provenance)

    def _image_entries(self, done: Registered, interpolation: str) -> Dict[str, Any]:
        return {
            "maps": f"moving scan resampled once onto the {self._options.space} grid",
            "frame": "the header's affine gives RAS mm of the atlas's space",
            "interpolation": interpolation,
            "edge": done.edge,
            "resampled_by": "the network" if done.by_network else "the host, from the original scan",
        }

    def _write_warp(self, path: Path, warp: Warp, provenance: Provenance) -> None:
        if self._options.warp_format == "itk" and same_place(warp.moving, warp.fixed):
            write_flow(path, warp.u, warp.fixed.affine, provenance.made_from, provenance.toolchain, **provenance.details)
        else:
            write_warp(path, warp, self._options.warp_format, provenance.made_from, provenance.toolchain, **provenance.details)

    @staticmethod
    def _write_jacobian(path: Path, warp: Warp, provenance: Provenance) -> None:
        values = determinant(warp)
        write_nifti(path, values, warp.fixed.affine, np.float32)
        figures = {"folded": int(np.count_nonzero(~(values > 0))), "min": float(values.min()), "max": float(values.max())}
        record(
            path, provenance, holds="determinant of fixed RAS to moving RAS, central differences", unit="1", frame="output grid", **figures
        )

    def _write_inverse(
        self, folder: Path, loaded: LoadedScan, inverse: Warp, report: InverseReport, provenance: Provenance
    ) -> None:
        """The inverse on the scan's own grid, with the atlas's labels carried there."""
        inverse = inverse.on_moving(atlas_grid(self._atlas))
        details = {**provenance.details, "inverse_of": FLOW_NAME, "consistency": report.to_dict()}
        write_warp(folder / INVERSE_NAME, inverse, self._options.warp_format, provenance.made_from, provenance.toolchain, **details)
        subject = loaded.scan.subject
        off = report.fixed_mm
        LOG.info("%s: inverse warp (%s) off by %.3g mm (95 %%), %.3g mm at most", subject, report.method, off.p95, off.max)
        seg = atlas_seg(self._atlas)
        if seg is None or "seg" not in self._options.outputs:
            return
        carried = resample(seg, inverse, LABEL_INTERPOLATIONS[self._options.label_interpolation], "zero")
        write_nifti(folder / NATIVE_SEG_NAME, carried, inverse.fixed.affine)
        own = loaded.seg if loaded.source is None else loaded.source.seg
        score = None if own is None else _mean_dice(carried, own, label_set(self._labels))
        if score is not None:
            LOG.info("%s: Dice (%s) in the scan's own space %.3f", subject, self._labels, score)
        record(
            folder / NATIVE_SEG_NAME,
            provenance,
            maps="atlas's labels carried onto the scan's own grid by the inverse warp",
            frame="the header's affine is that of the scan",
            unit="label id",
            interpolation=self._options.label_interpolation,
            **({} if score is None else {"dice_mean": score, "label_set": self._labels}),
        )


def _inverse(placement: Placement, flow: np.ndarray, backward: Optional[np.ndarray]) -> Tuple[Warp, InverseReport]:
    """From the scan's own grid to the network grid: by the model's negative velocity where it gave one, else numerically."""
    forward = placement.final_warp(flow, placement.network)
    if backward is None:
        inverse, _, report = invert(forward)
        return inverse, report
    inner = Warp(backward, placement.network, placement.network)
    inverse = compose([placement.exact_affine().inverse(), inner], placement.moving, placement.network)
    return inverse, measure(forward, inverse, "negative velocity")


def _mean_dice(a: np.ndarray, b: np.ndarray, labels: Sequence[int]) -> Optional[float]:
    mean = dice(a, b, labels).mean
    return float(mean) if mean is not None and np.isfinite(mean) else None
