# SPDX-License-Identifier: Apache-2.0
"""Weights in files: TensorFlow checkpoints and Keras files with the values a test gives."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np
import pytest

from vxm_convert.model.spec import ModelSpec

#: the network whose weights most tests of the export write
SPEC = ModelSpec("vm2", (16, 16, 32))


def write_checkpoint(prefix: Path, values: Dict[str, np.ndarray]) -> Path:
    """A TensorFlow checkpoint with these variables."""
    pytest.importorskip("tensorflow")
    from vxm_convert.network.tf1 import tf

    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.Variable(value, name=name) for name, value in values.items()]
        session.run([v.initializer for v in variables])
        tf.train.Saver(variables).save(session, str(prefix), write_meta_graph=False)
    return prefix


def write_h5(path: Path, values: Dict[str, np.ndarray], first_number: int = 67, flow_name: str = "flow_6") -> Path:
    """A Keras-style weights file: conv3d layers numbered from anywhere, written in an order that is not theirs."""
    import h5py

    with h5py.File(str(path), "w") as handle:
        root = handle.create_group("model_weights")
        root.create_group("input_13")
        for name, value in sorted(values.items(), reverse=True):
            layer, kind = name.split("/")
            outer = inner = layer
            if layer.startswith("conv3d"):
                outer = inner = f"conv3d_{first_number + int(layer[7:] or 0)}"
            elif layer == "flow":
                inner = flow_name
            root.require_group(outer).require_group(inner).create_dataset(kind + ":0", data=value)
    return path
