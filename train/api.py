# SPDX-License-Identifier: Apache-2.0
"""Training for Python programs, and what the command line shares with it: scans, shape, checks, the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

from train.data.checks import atlas_shape, check_cohort
from train.data.cohort import Cohort, read_cohort, segmentation_of
from train.data.provenance import sources_of
from train.devices.choice import choose_device
from train.run.summary import headline
from train.settings.run import DataSettings, LossSettings, ScaleSettings, SyntheticData, TrainSettings
from vxm_convert.artifacts.targets import check_apart
from vxm_convert.errors import SpecError, VolumeError
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, load_label_set
from vxm_convert.model.spec import ModelSpec, Shape3
from vxm_convert.weights.box import checkpoint_or_box

LOG = logging.getLogger(__name__)

PathLike = Union[str, Path]


@dataclass(frozen=True)
class Checkpoints:
    """What a training leaves: prefixes of the last checkpoint, and of the best one if there was validation."""

    last: Path
    best: Optional[Path]


def train(
    data: Optional[PathLike] = None,
    atlas: Optional[PathLike] = None,
    out: PathLike = Path("build/train"),
    *,
    variant: str = "vm2",
    shape: Optional[Sequence[int]] = None,
    batch: int = 1,
    pairs: str = "atlas",
    split: Tuple[float, float, float] = (1.0, 0.0, 0.0),
    augment: Sequence[str] = (),
    synthetic: Optional[SyntheticData] = None,
    loss: str = "mse",
    smoothness: Optional[float] = None,
    dice_weight: float = 0.0,
    labels: str = DEFAULT_LABEL_SET,
    learning_rate: float = 1e-4,
    epochs: int = 50,
    steps_per_epoch: Optional[int] = None,
    init: Optional[PathLike] = None,
    resume: bool = False,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
    tensorboard: bool = True,
) -> Checkpoints:
    """Train a VoxelMorph network. Needs TensorFlow.

    Every argument has the meaning and the default of the option of ``python -m train`` with its name (`learning_rate` is
    ``--lr``, `smoothness` is ``--lambda``). For the rest of the options, fill a `TrainSettings` and call `train_with`.

    Parameters
    ----------
    data : str, Path or None — folder of scans on the network grid, or a manifest; None with `synthetic`.
    atlas : str, Path or None — fixed image; None only where scans are registered to each other.
    out : str or Path — folder for checkpoints, ``spec.json``, logs and the page.
    shape : three ints or None — network grid in voxels; None: that of the atlas.
    split : three floats — shares of training, validation and test.
    synthetic : SyntheticData or None — train on pairs that are made; needs `shape`.
    init : str, Path or None — weights to start from; ``box`` for those that come with the package.

    Returns
    -------
    Checkpoints

    Raises
    ------
    SpecError, VolumeError, CheckpointError
        For wrong values, scans or weights, before TensorFlow is loaded.
    TrainingError
        If training cannot start or go on.

    Examples
    --------
    >>> from train import train                                          # doctest: +SKIP
    >>> done = train("scans", "atlas.npz", "build/train", epochs=100)    # doctest: +SKIP
    >>> done.last                                                        # doctest: +SKIP
    PosixPath('build/train/model-10000')
    """
    if data is not None:
        check_apart(Path(out), Path(data), "data")
    where = DataSettings(_path(data), _path(atlas), pairs, split, tuple(augment), synthetic=synthetic)
    spec, cohort = spec_and_cohort(where, variant, None if shape is None else _three(shape), batch, 0, seed)
    kind, why = choose_device(device)
    LOG.info("device: %s (%s)", kind, why)
    settings = TrainSettings(
        data=where,
        out=Path(out),
        spec=spec,
        loss=LossSettings(loss, smoothness, dice_weight=dice_weight, labels=labels),
        learning_rate=learning_rate,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        init=None if init is None else checkpoint_or_box(Path(init), variant),
        resume=resume,
        threads=threads,
        tensorboard=tensorboard,
        device=kind,
        scale=ScaleSettings("exponential" if kind == "npu" else "none"),
    )
    return train_with(settings, cohort)


def train_with(settings: TrainSettings, cohort: Optional[Cohort] = None) -> Checkpoints:
    """Train as `settings` say; the command line calls this too.

    Parameters
    ----------
    cohort : Cohort or None — the scans; None: read as ``settings.data`` says.

    Raises
    ------
    VxmError
        As `train`.
    """
    data = settings.data
    if cohort is None:
        cohort = Cohort(()) if data.synthetic is not None else read_cohort(data, settings.seed)
    if data.synthetic is None:
        atlas_seg = segmentation_of(data.atlas) if data.atlas is not None else None
        with_dice = settings.loss.dice_weight > 0
        scored = load_label_set(settings.loss.labels) if with_dice else None
        check_cohort(cohort, data.atlas, atlas_seg, settings.spec.volume_shape, with_dice, scored)
    LOG.info("%s", headline(settings, cohort))
    from train.run.loop import train as run  # TensorFlow loads here: wrong options and --help need none

    trained = run(settings, cohort, sources_of(cohort, data.atlas))
    return Checkpoints(trained.last, trained.best)


def spec_and_cohort(
    data: DataSettings, variant: str, shape: Optional[Shape3], batch: int, integration_steps: int, seed: int
) -> Tuple[ModelSpec, Cohort]:
    """The network and the scans of a training; the atlas gives the shape, and `shape` must agree with it.

    Raises
    ------
    SpecError
        Without scans, or without a shape for synthetic pairs.
    VolumeError
        For scans that cannot be used, or another shape than theirs.
    """
    if data.source is None and data.synthetic is None:
        raise SpecError("data: none given; pass --data with the folder of scans, or --synthetic")
    if data.synthetic is not None:
        if shape is None:
            raise SpecError("shape: none given; --synthetic needs the grid of its pairs, pass --shape 64,64,64")
        return ModelSpec(variant, shape, batch, integration_steps), Cohort(())
    found = atlas_shape(data.atlas) if data.atlas is not None else None
    cohort = read_cohort(data, seed)
    first = data.atlas or cohort.train[0].moving
    found = found or atlas_shape(first)
    if shape is not None and shape != found:
        have, asked = (",".join(str(n) for n in sides) for sides in (found, shape))
        raise VolumeError(
            f"{first}: has {have} voxels, --shape says {asked}; resample the scans and the atlas, or omit --shape"
        )
    return ModelSpec(variant, found, batch, integration_steps), cohort


def _path(name: Optional[PathLike]) -> Optional[Path]:
    return None if name is None else Path(name)


def _three(shape: Sequence[int]) -> Shape3:
    if len(shape) != 3:
        raise SpecError(f"shape: got {tuple(shape)}, expected three sides; pass (160, 192, 224)")
    x, y, z = (int(n) for n in shape)
    return x, y, z
