# SPDX-License-Identifier: Apache-2.0
"""The size of the volumes that the tests of training use, and training without the rewriting of graphs."""

from __future__ import annotations

from typing import Any, Callable

#: voxels of the synthetic cohort in tests/train
SHAPE = (16, 16, 32)


def run_graphs_as_built(setattr_: Callable[[Any, str, Any], None] = setattr) -> None:
    """Sessions of training leave out what TensorFlow rewrites in a graph: a third of the time of a short run."""
    from train.devices.base import Backend

    configure = Backend.session_config

    def plain(backend: Any) -> Any:
        config = configure(backend)
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        return config

    setattr_(Backend, "session_config", plain)
