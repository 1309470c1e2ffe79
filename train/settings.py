# SPDX-License-Identifier: Apache-2.0
"""What one training run is made from. Checks values; opens no file."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

from vxm_convert.errors import SpecError
from vxm_convert.spec import ModelSpec

#: loss → weight of the smoothness term when none is given (voxelmorph legacy, `src/train.py`: 0.01 for mse, 1.0 for ncc)
DEFAULT_SMOOTHNESS: Dict[str, float] = {"mse": 0.01, "ncc": 1.0}
PENALTIES = ("l2", "l1")


@dataclass(frozen=True)
class TrainSettings:
    """One run.

    Parameters
    ----------
    data, atlas, out : Path — folder of scans, fixed image, output folder.
    spec : ModelSpec — network, volume shape and batch.
    learning_rate : float — Adam's.
    epochs, steps_per_epoch : int — the latter None for one pass over the scans.
    loss : str — ``mse`` or ``ncc``.
    smoothness : float — weight λ of the smoothness term; None for the loss's default.
    penalty : str — ``l2`` or ``l1`` of the flow's gradient.
    seed : int — initial weights and order of the scans.
    keep : int — newest checkpoints to keep.
    """

    data: Path
    atlas: Path
    out: Path
    spec: ModelSpec
    learning_rate: float = 1e-4
    epochs: int = 50
    steps_per_epoch: Optional[int] = None
    loss: str = "mse"
    smoothness: Optional[float] = None
    penalty: str = "l2"
    seed: int = 0
    keep: int = 5

    def __post_init__(self) -> None:
        if self.loss not in DEFAULT_SMOOTHNESS:
            raise SpecError(f"loss: got {self.loss!r}, expected one of {', '.join(DEFAULT_SMOOTHNESS)}; pass --loss mse")
        if self.penalty not in PENALTIES:
            raise SpecError(f"penalty: got {self.penalty!r}, expected one of {', '.join(PENALTIES)}; pass --penalty l2")
        if self.smoothness is None:
            object.__setattr__(self, "smoothness", DEFAULT_SMOOTHNESS[self.loss])
        _check_range("lr", self.learning_rate, self.learning_rate > 0, "a number above 0", "1e-4")
        _check_range("lambda", self.smoothness, self.smoothness >= 0, "a number of at least 0", "0.01")
        _check_range("epochs", self.epochs, self.epochs >= 1, "at least 1", "50")
        _check_range("keep", self.keep, self.keep >= 1, "at least 1", "5")
        _check_range("seed", self.seed, 0 <= self.seed < 2 ** 31, f"0 to {2 ** 31 - 1}", "0")
        if self.steps_per_epoch is not None:
            _check_range("steps-per-epoch", self.steps_per_epoch, self.steps_per_epoch >= 1, "at least 1", "100")


def _check_range(option: str, value: Any, holds: bool, expected: str, example: str) -> None:
    if not holds:
        raise SpecError(f"{option}: got {value}, expected {expected}; pass --{option} {example}")
