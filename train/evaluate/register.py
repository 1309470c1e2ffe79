# SPDX-License-Identifier: Apache-2.0
"""Scores of a checkpoint: registers pairs with TensorFlow on the CPU, one at a time, and keeps nothing but the
figures.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import List, Sequence

import numpy as np
from tqdm import tqdm

from train.data.loading import Loader
from train.data.pairs import Pair
from train.evaluate.scores import SubjectScores, label_scores
from train.graph.initial import load_initial
from vxm_convert.errors import TrainingError
from vxm_convert.geometry.reference_warp import warp_nearest
from vxm_convert.metrics.jacobian import folding
from vxm_convert.model.variables import FIXED_NODE, FLOW_NODE, MOVED_NODE, MOVING_NODE
from vxm_convert.network.inference_graph import build_inference_graph
from vxm_convert.network.tf1 import tf

LOG = logging.getLogger(__name__)


def score_pairs(
    checkpoint: Path, pairs: Sequence[Pair], loader: Loader, ids: Sequence[int], h5_indexing: str, threads: int
) -> List[SubjectScores]:
    """One row per pair, in their order.

    Raises
    ------
    TrainingError
        If the network gives something that is no number.
    CheckpointError, VolumeError
        For weights that do not fit and scans that cannot be read.
    """
    graph = build_inference_graph(loader.spec)
    config = tf.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads, device_count={"GPU": 0}
    )
    with tf.Session(graph=graph, config=config) as session:
        load_initial(session, checkpoint, loader.spec, h5_indexing)
        return [_score(session, pair, loader, ids) for pair in tqdm(pairs, unit="scan", disable=None)]


def _score(session: tf.Session, pair: Pair, loader: Loader, ids: Sequence[int]) -> SubjectScores:
    sample = loader.plain(pair)
    moving, fixed = sample["moving"], sample["fixed"]
    start = time.time()
    moved, flow = session.run(
        [MOVED_NODE + ":0", FLOW_NODE + ":0"], {MOVING_NODE + ":0": moving[None], FIXED_NODE + ":0": fixed[None]}
    )
    seconds = time.time() - start
    if not (np.isfinite(flow).all() and np.isfinite(moved).all()):
        raise TrainingError(f"{pair.moving}: the network's result is no number; take another checkpoint")
    before = after = None
    labels, fixed_labels = loader.labels_of(pair)
    if labels is None or fixed_labels is None:
        LOG.warning("%s: no segmentation of %s, no Dice", pair.name, "it" if labels is None else "its fixed scan")
    else:
        before, after = (label_scores(seg, fixed_labels, ids) for seg in (labels, warp_nearest(labels, flow[0])))
    return SubjectScores(
        pair.name,
        before,
        after,
        _difference(moving, fixed),
        _difference(moved[0], fixed),
        float(folding(flow[0]).fraction),
        round(seconds, 4),
    )


def _difference(image: np.ndarray, fixed: np.ndarray) -> float:
    """Mean squared difference, intensities 0..1."""
    return float(np.mean(np.square(image.astype(np.float64) - fixed)))
