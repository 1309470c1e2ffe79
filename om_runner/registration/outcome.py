# SPDX-License-Identifier: Apache-2.0
"""What the model's outputs for one scan amount to: results in the requested space and their figures, or a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from om_runner.inputs.scans import LoadedScan
from om_runner.qc.measures import correlation, white_of
from om_runner.registration.plausible import check_moved, check_outputs
from om_runner.results.products import OutputOptions, Registered, by_network, inverse_of, register, warp_of
from vxm_convert.geometry.velocity import inverse_flow
from vxm_convert.metrics.numbering import are_foreign, ids_in
from vxm_convert.metrics.overlap import dice
from vxm_convert.profiles.profile import Profile


@dataclass(frozen=True)
class ModelOutputs:
    """The model's outputs for one scan, on the network grid.

    Parameters
    ----------
    moved : ndarray, shape (X, Y, Z), float32 — network intensities.
    flow : ndarray, shape (X, Y, Z, 3), float32 — voxels.
    velocity : ndarray, shape (X/2, Y/2, Z/2, 3), or None — of a diffeomorphic model.
    """

    moved: np.ndarray
    flow: np.ndarray
    velocity: Optional[np.ndarray] = None


def products_of(
    loaded: LoadedScan,
    atlas: LoadedScan,
    outputs: List[ModelOutputs],
    options: OutputOptions,
    profile: Profile,
    labels: Sequence[int],
    steps: int,
) -> Tuple[Registered, Dict[str, Any]]:
    """Results and figures of a scan; the figures have the names of the columns of metrics.tsv.

    Parameters
    ----------
    outputs : list of one ModelOutputs — taken from it, and let go as soon as nothing more follows from them.
    steps : int — integration steps of a diffeomorphic model: its negative velocity gives the inverse.

    Raises
    ------
    ImplausibleError
        What the model returned cannot be a registration of this scan.
    VolumeError
        If the results cannot be made on the requested grid.
    """
    path, model = loaded.scan.path, outputs.pop()
    folds, longest = check_outputs(path, loaded.image, atlas.image, model.moved, model.flow, model.velocity, profile)
    inverse = None
    if "inverse" in options.outputs:
        # Before the warp on the grid of the results, which at 256³ voxels takes 200 MB: each needs the room alone.
        backward = None if model.velocity is None else inverse_flow(model.velocity, steps)
        inverse = inverse_of(loaded.placed, atlas.file_grid, model.flow, backward)
    white, every = white_of(atlas.image), tuple(slice(None, None, 2) for _ in range(3))
    ncc_after = correlation(atlas.image[every], model.moved[every], white)
    warp, moved = warp_of(loaded, atlas, model.flow, options), None
    if by_network(loaded, atlas, options):
        moved = model.moved
    # Moved scan and labels have the room of the model's outputs, 110 MB at full size.
    del model
    done = replace(register(loaded, atlas, warp, moved, options), inverse=inverse)
    check_moved(path, done.moved, loaded.image if loaded.source is None else loaded.source.image)
    overlaps = _dice(done, labels)
    # They only serve the Dice before; on the atlas's grid they take as much memory as the moved labels.
    return replace(done, seg_before=None), {
        **overlaps,
        "ncc_before": correlation(atlas.image[every], loaded.image[every], white),
        "ncc_after": ncc_after,
        "affine_overlap": loaded.placed.how.get("affine_overlap_dice"),
        "folding_fraction": folds.fraction,
        "jacobian_min": folds.minimum,
        "flow_max_voxel": longest,
    }


def _dice(done: Registered, labels: Sequence[int]) -> Dict[str, Any]:
    known_ids = done.moved_seg is not None and done.fixed_seg is not None
    # Numbers of another tool would be scored under the names of other structures; the reader of the scan says so.
    if not known_ids or are_foreign(ids_in(done.moved_seg)) or are_foreign(ids_in(done.fixed_seg)):
        return {"dice_before": None, "dice_after": None, "n_labels": None, "structures": {}}
    before, after = dice(done.seg_before, done.fixed_seg, labels), dice(done.moved_seg, done.fixed_seg, labels)
    known = {label: [before.per_label[label], score] for label, score in after.per_label.items()}
    return {
        "dice_before": before.mean,
        "dice_after": after.mean,
        "n_labels": after.n_labels,
        "structures": {
            str(label): [None if math.isnan(score) else float(score) for score in scores]
            for label, scores in sorted(known.items())
            if not all(map(math.isnan, scores))
        },
    }
