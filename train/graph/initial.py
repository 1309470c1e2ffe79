# SPDX-License-Identifier: Apache-2.0
"""Weights that a run starts from: a TensorFlow checkpoint (one trained on an Ascend 910 included) or a Keras
``.h5``.
"""

from __future__ import annotations

import logging
from pathlib import Path

from vxm_convert.model.spec import ModelSpec
from vxm_convert.network.restore import load_weights
from vxm_convert.network.tf1 import tf
from vxm_convert.weights.files import find_checkpoint

LOG = logging.getLogger(__name__)


def load_initial(session: tf.Session, source: Path, spec: ModelSpec, h5_indexing: str) -> None:
    """Put the network's weights into the session's graph; optimizer and step counter stay as they are.

    Raises
    ------
    CheckpointError
        See `vxm_convert.network.restore.load_weights`.
    """
    weights = load_weights(find_checkpoint(source), spec, h5_indexing)
    with session.graph.as_default():
        for variable in tf.trainable_variables():
            variable.load(weights[variable.op.name], session)
    LOG.info("weights from %s, %d parameters", source, sum(w.size for w in weights.values()))
