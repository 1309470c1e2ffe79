# SPDX-License-Identifier: Apache-2.0
"""The overlap of two segmentations, structure by structure, for ``evaluate``: one grid, one numbering, one set of names."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from om_runner.commands.outcome import check_cover
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import Warp, identity_warp
from vxm_convert.geometry.grids import Grid, same_place
from vxm_convert.geometry.maps import compose
from vxm_convert.geometry.resample import resample
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.metrics.labels import LabelSet, load_label_set
from vxm_convert.metrics.numbering import fitting_set, unknown_ids, wrong_numbering
from vxm_convert.metrics.overlap import dice
from vxm_convert.metrics.surfaces import surface_distances
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.scans.values import Volume
from vxm_convert.transforms.partners import check_meeting, image_grid

LOG = logging.getLogger(__name__)
#: mm between corners below which two grids are one
_SAME_MM = 0.1
_SURFACE_RULE = "HD95 = larger of the two 95th percentiles of surface distances; ASSD = mean over both surfaces"


def score_structures(args: argparse.Namespace, warp: Optional[Warp]) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    """Figures over a set of structures, and a row for each.

    Raises
    ------
    VolumeError
        For segmentations that do not lie on one grid, do not meet, or follow another numbering than the set.
    """
    chosen = load_label_set(args.labels)
    fixed = _labels(args.fixed_seg)
    beside = ScanFile(args.moved_seg).grid if warp is None else warp.fixed
    grid = image_grid(ScanFile(args.fixed_seg), beside)
    moved = _moved_labels(args, warp, grid)
    if moved.shape != fixed.data.shape:
        raise VolumeError(
            f"evaluate: moved segmentation {moved.shape}, fixed {fixed.data.shape}; both must lie on the fixed grid"
        )
    if grid.sheared and not args.l2r_compat:
        raise VolumeError(
            f"{args.fixed_seg}: sheared axes, distances in mm would be wrong; resample it, or score in voxels with "
            "--l2r-compat"
        )
    spacing = (1.0, 1.0, 1.0) if args.l2r_compat else grid.spacing_mm
    unknown = _check_ids(args, chosen, fixed.data, moved)
    scores, distances = dice(moved, fixed.data, chosen.ids), surface_distances(moved, fixed.data, chosen.ids, spacing)
    unit = "voxel" if args.l2r_compat else "mm"
    counts = {
        label: (int(np.count_nonzero(moved == label)), int(np.count_nonzero(fixed.data == label)))
        for label in chosen.ids
    }
    rows = [
        {
            "id": label,
            "structure": chosen.names[label],
            "dice": float(scores.per_label[label]),
            f"hd95_{unit}": distances[label].hd95,
            f"assd_{unit}": distances[label].assd,
            "voxels_moved": counts[label][0],
            "voxels_fixed": counts[label][1],
        }
        for label in chosen.ids
    ]
    _check_overlap(args, rows)
    return {**_summary(rows, chosen, unit, args), "ids_not_in_set": len(unknown)}, rows


def _check_ids(args: argparse.Namespace, chosen: LabelSet, fixed: np.ndarray, moved: np.ndarray) -> List[int]:
    """Ids that the set does not name; VolumeError where they follow another numbering."""
    sides = [(args.fixed_seg, fixed), (args.moved_seg or args.moving_seg, moved)]
    for path, data in sides:
        wrong = wrong_numbering(np.unique(data), chosen)
        if wrong is not None:
            raise VolumeError(f"{path}: {wrong}")
    ids = {int(label) for _, data in sides for label in np.unique(data)}
    unknown = unknown_ids(ids, chosen)
    if len(unknown) > len(ids) - len(unknown):
        fits = fitting_set(ids)
        LOG.warning(
            "%d of %d ids are not in %s and are not scored (%s ...)%s",
            len(unknown),
            len(ids - {0}),
            chosen.name,
            ", ".join(str(label) for label in unknown[:5]),
            "" if fits in (None, chosen.name) else f"; --labels {fits} has more of them",
        )
    return unknown


def _check_overlap(args: argparse.Namespace, rows: List[Dict[str, Any]]) -> None:
    """Raise VolumeError where the segmentations have no structure in common, or no voxel of any."""
    both = [row for row in rows if row["id"] != 0 and np.isfinite(row["dice"])]
    paths = f"{args.fixed_seg} and {args.moved_seg or args.moving_seg}"
    if not both:
        raise VolumeError(
            f"{paths}: no structure of the set is in both, so nothing can be scored; name another --labels"
        )
    if all(row["dice"] == 0 for row in both):
        raise VolumeError(
            f"{paths}: none of the {len(both)} structures that both have overlaps by a voxel; the images do not meet, check "
            "headers and the warp"
        )


def _summary(rows: List[Dict[str, Any]], chosen: LabelSet, unit: str, args: argparse.Namespace) -> Dict[str, Any]:
    """Means over the structures present in both, and the rules they follow."""
    figures: Dict[str, Any] = {"label_set": chosen.name, "includes_background": 0 in chosen.ids}
    present = [row for row in rows if np.isfinite(row["dice"])]
    figures["structures_in_both"], figures["structures_missing"] = len(present), len(rows) - len(present)
    for key in ("dice", f"hd95_{unit}", f"assd_{unit}"):
        values = [row[key] for row in present]
        figures[f"{key}_mean"] = float(np.mean(values)) if values else None
        figures[f"{key}_sd"] = float(np.std(values)) if values else None
    figures["rule"] = _SURFACE_RULE
    figures["label_map"] = args.label_map
    figures["interpolation"] = args.interpolation if args.moving_seg is not None else "given"
    return figures


def _moved_labels(args: argparse.Namespace, warp: Optional[Warp], grid: Grid) -> np.ndarray:
    if args.moved_seg is not None:
        moved = _labels(args.moved_seg, args.label_map)
        where = image_grid(ScanFile(args.moved_seg), grid)
        if moved.affine is None or same_place(where, grid, _SAME_MM):
            return moved.data
        onto = identity_warp(grid, where)
        check_meeting(onto, args.moved_seg)
        LOG.warning(
            "%s: on %s, the fixed segmentation on %s; resampled onto it by its header (nearest). Is it moved at all? "
            "--moving-seg with --warp carries one in the moving image's space",
            args.moved_seg,
            where.describe(),
            grid.describe(),
        )
        return resample(moved.data, onto, "nearest")
    moving = _labels(args.moving_seg, args.label_map)
    if warp is None:
        raise VolumeError(f"{args.moving_seg}: needs a warp onto the fixed segmentation's grid; pass --warp")
    home = image_grid(ScanFile(args.moving_seg), warp.moving)
    if same_place(warp.fixed, grid, _SAME_MM):
        warp = warp.on_moving(home)
    else:
        LOG.warning(
            "%s: on %s, the warp on %s; scored on the segmentation's grid, where the warp is interpolated",
            args.fixed_seg,
            grid.describe(),
            warp.fixed.describe(),
        )
        check_cover([warp], [str(args.warp)], grid, "edge")
        warp = compose([warp], grid, home)
    check_meeting(warp, args.moving_seg)
    return resample(moving.data, warp, args.interpolation)


def _labels(path: Path, label_map: Optional[str] = None) -> Volume:
    volume = ScanFile(path).labels()
    if volume is None:
        raise VolumeError(f"{path}: an .npz without 'seg', expected a segmentation")
    if label_map is None:
        return volume
    return replace(volume, data=load_label_map(label_map).apply(volume.data, path))
