# SPDX-License-Identifier: Apache-2.0
"""Loss scaling without an NPU: TensorFlow's own managers, with the variable names of npu_bridge's.

The loss is multiplied by a scale before the gradients are taken and the gradients are divided by it afterwards, so that
small ones do not vanish in float16. A step whose gradients are not finite changes no weight and no moment of Adam.
Because the update is then inside a `tf.cond`, Adam's counters are saved as ``cond/beta1_power`` and
``cond/beta2_power``, on every device.
"""

from __future__ import annotations

from typing import Callable, Optional, Tuple, TypeVar

from train.settings.run import ScaleSettings
from vxm_convert.network.tf1 import tf

Manager = TypeVar("Manager")

GROWTH, SHRINKAGE = 2.0, 0.5
#: in the positions of npu_bridge's constructors
SCALE_VARIABLES = ("loss_scale", "good_steps", "bad_steps")


def make_manager(
    fixed: Callable[[float], Manager], exponential: Callable[..., Manager], settings: ScaleSettings
) -> Manager:
    """A manager out of the classes of TensorFlow or of npu_bridge, whose parameters are the same."""
    if settings.kind == "fixed":
        return fixed(settings.value)
    return exponential(
        init_loss_scale=settings.value,
        incr_every_n_steps=settings.grow_every,
        decr_every_n_nan_or_inf=settings.shrink_after,
        incr_ratio=GROWTH,
        decr_ratio=SHRINKAGE,
    )


def scaled(optimizer: tf.train.Optimizer, settings: ScaleSettings) -> Tuple[tf.train.Optimizer, Optional[tf.Tensor]]:
    """(the optimizer around `optimizer`, the scale as a tensor); (optimizer, None) where nothing is scaled."""
    if settings.kind == "none":
        return optimizer, None
    # Here, because importing tf.contrib takes seconds.
    from tensorflow.contrib import mixed_precision as tf_scaling

    manager = make_manager(tf_scaling.FixedLossScaleManager, tf_scaling.ExponentialUpdateLossScaleManager, settings)
    return tf_scaling.LossScaleOptimizer(optimizer, manager), manager.get_loss_scale()
