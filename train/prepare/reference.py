# SPDX-License-Identifier: Apache-2.0
"""The reference that every scan is registered to: given, named, or chosen from the cohort; brought onto the network
grid and written.

The rule of the choice: of the scans without doubts (with a segmentation, where any has one) the one whose brain volume
and extents along right, anterior and superior are nearest to the cohort's medians, by the sum of |ln(value / median)|;
of equals the first by name.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from train.prepare.loaded import Loaded, collected_warnings, load_source
from train.prepare.outputs import NO_TOOLCHAIN, read_record, write_arrays
from train.prepare.settings import AXES, CHOOSE, FORMATS, PrepareSettings, file_names
from train.prepare.subjects import REFERENCE, Source
from vxm_convert.artifacts.files import write_sidecar
from vxm_convert.errors import TrainingError, VolumeError, VxmError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid
from vxm_convert.metrics.labels import load_label_set
from vxm_convert.scans.checks import REFUSED_OUTSIDE, image_doubts, outside_doubt
from vxm_convert.scans.conform import Placement, brain_mask, conform, network_grid_of, outside_network
from vxm_convert.scans.discovery import find_segmentation
from vxm_convert.scans.header import kinds_for, volume_suffix

LOG = logging.getLogger(__name__)

GIVEN, NAMED = "given", "named"
CHOSEN = "chosen: brain volume and extents nearest to the cohort's medians"
_READERS, _MOST_REASONS = 4, 5


@dataclass(frozen=True)
class Reference:
    """The fixed image on the network grid.

    Parameters
    ----------
    image : ndarray, shape of `network`, float32 — 0..1.
    seg : ndarray, shape of `network`, integer, or None.
    network : Grid — the network grid in the reference's space.
    sha256 : str — of the file that it was made from.
    why : str — given, named, or chosen by which rule.
    """

    source: Source
    image: np.ndarray
    seg: Optional[np.ndarray]
    network: Grid
    sha256: str
    why: str
    made_from: Dict[str, str] = field(default_factory=dict)
    details: Dict[str, Any] = field(default_factory=dict)


def find_reference(settings: PrepareSettings, sources: Sequence[Source], earlier: Optional[str]) -> Tuple[Source, str]:
    """The source of the reference and why it is that one.

    Parameters
    ----------
    earlier : str or None — the name of the scan that an earlier run with these settings chose; it stays, so that scans
        may be added.

    Raises
    ------
    TrainingError
        For a word that is neither a file nor a scan's name, and when no scan can be chosen.
    """
    by_name = {source.name: source for source in sources}
    if settings.reference == CHOOSE:
        if earlier in by_name and not settings.force:
            return by_name[earlier], CHOSEN
        return _choose(settings, sources), CHOSEN
    path = Path(settings.reference)
    if path.is_file():
        if volume_suffix(path) is None:
            raise TrainingError(f"{path}: no scan to take as --reference, expected one of {kinds_for(path)}")
        if settings.out.resolve() in path.resolve().parents:
            raise TrainingError(
                f"{path}: lies in the output folder, where the new reference would replace it; "
                "give the file it was made from"
            )
        known = next((s for s in sources if s.path.samefile(path)), None)
        return known or Source(REFERENCE, path, find_segmentation(path)), GIVEN
    if settings.reference in by_name:
        return by_name[settings.reference], NAMED
    raise TrainingError(
        f"reference: {settings.reference!r} is neither a file nor a scan of --data (such as {sources[0].name}); pass "
        f"--reference FILE, a name, or {CHOOSE}"
    )


def load_reference(settings: PrepareSettings, source: Source, why: str) -> Reference:
    """The reference on the network grid; its doubts are logged.

    Raises
    ------
    VolumeError
        When it cannot be read, or most of its brain is outside the network grid.
    """
    loaded = load_source(source, settings)
    network = network_grid_of(loaded.image, loaded.grid, settings.shape, AXES)
    placement = Placement(network, loaded.grid, Affine(np.eye(4)))
    outside, total = outside_network(loaded.image, placement)
    labels = load_label_set(settings.labels)
    doubts = image_doubts(loaded.image, loaded.grid, loaded.seg, labels) + [
        d for d in [outside_doubt(outside, total)] if d
    ]
    if outside > REFUSED_OUTSIDE * total:
        raise VolumeError(
            f"{source.path}: {doubts[-1]}, it cannot be the reference; give another --reference or a larger --shape"
        )
    for doubt in doubts:
        LOG.warning("%s: %s", source.path, doubt)
    made_from = {"scan": loaded.sha256, **({"seg": loaded.seg_sha256} if loaded.seg_sha256 else {})}
    details = {
        "source": str(source.path),
        "why": why,
        "intensity": loaded.rule,
        "placement": placement.to_dict(),
        "warnings": doubts,
    }
    seg = None if loaded.seg is None else conform(loaded.seg, placement, "nearest")
    return Reference(source, conform(loaded.image, placement), seg, network, loaded.sha256, why, made_from, details)


def write_reference(settings: PrepareSettings, reference: Reference, key: str) -> List[Path]:
    """``reference.npz``, or ``reference.nii.gz`` with ``reference_seg.nii.gz``; the side-car goes last."""
    remove_reference(settings.out)
    files = write_arrays(settings.out, REFERENCE, settings, reference.image, reference.seg, reference.network)
    details = {
        "kind": REFERENCE,
        "key": key,
        "name": reference.source.name,
        "shaping": settings.shaping(),
        "chosen": reference.why == CHOSEN,
        **reference.details,
    }
    return files + [write_sidecar(files[0], reference.made_from, NO_TOOLCHAIN, **details)]


def remove_reference(out: Path) -> None:
    """Take away what an earlier run wrote, in either format."""
    for form in FORMATS:
        image, seg = file_names(REFERENCE, form)
        record = read_record(out / image)
        if record is not None and record.get("kind") == REFERENCE:
            for path in [out / name for name in (f"{image}.json", image, seg) if name]:
                if path.is_file():
                    path.unlink()


def _choose(settings: PrepareSettings, sources: Sequence[Source]) -> Source:
    LOG.info("choosing a reference from %d scans", len(sources))
    reasons: List[str] = []
    with collected_warnings(), ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        sizes = list(pool.map(lambda source: _size_of(source, settings, reasons), sources))
    known = [(source, size) for source, size in zip(sources, sizes) if size is not None]
    if not known:
        reasons = sorted(reasons)[:_MOST_REASONS]
        raise TrainingError("\n  ".join(["reference: no scan can be chosen, give one with --reference:"] + reasons))
    medians = np.median([size for _, (size, _) in known], axis=0)
    labelled = any(has_labels for _, (_, has_labels) in known)
    distances = [
        (float(np.abs(np.log(size / medians)).sum()), source.name, source)
        for source, (size, has) in known
        if has or not labelled
    ]
    source = min(distances, key=lambda found: found[:2])[2]
    LOG.info("reference: %s, nearest to the medians of %d scans", source.name, len(known))
    return source


def _size_of(source: Source, settings: PrepareSettings, reasons: List[str]) -> Optional[Tuple[np.ndarray, bool]]:
    """Brain volume (mm³) and extents along R, A, S (mm), and whether there are labels; None for a scan with doubts."""
    try:
        loaded = load_source(source, settings)
    except VxmError as exc:
        reasons.append(str(exc))
        return None
    doubts = image_doubts(loaded.image, loaded.grid, loaded.seg, load_label_set(settings.labels))
    if doubts:
        reasons.append(f"{source.path}: {doubts[0]}")
        return None
    return _brain_size(loaded), loaded.seg is not None


def _brain_size(loaded: Loaded) -> np.ndarray:
    mask = brain_mask(loaded.image)
    matrix = loaded.grid.affine[:3, :3]
    sides = [
        int(np.ptp(np.flatnonzero(mask.any(axis=tuple(d for d in range(3) if d != axis))))) + 1 for axis in range(3)
    ]
    return np.concatenate([[np.count_nonzero(mask) * abs(np.linalg.det(matrix))], np.abs(matrix) @ sides])
