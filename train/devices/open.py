# SPDX-License-Identifier: Apache-2.0
"""Opens the backend of a training's device."""

from __future__ import annotations

from train.devices.base import Backend
from train.settings.run import TrainSettings


def open_backend(settings: TrainSettings) -> Backend:
    """The backend of ``settings.device``.

    Raises
    ------
    TrainingError
        If the NPU's cannot be used.
    """
    if settings.device != "npu" and settings.workers:
        from train.devices.workers import WorkerBackend

        return WorkerBackend(settings)
    if settings.device != "npu":
        return Backend(settings)
    from train.devices.npu import NpuBackend  # the only importer of npu_bridge

    return NpuBackend(settings)
