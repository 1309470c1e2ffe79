# SPDX-License-Identifier: Apache-2.0
"""From a request to the scans of a dataset and the layout of the results; refuses output folders that would damage the
dataset.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

from om_runner.bids.dataset import (
    DESCRIPTION_NAME,
    Dataset,
    generated_by_us,
    is_dataset,
    is_described,
    read_description,
)
from om_runner.bids.derivative import Derivative
from om_runner.bids.description import relative_to
from om_runner.bids.names import Naming, label_from
from om_runner.bids.options import BidsRequest
from om_runner.bids.participants import TABLE_NAME, Participants, read_participants
from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.scans import Scan
from om_runner.results.layout import Layout
from vxm_convert.errors import VolumeError
from vxm_convert.scans.discovery import volume_stem

LOG = logging.getLogger(__name__)


def read_as_dataset(request: BidsRequest, folder: Path) -> bool:
    """Whether a folder is read as a BIDS dataset; raises VolumeError for BIDS options with a folder that is not one."""
    if request.write or is_dataset(folder):
        return True
    if request != BidsRequest():
        raise VolumeError(
            f"{folder}: no {DESCRIPTION_NAME} or no folder sub-<label> in it, so it is read as a plain folder, for "
            "which BIDS options have no meaning; pass --bids to read it as a BIDS dataset"
        )
    return False


@dataclass(frozen=True)
class DatasetRun:
    """What of a run decides about its scans and results: dataset, atlas, output folder, options of BIDS, the space of
    the results, and ``--affine``.
    """

    dataset: Path
    atlas: Path
    out: Path
    bids: BidsRequest
    space: str
    affine: str


def dataset_cohort(run: DatasetRun, model: OfflineModel) -> Tuple[List[Scan], Layout]:
    """The requested scans of a dataset and the layout of their results.

    Raises
    ------
    VolumeError
        For a dataset without scans, and an output folder that BIDS forbids.
    """
    request = run.bids
    dataset = open_dataset(run.dataset, run.out)
    check_output(run.out, dataset)
    scans = dataset.scans(request.choice)
    LOG.info(
        "%s: BIDS dataset, %d scans, %d with a segmentation",
        dataset.root,
        len(scans),
        sum(s.seg_path is not None for s in scans),
    )
    if not request.write:
        if request.atlas_label is not None:
            raise VolumeError(
                f"--atlas-label {request.atlas_label}: names files of a BIDS derivative, and without --bids plain folders are "
                "written; pass --bids, or leave it out"
            )
        return scans, Layout(run.out)
    # Read now, so that an unusable table stops the run before its work and not after.
    participants = read_participants(dataset.root)
    unknown = sorted({scan.subject.partition("_")[0] for scan in scans} - set(participants.rows))
    if participants.rows and unknown:
        LOG.warning(
            "%s: %d participants are not in it: %s", dataset.root / TABLE_NAME, len(unknown), ", ".join(unknown[:8])
        )
    return scans, _derivative(run, dataset, participants, model)


def dataset_layout(run: DatasetRun, model: OfflineModel) -> Layout:
    """The layout of a dataset's results alone, for a process that gets its scans from another one."""
    if not run.bids.write:
        return Layout(run.out)
    dataset = open_dataset(run.dataset, run.out)
    return _derivative(run, dataset, Participants(), model)


def open_dataset(folder: Path, out: Path) -> Dataset:
    """A dataset, without `out`; warns if it does not declare itself one."""
    if not Path(folder).is_dir():
        raise VolumeError(f"{folder}: no such folder, expected a BIDS dataset")
    if not is_described(folder):
        LOG.warning("%s: has no %s, read as a BIDS dataset anyway", folder, DESCRIPTION_NAME)
    return Dataset(Path(folder), skip=Path(out))


def check_output(out: Path, dataset: Dataset) -> None:
    """Check that a derivative is beside its dataset or in its ``derivatives/``, and never on another dataset."""
    inside = relative_to(out, dataset.root)
    if inside is not None and not inside.parts:
        raise VolumeError(
            f"{out}: this is the dataset itself; choose another folder, e.g. --out "
            f"{dataset.root / 'derivatives' / 'vxm'}"
        )
    if inside is not None and (inside.parts[0] != "derivatives" or len(inside.parts) < 2):
        raise VolumeError(
            f"{out}: inside the dataset, where derivatives belong in derivatives/<name>; choose that, or a folder "
            "outside"
        )
    if read_description(out) is not None and not generated_by_us(out):
        raise VolumeError(
            f"{out}: contains another BIDS dataset ({DESCRIPTION_NAME}), nothing is written into it; choose another "
            "folder"
        )


def _derivative(run: DatasetRun, dataset: Dataset, participants: Participants, model: OfflineModel) -> Derivative:
    request = run.bids
    label = request.atlas_label or label_from(volume_stem(run.atlas))
    naming = Naming(label, request.choice.suffix, run.space, request.choice.space)
    described = model.toolchain.describe()
    toolchain = f"{described.get('kind')} {described.get('version')}"
    spec = model.contract.model
    method = (
        f"VoxelMorph network {spec.variant} as an offline model (sha256 {model.contract.hashes['om'][:12]}, precision "
        "plan "
        f"{model.contract.precision.name}), run through pyACL on "
        f"{'a SIMULATED Ascend device' if model.simulated else 'an Ascend device'}; "
        f"affine: {_affine(run.affine)}"
    )
    return Derivative(run.out, dataset, participants, naming, run.atlas, toolchain, model.simulated, method)


def _affine(choice: str) -> Optional[str]:
    return {"none": "none beyond the headers", "auto": "estimated with SimpleITK"}.get(choice, "from a file")
