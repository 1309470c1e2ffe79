# SPDX-License-Identifier: Apache-2.0
"""Registers the validation pairs with the current weights. Changes no weights; diffeomorphic variants use their mean."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from train.data.loading import Loader
from train.data.pairs import Pair
from train.graph.training_graph import TrainingGraph
from vxm_convert.geometry.reference_warp import warp_nearest
from vxm_convert.metrics.jacobian import folding
from vxm_convert.metrics.overlap import dice
from vxm_convert.network.tf1 import tf


def validate(
    session: tf.Session, built: TrainingGraph, pairs: List[Pair], loader: Loader, labels: str
) -> Dict[str, Any]:
    """Means over the pairs: ``image`` (the similarity loss), ``dice``, ``dice_before`` (None without labels),
    ``folding``, ``pairs``.
    """
    rows = [_validate_pair(session, built, pair, loader, labels) for pair in pairs]
    columns = {name: [value for value in (row[name] for row in rows) if value is not None] for name in rows[0]}
    means = {name: float(math.fsum(values) / len(values)) if values else None for name, values in columns.items()}
    return {**means, "pairs": len(rows)}


def score_of(result: Dict[str, Any]) -> Tuple[str, float]:
    """The figure that ranks checkpoints, larger is better: Dice if there are labels, else minus the similarity loss."""
    return ("dice", result["dice"]) if result["dice"] is not None else ("minus image loss", -result["image"])


def _validate_pair(
    session: tf.Session, built: TrainingGraph, pair: Pair, loader: Loader, labels: str
) -> Dict[str, Optional[float]]:
    sample = loader.plain(pair)
    feeds = {}
    for name, tensor in built.inputs.items():
        shape = tensor.shape.as_list()
        # All entries of the batch are the same pair, so the mean over the batch is that of the pair.
        value = sample[name] if name in sample else np.zeros(shape[1:], tensor.dtype.as_numpy_dtype)
        feeds[tensor] = np.broadcast_to(value, shape)
    image, flow = session.run([built.scalars["image"], built.images["flow"]], feeds)
    moving, fixed = loader.labels_of(pair)
    before = after = None
    if moving is not None and fixed is not None and np.isfinite(flow[0]).all():
        ids = loader.label_ids(labels)
        before, after = (dice(seg, fixed, ids).mean for seg in (moving, warp_nearest(moving, flow[0])))
    return {
        "image": float(image),
        "dice": _known(after),
        "dice_before": _known(before),
        "folding": folding(flow[0]).fraction,
    }


def _known(value: Optional[float]) -> Optional[float]:
    return None if value is None or math.isnan(value) else float(value)
