# SPDX-License-Identifier: Apache-2.0
"""The only module that imports npu_bridge. Importing npu_bridge changes TensorFlow's sessions permanently: all of them
then run on the NPU.

Calls follow the adapter's sources (`npu_bridge/npu_init.py`, `npu_bridge/estimator/npu/`).
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from types import ModuleType
from typing import Dict, Iterator, Optional, Tuple

from train.devices.base import Backend
from train.devices.loss_scaling import make_manager
from train.settings.npu import ranks_of
from train.settings.npu_parameters import fill
from train.settings.run import TrainSettings
from vxm_convert.artifacts.files import check_output_folder
from vxm_convert.errors import TrainingError
from vxm_convert.network.tf1 import tf

LOG = logging.getLogger(__name__)

#: name of the adapter's graph optimizer in a session's configuration
OPTIMIZER_NAME = "NpuOptimizer"


def _import_npu_init() -> ModuleType:
    try:
        from npu_bridge import npu_init
    except Exception as exc:  # its loader turns missing libraries into a NameError
        advice = "source CANN's set_env.sh and the tfplugin's, or pass --device cpu"
        raise TrainingError(f"npu_bridge: cannot be imported ({exc}); {advice}") from exc
    module: ModuleType = npu_init
    return module


class NpuBackend(Backend):
    """An Ascend 910; sets the variables of this process's environment that the adapter reads.

    Raises
    ------
    TrainingError
        If npu_bridge cannot be imported.
    SpecError
        For ranks in the environment that do not fit together.
    """

    pictures_apart = True

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__(settings)
        self._npu = settings.npu
        self.steps_per_call = self._npu.iterations_per_loop
        self.rank, self.ranks = ranks_of(os.environ, settings.rank)
        # Set them before the import: the adapter reads them when its library is loaded.
        os.environ.update(self._npu.environment(settings.out, os.environ, settings.rank))
        for folder in self._npu.folders(settings.out):
            check_output_folder(folder)
        self._init = _import_npu_init()
        LOG.info(
            "NPU parameters: %s", ", ".join(f"{k}={v}" for k, v in sorted(self._npu.parameters(settings.out).items()))
        )

    @property
    def kernels(self) -> Dict[str, str]:
        return {}

    def session_config(self) -> tf.ConfigProto:
        """Enable the adapter and disable TensorFlow's remapping and memory optimization, which make operations that it
        does not know.
        """
        config = tf.ConfigProto(allow_soft_placement=True)
        rewrite = config.graph_options.rewrite_options
        custom = rewrite.custom_optimizers.add()
        custom.name = OPTIMIZER_NAME
        fill(custom.parameter_map, self._npu.parameters(self._settings.out))
        rewrite.remapping = self._init.RewriterConfig.OFF
        rewrite.memory_optimization = self._init.RewriterConfig.OFF
        return config

    def adam(self, learning_rate: float) -> tf.train.Optimizer:
        """With several devices, uses the mean of their gradients through HCCL."""
        optimizer = super().adam(learning_rate)
        return self._init.NPUDistributedOptimizer(optimizer) if self.ranks > 1 else optimizer

    def scaled(self, optimizer: tf.train.Optimizer) -> Tuple[tf.train.Optimizer, Optional[tf.Tensor]]:
        """As without an NPU, except that overflows come from the device's status register, which a 910 sets when it
        saturates.
        """
        scale = self._settings.scale
        if scale.kind == "none":
            return optimizer, None
        manager = make_manager(self._init.FixedLossScaleManager, self._init.ExponentialUpdateLossScaleManager, scale)
        return self._init.NPULossScaleOptimizer(
            optimizer, manager, is_distributed=self.ranks > 1
        ), manager.get_loss_scale()

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        if not self._npu.mixed:
            yield
            return
        with self._init.npu_scope.keep_dtype_scope():
            yield

    def begin(self, session: tf.Session) -> None:
        """With several devices, all take the variables of the first: equal seeds do not give equal numbers on devices that
        draw them (documentation of the adapter, tfmigr1_000014). HCCL broadcasts lists of float tensors.
        """
        if self.ranks == 1:
            return
        with session.graph.as_default():
            floats = [variable for variable in tf.global_variables() if variable.dtype.base_dtype.is_floating]
            taken = [
                tf.assign(variable, self._init.hccl_ops.broadcast(tensor=[variable], root_rank=0)[0]).op
                for variable in floats
            ]
            LOG.info("rank %d of %d: %d variables come from the first device", self.rank, self.ranks, len(floats))
            session.run(tf.group(*taken))

    def train_op(self, session: tf.Session, update: tf.Operation) -> tf.Operation:
        """The update, in a loop on the device if requested."""
        if self.steps_per_call == 1:
            return update
        with session.graph.as_default():
            return self._init.util.set_iteration_per_loop(session, update, self.steps_per_call)
