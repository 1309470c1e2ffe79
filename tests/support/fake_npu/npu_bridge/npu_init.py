# SPDX-License-Identifier: Apache-2.0
"""Signatures and side effects as those of the adapter: sessions are changed by the import, arguments of wrong types are
refused.
"""

from __future__ import annotations

import atexit
import json
import os
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Dict, Iterator

import tensorflow as tf
from tensorflow.contrib import mixed_precision
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

__all__ = ["RewriterConfig"]


def record(call: str, **what: Any) -> None:
    with open(os.environ["FAKE_NPU_LOG"], "a") as log:
        log.write(json.dumps({"call": call, **what}) + "\n")


record(
    "import",
    environ={
        k: v
        for k, v in os.environ.items()
        if k in ("JOB_ID", "DUMP_GE_GRAPH", "DUMP_GRAPH_LEVEL", "DUMP_GRAPH_PATH") or k.startswith("HCCL_")
    },
)
atexit.register(record, "npu_close")
_plain_init = tf.Session.__init__


def _values(parameter_map: Any) -> Dict[str, Any]:
    found = {}
    for name, value in parameter_map.items():
        field = value.WhichOneof("value")
        found[name] = [field, value.s.decode() if field == "s" else getattr(value, field)]
    return found


def _session_init(self: Any, target: str = "", graph: Any = None, config: Any = None) -> None:
    rewrite = config.graph_options.rewrite_options
    record(
        "session",
        soft=config.allow_soft_placement,
        remapping=rewrite.remapping,
        memory=rewrite.memory_optimization,
        optimizers={custom.name: _values(custom.parameter_map) for custom in rewrite.custom_optimizers},
    )
    _plain_init(self, target, graph, config)


def _session_run(self: Any, fetches: Any, *args: Any, **kwargs: Any) -> Any:
    """The adapter compiles a graph for every set of fetches; those of a training are written down."""
    flat = tf.contrib.framework.nest.flatten(fetches)
    names = sorted(str(getattr(one, "name", one)) for one in flat)
    if any("Iterator" in name or "gradients" in name or "Adam" in name for name in names) or len(names) > 1:
        record("run", fetches=names)
    return _plain_run(self, fetches, *args, **kwargs)


_plain_run = tf.Session.run
tf.Session.__init__ = _session_init
tf.Session.run = _session_run


class FixedLossScaleManager(mixed_precision.FixedLossScaleManager):
    def __init__(self, loss_scale: float, enable_overflow_check: bool = True) -> None:
        record("fixed", loss_scale=loss_scale)
        super().__init__(loss_scale)


class ExponentialUpdateLossScaleManager(mixed_precision.ExponentialUpdateLossScaleManager):
    def __init__(
        self,
        init_loss_scale: float,
        incr_every_n_steps: int,
        decr_every_n_nan_or_inf: int = 2,
        incr_ratio: float = 2,
        decr_ratio: float = 0.8,
    ) -> None:
        record(
            "exponential", given=[init_loss_scale, incr_every_n_steps, decr_every_n_nan_or_inf, incr_ratio, decr_ratio]
        )
        super().__init__(init_loss_scale, incr_every_n_steps, decr_every_n_nan_or_inf, incr_ratio, decr_ratio)


class NPULossScaleOptimizer(mixed_precision.LossScaleOptimizer):
    def __init__(self, opt: Any, loss_scale_manager: Any, is_distributed: bool = False) -> None:
        record(
            "optimizer", inner=type(opt).__name__, manager=type(loss_scale_manager).__name__, distributed=is_distributed
        )
        super().__init__(opt, loss_scale_manager)


class NPUDistributedOptimizer(tf.train.Optimizer):
    """Passes gradients on, and writes down how many there are to average."""

    def __init__(self, optimizer: Any, is_weight_update_sharding: bool = False) -> None:
        record("distributed", inner=type(optimizer).__name__, size=os.environ.get("RANK_SIZE"))
        super().__init__(name="Distributed", use_locking=False)
        self._optimizer = optimizer

    def compute_gradients(self, *args: Any, **kwargs: Any) -> Any:
        pairs = self._optimizer.compute_gradients(*args, **kwargs)
        record("average", gradients=sum(gradient is not None for gradient, _ in pairs))
        return pairs

    def apply_gradients(self, *args: Any, **kwargs: Any) -> Any:
        return self._optimizer.apply_gradients(*args, **kwargs)


def _broadcast(tensor: Any, root_rank: int, *_: Any) -> Any:
    """The first device's tensors; here a number from the environment takes their place, so that it can be seen."""
    if not isinstance(tensor, list):
        raise ValueError("tensor must be a list")
    record("broadcast", names=[one.name for one in tensor], root=root_rank)
    sent = os.environ.get("FAKE_NPU_SENT")
    return [
        tf.identity(one) if sent is None else tf.fill(tf.shape(one), tf.cast(float(sent), one.dtype)) for one in tensor
    ]


def _set_iteration_per_loop(session: Any, train_op: Any, iterations: int) -> Any:
    """The device would repeat the operation; here it runs once and the counter is moved on."""
    if not isinstance(train_op, tf.Operation):
        raise ValueError("train_op must be an Operation")
    if iterations == 1:
        return train_op
    with tf.variable_scope("npu_runconfig"):
        counters = [
            tf.get_variable(
                name,
                initializer=tf.constant(value, tf.int64),
                collections=[tf.GraphKeys.LOCAL_VARIABLES],
                use_resource=True,
                trainable=False,
            )
            for name, value in (("iterations_per_loop", iterations - 1), ("loop_cond", 0), ("one", 1), ("zero", 0))
        ]
    session.run([counter.initializer for counter in counters])
    record(
        "set_iteration_per_loop",
        iterations=iterations,
        trained=train_op.name,
        same_graph=session.graph is train_op.graph,
    )
    with tf.control_dependencies([train_op]):
        counted = tf.assign_add(tf.train.get_global_step(), iterations - 1)
    return tf.group(train_op, counted, name="IterationOp")


@contextmanager
def _keep_dtype_scope() -> Iterator[None]:
    record("keep_dtype_scope")
    with tf.get_default_graph()._attr_scope({"_keep_dtype": tf.AttrValue(i=1)}):
        yield


hccl_ops = SimpleNamespace(broadcast=_broadcast)
util = SimpleNamespace(set_iteration_per_loop=_set_iteration_per_loop)
npu_scope = SimpleNamespace(keep_dtype_scope=_keep_dtype_scope)
