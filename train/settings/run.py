# SPDX-License-Identifier: Apache-2.0
"""Settings of a training run. Checks values; opens no file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from train.settings.npu import NpuSettings
from vxm_convert.errors import SpecError
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LABEL_SETS
from vxm_convert.model.spec import ModelSpec

#: loss → default weight of the smoothness term (voxelmorph legacy, `src/train.py`: 0.01 for mse, 1.0 for ncc)
DEFAULT_SMOOTHNESS: Dict[str, float] = {"mse": 0.01, "ncc": 1.0}
PENALTIES = ("l2", "l1")
#: partner of each scan
PAIRINGS = ("atlas", "scans")
AUGMENTATIONS = ("flip", "intensity")
SPLIT_NAMES = ("train", "validation", "test")
SCALINGS = ("none", "fixed", "exponential")
CONVOLUTIONS = ("auto", "direct", "blocks")


@dataclass(frozen=True)
class LossSettings:
    """The loss.

    Parameters
    ----------
    image : str — ``mse`` or ``ncc``.
    smoothness : float — weight λ of the smoothness term; None for the image loss's default. Diffeomorphic variants do
        not use it.
    penalty : str — ``l2`` or ``l1`` of the flow's gradient.
    prior_lambda, image_sigma : float — strength of the velocity's prior, standard deviation of the image noise; of
        diffeomorphic
        variants, defaults as published (voxelmorph legacy, `src/train_miccai2018.py`).
    bidirectional : bool — also compare the fixed image, warped by the inverse, with the moving one; for diffeomorphic
        variants.
    dice_weight : float — weight of the overlap of the segmentations; 0: off.
    labels : str — label set of that overlap and of the validation Dice.
    """

    image: str = "mse"
    smoothness: Optional[float] = None
    penalty: str = "l2"
    prior_lambda: float = 10.0
    image_sigma: float = 0.02
    bidirectional: bool = False
    dice_weight: float = 0.0
    labels: str = DEFAULT_LABEL_SET

    def __post_init__(self) -> None:
        check_choice("loss", self.image, tuple(DEFAULT_SMOOTHNESS))
        check_choice("penalty", self.penalty, PENALTIES)
        check_choice("labels", self.labels, tuple(sorted(LABEL_SETS)))
        smoothness = DEFAULT_SMOOTHNESS[self.image] if self.smoothness is None else self.smoothness
        object.__setattr__(self, "smoothness", smoothness)
        check_range("lambda", smoothness, 0 <= smoothness < float("inf"), "a number of at least 0", "0.01")
        check_range("prior-lambda", self.prior_lambda, 0 < self.prior_lambda < float("inf"), "a number above 0", "10")
        check_range("image-sigma", self.image_sigma, 0 < self.image_sigma < float("inf"), "a number above 0", "0.02")
        check_range(
            "dice-weight", self.dice_weight, 0 <= self.dice_weight < float("inf"), "a number of at least 0", "0"
        )


@dataclass(frozen=True)
class SyntheticData:
    """Pairs made on the fly (`vxm_convert.synthetic.training_pairs`) instead of scans.

    Parameters
    ----------
    heads, same_contrast : float — shares of the pairs, see there.
    validation : int — pairs to validate with after every epoch.
    processes : int — that make pairs.
    """

    heads: float = 0.5
    same_contrast: float = 0.5
    validation: int = 16
    processes: int = 1

    def __post_init__(self) -> None:
        check_range("synthetic-heads", self.heads, 0 <= self.heads <= 1, "a share from 0 to 1", "0.5")
        check_range("same-contrast", self.same_contrast, 0 <= self.same_contrast <= 1, "a share from 0 to 1", "0.5")
        check_range("validation-pairs", self.validation, 0 <= self.validation <= 1000, "0 to 1000", "16")
        check_range("makers", self.processes, 0 <= self.processes <= 64, "0 to 64", "1")

    def to_dict(self) -> Dict[str, Any]:
        """What shapes the weights."""
        return {"heads": self.heads, "same_contrast": self.same_contrast, "validation": self.validation}


@dataclass(frozen=True)
class DataSettings:
    """The training data.

    Parameters
    ----------
    source : Path — folder of scans, or a manifest (.csv or .txt); None with synthetic pairs.
    atlas : Path — fixed image; None only if scans are registered to each other.
    pairing : str — ``atlas``: every scan to the atlas; ``scans``: every scan to another one.
    split : 3 floats — shares of train, validation and test; 1,0,0 trains on everything.
    augment : tuple of str — any of ``flip`` and ``intensity``; none by default.
    cache : bool — keep decoded scans in memory.
    synthetic : SyntheticData — pairs that are made, or None.
    """

    source: Optional[Path]
    atlas: Optional[Path]
    pairing: str = "atlas"
    split: Tuple[float, float, float] = (1.0, 0.0, 0.0)
    augment: Tuple[str, ...] = ()
    cache: bool = False
    synthetic: Optional[SyntheticData] = None

    def __post_init__(self) -> None:
        check_choice("pairs", self.pairing, PAIRINGS)
        for name in self.augment:
            check_choice("augment", name, AUGMENTATIONS)
        if (
            len(self.split) != 3
            or not all(0 <= s <= 1 for s in self.split)
            or abs(sum(self.split) - 1) > 1e-6
            or self.split[0] == 0
        ):
            names = ", ".join(SPLIT_NAMES)
            raise SpecError(
                f"split: got {self.split}, expected shares of {names} that add up to 1; pass --split 0.8,0.1,0.1"
            )
        if self.synthetic is not None and (self.source is not None or self.atlas is not None):
            raise SpecError("synthetic: got --data or --atlas as well; synthetic pairs use no scans, leave them out")


@dataclass(frozen=True)
class ScaleSettings:
    """Scaling of the loss while gradients are taken.

    Parameters
    ----------
    kind : str — ``none``; ``fixed``; ``exponential``: the scale doubles after `grow_every` good steps in a row and
        halves after
        `shrink_after` steps that overflowed.
    value : float — the scale, or the first one. The published training on a 910 used 2^32: the gradient of a mean over
        6.9 million voxels is below the smallest float16.
    """

    kind: str = "none"
    value: float = 2.0**32
    grow_every: int = 1000
    shrink_after: int = 2

    def __post_init__(self) -> None:
        check_choice("loss-scale", self.kind, SCALINGS)
        check_range("loss-scale-value", self.value, 1 <= self.value <= 2.0**100, "1 to 2^100", "4294967296")
        check_range("loss-scale-grow-every", self.grow_every, self.grow_every >= 1, "at least 1", "1000")
        check_range("loss-scale-shrink-after", self.shrink_after, self.shrink_after >= 1, "at least 1", "2")

    def to_dict(self) -> Optional[Dict[str, Any]]:
        """The settings that influence the weights; None without scaling."""
        if self.kind == "none":
            return None
        more = {"grow_every": self.grow_every, "shrink_after": self.shrink_after} if self.kind == "exponential" else {}
        return {"kind": self.kind, "value": self.value, **more}


#: largest position of a process among NPUs
MAX_RANK = 2**16


@dataclass(frozen=True)
class TrainSettings:
    """One run.

    Parameters
    ----------
    data, loss : see there.
    out : Path — output folder.
    spec : ModelSpec — network, volume shape and batch.
    learning_rate : float — Adam's; with `lr_half_life`, that of the first step, and half of it after so many steps.
    epochs, steps_per_epoch : int — None for the latter means one pass over the scans.
    seed : int — initial weights, order of the scans, split, augmentation and sampling.
    keep, save_every : int — number of newest checkpoints to keep; steps between checkpoints within an epoch, 0 for
        none.
    init : Path — weights to start from, or None; `h5_indexing` as in `vxm_convert.network.restore`.
    resume : bool — continue from the newest checkpoint in `out`.
    threads : int — CPU threads of TensorFlow, 0 for all.
    convolutions : str — ``direct``: TensorFlow's operations; ``blocks``: the same sums in another order for CPUs
        (`train.devices.cpu_blocks`); ``auto``: blocks on the CPU, direct elsewhere.
    tensorboard : bool — write event files.
    device : str — ``cpu``, ``gpu`` or ``npu``; `npu` holds the settings of the last one.
    scale : ScaleSettings — of the loss.
    workers : tuple of str — ``host:port`` of every process that trains, this one's at `rank`; empty for a single
        process.
    worker_timeout : int — seconds that a step may wait for the other processes.
    """

    data: DataSettings
    out: Path
    spec: ModelSpec
    loss: LossSettings = field(default_factory=LossSettings)
    learning_rate: float = 1e-4
    lr_half_life: Optional[int] = None
    epochs: int = 50
    steps_per_epoch: Optional[int] = None
    seed: int = 0
    keep: int = 5
    save_every: int = 0
    init: Optional[Path] = None
    h5_indexing: str = "ij"
    resume: bool = False
    threads: int = 0
    convolutions: str = "auto"
    tensorboard: bool = True
    device: str = "cpu"
    npu: NpuSettings = field(default_factory=NpuSettings)
    scale: ScaleSettings = field(default_factory=ScaleSettings)
    workers: Tuple[str, ...] = ()
    rank: int = 0
    worker_timeout: int = 1800

    def __post_init__(self) -> None:
        check_range("lr", self.learning_rate, 0 < self.learning_rate < float("inf"), "a number above 0", "1e-4")
        if self.lr_half_life is not None:
            check_range("lr-half-life", self.lr_half_life, self.lr_half_life >= 1, "at least 1", "1000")
        check_range("epochs", self.epochs, self.epochs >= 1, "at least 1", "50")
        check_range("keep", self.keep, self.keep >= 1, "at least 1", "5")
        check_range("seed", self.seed, 0 <= self.seed < 2**31, f"0 to {2**31 - 1}", "0")
        check_range("save-every", self.save_every, self.save_every >= 0, "at least 0", "500")
        check_range("threads", self.threads, 0 <= self.threads <= 1024, "0 to 1024", "0")
        if self.steps_per_epoch is not None:
            check_range("steps-per-epoch", self.steps_per_epoch, self.steps_per_epoch >= 1, "at least 1", "100")
        if self.resume and self.init is not None:
            raise SpecError("resume: got --init as well; a resumed run starts from its own checkpoint; omit --init")
        check_choice("device", self.device, ("cpu", "gpu", "npu"))
        check_choice("convolutions", self.convolutions, CONVOLUTIONS)
        if self.convolutions == "blocks" and self.device == "npu":
            raise SpecError("convolutions: blocks are for CPUs, an NPU has its own kernels; omit --convolutions")
        self._check_workers()
        self._check_variant()

    def _check_workers(self) -> None:
        # On NPUs the environment says how many processes there are.
        most = MAX_RANK if self.device == "npu" else max(0, len(self.workers) - 1)
        check_range("rank", self.rank, 0 <= self.rank <= most, f"0 to {most}", "0")
        check_range("worker-timeout", self.worker_timeout, 1 <= self.worker_timeout <= 2**20, f"1 to {2**20} s", "1800")
        if self.workers and (
            len(self.workers) < 2
            or len(set(self.workers)) < len(self.workers)
            or not all(re.fullmatch(r"[^\s:,/]+:\d{1,5}", worker) for worker in self.workers)
        ):
            raise SpecError(
                f"workers: got {','.join(self.workers)!r}, expected HOST:PORT of two or more processes, all different"
            )
        if self.workers and self.device == "npu":
            raise SpecError(
                "workers: are processes on CPUs or GPUs; on NPUs use RANK_SIZE and RANK_ID instead; omit --workers"
            )

    def _check_variant(self) -> None:
        if self.spec.diffeomorphic and self.loss.image != "mse":
            raise SpecError(
                f"loss: got {self.loss.image} with {self.spec.variant}, whose likelihood is Gaussian; pass --loss mse"
            )
        if self.loss.bidirectional and not self.spec.diffeomorphic:
            raise SpecError(f"bidir: {self.spec.variant} has no inverse; pass --variant miccai2018, or omit --bidir")


def check_choice(option: str, value: object, choices: Tuple[str, ...]) -> None:
    """Raise SpecError unless `value` is one of `choices`."""
    if value not in choices:
        raise SpecError(f"{option}: got {value!r}, expected one of {', '.join(choices)}; pass --{option} {choices[0]}")


def check_range(option: str, value: object, holds: bool, expected: str, example: str) -> None:
    """Raise SpecError unless `holds`."""
    if not holds:
        raise SpecError(f"{option}: got {value}, expected {expected}; pass --{option} {example}")
