# SPDX-License-Identifier: Apache-2.0
"""Training in several processes on CPUs or GPUs: each takes its share of every batch, gradients are averaged between
them.

Plain TensorFlow 1.15: a `tf.train.Server` in every process and one collective sum per step over all gradients as one
vector, so that every process makes the same update of the same weights. Only the first one writes checkpoints.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional, Tuple

from tensorflow.python.ops import collective_ops

from train.devices.base import Backend
from train.settings.run import TrainSettings
from vxm_convert.errors import EXIT_USER, TrainingError
from vxm_convert.network.tf1 import tf

LOG = logging.getLogger(__name__)

_JOB = "worker"
#: arbitrary numbers, the same in every process: the group of processes, the two collectives, their graph
_GROUP, _GRADIENTS, _BARRIER, _GRAPH = 1, 1, 2, 1


class WorkerBackend(Backend):
    """The process at ``settings.rank`` of ``settings.workers``.

    Raises
    ------
    TrainingError
        If its port cannot be opened.
    """

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__(settings)
        self.rank, self.ranks = settings.rank, len(settings.workers)
        cluster = tf.train.ClusterSpec({_JOB: list(settings.workers)})
        try:
            self._server = tf.train.Server(cluster, job_name=_JOB, task_index=self.rank, config=self.session_config())
        except tf.errors.OpError as exc:
            raise TrainingError(
                f"workers: cannot serve at {settings.workers[self.rank]} ({exc.message}); choose a free port"
            ) from exc
        self._barrier: Optional[Any] = None
        LOG.info("worker %d of %d at %s", self.rank, self.ranks, settings.workers[self.rank])

    @property
    def target(self) -> str:
        return str(self._server.target)

    @property
    def device_scope(self) -> str:
        return f"/job:{_JOB}/task:{self.rank}"

    def session_config(self) -> tf.ConfigProto:
        """As for a single process, but no operation is placed in another process, and the first process leads."""
        config = super().session_config()
        config.experimental.collective_group_leader = f"/job:{_JOB}/replica:0/task:0"
        config.device_filters.append(self.device_scope)
        config.isolate_session_state = True
        # The sum of the gradients waits in a separate thread while the next batches are read.
        config.inter_op_parallelism_threads = max(4, self._settings.threads) if self._settings.threads else 0
        return config

    @property
    def run_options(self) -> tf.RunOptions:
        return tf.RunOptions(experimental=tf.RunOptions.Experimental(collective_graph_key=_GRAPH))

    @contextmanager
    def waiting(self, where: str) -> Iterator[None]:
        """Ends the process if its body takes too long: TensorFlow 1.15 cannot cancel a sum that waits for another
        process.
        """
        timer = threading.Timer(self._settings.worker_timeout, self._leave, (where,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def adam(self, learning_rate: float) -> tf.train.Optimizer:
        """Adam on the mean of the gradients of all processes."""
        self._barrier = self._sum(tf.zeros([1]), _BARRIER)
        return _AveragingAdam(learning_rate, self._mean)

    def finish(self, session: tf.Session) -> None:
        """Wait until every process has made its last step, so that none leaves while another still reads from it.

        Whoever gets through here knows that all have come this far; one that fails was left alone after the last step.
        """
        try:
            with self.waiting("after the last step, with everything written"):
                session.run(self._barrier, options=self.run_options)
        except tf.errors.OpError as exc:
            LOG.debug("closing: %s", exc.message)

    def _leave(self, where: str) -> None:
        sys.stderr.write(
            f"train: error: {where}: another worker has not answered for {self._settings.worker_timeout} s; stop all "
            "of them and start them again with --resume\n"
        )
        sys.stderr.flush()
        os._exit(EXIT_USER)

    def _mean(self, gradients: List[tf.Tensor]) -> List[tf.Tensor]:
        """One collective for all, as one vector: several could wait for each other in different orders."""
        sizes = [g.shape.num_elements() for g in gradients]
        total = self._sum(tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0), _GRADIENTS)
        parts = tf.split(total / self.ranks, sizes)
        return [tf.reshape(part, g.shape) for part, g in zip(parts, gradients)]

    def _sum(self, vector: tf.Tensor, key: int) -> tf.Tensor:
        with tf.device(f"{self.device_scope}/device:CPU:0"):
            return collective_ops.all_reduce(tf.identity(vector), self.ranks, _GROUP, key, "Add", "Id", (0,), "ring")


class _AveragingAdam(tf.train.AdamOptimizer):
    """Keeps Adam's name, so that its slots keep their names."""

    def __init__(self, learning_rate: float, mean: Callable[[List[tf.Tensor]], List[tf.Tensor]]) -> None:
        super().__init__(learning_rate)
        self._mean_of = mean

    def compute_gradients(self, *args: object, **kwargs: object) -> List[Tuple[tf.Tensor, tf.Variable]]:
        pairs = [(g, v) for g, v in super().compute_gradients(*args, **kwargs) if g is not None]
        return list(zip(self._mean_of([g for g, _ in pairs]), [v for _, v in pairs]))
