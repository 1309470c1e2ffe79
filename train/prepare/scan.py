# SPDX-License-Identifier: Apache-2.0
"""One scan from file to files: read, register, carry onto the network grid, judge, write. Runs in a process of
its own.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np

from train.prepare.alignment import carried, doubts_about, figures_of, motion_of
from train.prepare.loaded import Loaded, collected_warnings, load_source
from train.prepare.outputs import (
    PICTURES,
    SCANS,
    TRANSFORMS,
    Record,
    read_record,
    remove_earlier,
    write_arrays,
    write_record,
    write_transforms,
)
from train.prepare.pictures import overlay
from train.prepare.reference import Reference
from train.prepare.settings import AXES, PrepareSettings
from train.prepare.subjects import Source
from train.prepare.tools import Found, Tool, find_transform
from vxm_convert.artifacts.files import write_bytes
from vxm_convert.errors import ArtifactError, VolumeError, VxmError
from vxm_convert.geometry.affines import Affine
from vxm_convert.metrics.labels import LabelSet
from vxm_convert.scans.checks import REFUSED_OUTSIDE
from vxm_convert.scans.conform import Placement, place

#: starts the names of what a killed run may leave behind
TEMPORARY = ".tmp-"
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Job:
    """What stays the same for all scans; `key` is that of settings, tool and reference."""

    settings: PrepareSettings
    reference: Reference
    tool: Tool
    labels: LabelSet
    key: str
    threads: int


@dataclass(frozen=True)
class Failure:
    """One scan that could not be prepared: in which stage (read, register, write, run) and why."""

    subject: str
    file: str
    stage: str
    reason: str


#: what became of a scan
Outcome = Union[Record, Failure]


def prepare_scan(job: Job, source: Source) -> Outcome:
    """The record of a prepared scan, or why there is none."""
    stage = ["read"]
    try:
        with collected_warnings() as warnings:
            return _prepare(job, source, stage, warnings)
    except (VxmError, OSError) as exc:
        return Failure(source.name, str(source.path), stage[0], str(exc))
    except MemoryError:
        return Failure(source.name, str(source.path), stage[0], "out of memory; pass fewer --jobs")


def judge_scan(job: Job, source: Source) -> Optional[str]:
    """The reason for which reading a scan will fail, or None; nothing is registered or written."""
    try:
        with collected_warnings():
            load_source(source, job.settings, job.reference.network)
    except (VxmError, OSError) as exc:
        return str(exc)
    return None


def _prepare(job: Job, source: Source, stage: List[str], warnings: List[str]) -> Record:
    start = time.perf_counter()
    settings, reference = job.settings, job.reference
    remove_earlier(settings.out, source.name)
    loaded = load_source(source, settings, reference.network, reference.image)
    stage[0] = "register"
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=str(settings.out)) as folder:
        found = find_transform(job.tool, settings.transform, reference, loaded, Path(folder), job.threads)
    placement = place(reference.network, loaded.grid, AXES, found.affine, found.how)
    images = {
        BEFORE: carried(loaded, Placement(reference.network, loaded.grid, Affine(np.eye(4)))),
        AFTER: carried(loaded, placement),
    }
    judged = _judge(job, loaded, placement, images)
    stage[0] = "write"
    details = {
        "name": source.name,
        "source": str(source.path),
        "key": job.key,
        "reference": reference.source.name,
        "transform": settings.transform,
        "tool": job.tool.describe(),
        "intensity": loaded.rule,
        "placement": placement.to_dict(),
        "label_set": job.labels.name,
        **judged,
        "warnings": list(dict.fromkeys(warnings + judged["warnings"])),
        "seconds": round(time.perf_counter() - start, 2),
    }
    return _write(job, loaded, found, images, details)


def _judge(
    job: Job, loaded: Loaded, placement: Placement, images: Dict[str, Tuple[np.ndarray, Optional[np.ndarray]]]
) -> Dict[str, Any]:
    """Figures and doubts.

    Raises
    ------
    VolumeError
        When most of the brain is outside the network grid even after the transform.
    """
    before, after = (figures_of(*images[side], job.reference, job.labels) for side in (BEFORE, AFTER))
    motion = motion_of(placement.affine, placement.network)
    doubts = doubts_about(loaded, placement, before, after, motion, job.labels)
    outside = after["outside"] or 0.0
    if outside > REFUSED_OUTSIDE:
        raise VolumeError(
            f"{loaded.source.path}: {100 * outside:.0f} % of the brain is outside the network's field of "
            "view; "
            "pass a larger --shape, or another --reference"
        )
    return {BEFORE: before, AFTER: after, "motion": motion, "warnings": doubts}


def _write(job: Job, loaded: Loaded, found: Found, images: Dict[str, Any], details: Dict[str, Any]) -> Record:
    settings, reference, name = job.settings, job.reference, loaded.source.name
    made_from = made_from_of(loaded.sha256, loaded.seg_sha256, reference)
    image, seg = images[AFTER]
    files = write_arrays(settings.out / SCANS, name, settings, image, seg, reference.network)
    files += write_transforms(settings.out / TRANSFORMS, name, found.affine, reference.network, loaded.grid, made_from)
    for side, ending in ((BEFORE, "_before"), (AFTER, "")):
        picture = settings.out / PICTURES / f"{name}{ending}.png"
        write_bytes(picture, overlay(images[side][0], reference.image))
        files.append(picture)
    write_record(settings.out, files, made_from, details)
    record = read_record(files[0])
    if record is None:
        raise ArtifactError(f"{files[0]}: its record cannot be read back; check the disk, or choose another --out")
    return record


def made_from_of(scan: str, seg: Optional[str], reference: Reference) -> Dict[str, str]:
    """Role → sha256, as the record has it."""
    return {"scan": scan, **({"seg": seg} if seg else {}), "reference": reference.sha256}
