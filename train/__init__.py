# SPDX-License-Identifier: Apache-2.0
"""The training stage: scans and an atlas become a checkpoint; nothing here exports or registers cohorts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vxm_convert.lazy import public_names

if TYPE_CHECKING:
    from train.api import Checkpoints as Checkpoints
    from train.api import train as train
    from train.api import train_with as train_with
    from train.settings.run import DataSettings as DataSettings
    from train.settings.run import LossSettings as LossSettings
    from train.settings.run import SyntheticData as SyntheticData
    from train.settings.run import TrainSettings as TrainSettings
    from vxm_convert.model.spec import ModelSpec as ModelSpec

__all__ = [
    "Checkpoints",
    "DataSettings",
    "LossSettings",
    "ModelSpec",
    "SyntheticData",
    "TrainSettings",
    "train",
    "train_with",
]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "Checkpoints": "train.api",
        "DataSettings": "train.settings.run",
        "LossSettings": "train.settings.run",
        "ModelSpec": "vxm_convert.model.spec",
        "SyntheticData": "train.settings.run",
        "TrainSettings": "train.settings.run",
        "train": "train.api",
        "train_with": "train.api",
    },
)
