# SPDX-License-Identifier: Apache-2.0
"""What differs between devices: session configuration, kernels, the optimizer's wrapper, steps per call.

The graph and the names of its variables are the same everywhere, so that checkpoints can move between devices.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Dict, Iterator, Optional, Tuple

from train.devices.cpu_blocks import BlockConvolutions
from train.devices.loss_scaling import scaled
from train.settings.run import TrainSettings
from vxm_convert.network.tf1 import tf
from vxm_convert.network.unet import Convolutions

#: For `direct` convolutions. The default CPU kernels build an im2col buffer of voxels × 27 × channels (25 GB at
#: 160x192x224, measured as an allocation failure); the eigen_tensor ones give the same gradients in a fifth of the
#: memory, a quarter faster.
CPU_KERNELS = {"Conv3DBackpropFilterV2": "eigen_tensor", "Conv3DBackpropInputV2": "eigen_tensor"}


class Backend:
    """CPU or GPU; `train.devices.npu` has the NPU's.

    Parameters
    ----------
    settings : TrainSettings
    """

    #: training steps in one call of the session
    steps_per_call = 1
    #: whether pictures of an epoch come from a call of their own, which does not train: for a device that compiles a graph
    #: for every set of fetches, this one has no gradients
    pictures_apart = False
    #: number of this process among those that train together
    rank, ranks = 0, 1

    def __init__(self, settings: TrainSettings) -> None:
        self._settings = settings

    @property
    def convolutions(self) -> Convolutions:
        """The form of the network's convolutions: blocks by default on CPUs; elsewhere the device's own kernels are
        faster.
        """
        chosen = self._settings.convolutions
        blocks = self._settings.device == "cpu" if chosen == "auto" else chosen == "blocks"
        return BlockConvolutions() if blocks else Convolutions()

    @property
    def kernels(self) -> Dict[str, str]:
        """Operation type → label of its kernel, for training nodes; GPUs have no such kernels."""
        return CPU_KERNELS if self._settings.device == "cpu" else {}

    @property
    def target(self) -> str:
        """Where the session connects to; empty for this process."""
        return ""

    @property
    def device_scope(self) -> Optional[str]:
        """Where operations are put; None leaves it to TensorFlow."""
        return None

    @property
    def run_options(self) -> Optional[tf.RunOptions]:
        """Options of the calls that train."""
        return None

    def session_config(self) -> tf.ConfigProto:
        """CPU threads within an operation and between operations, 0 for all; GPU memory grows on demand."""
        threads = self._settings.threads
        config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
        if self._settings.device == "cpu":
            config.device_count["GPU"] = 0
        else:
            config.gpu_options.allow_growth = True
        return config

    def adam(self, learning_rate: float) -> tf.train.Optimizer:
        """The optimizer that the loss scaling wraps."""
        return tf.train.AdamOptimizer(learning_rate)

    def scaled(self, optimizer: tf.train.Optimizer) -> Tuple[tf.train.Optimizer, Optional[tf.Tensor]]:
        """See `train.devices.loss_scaling.scaled`."""
        return scaled(optimizer, self._settings.scale)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Operations made inside keep their data type under mixed precision."""
        yield

    def begin(self, session: tf.Session) -> None:
        """Called once, when the variables hold their first values: initial, loaded or restored ones."""

    def train_op(self, session: tf.Session, update: tf.Operation) -> tf.Operation:
        """The operation that does `steps_per_call` steps; variables are already initialised."""
        return update

    @contextmanager
    def waiting(self, where: str) -> Iterator[None]:
        """Context for calls that may wait for other processes."""
        yield

    def finish(self, session: tf.Session) -> None:
        """Called after the last step, when everything is written."""
