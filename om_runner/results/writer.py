# SPDX-License-Identifier: Apache-2.0
"""One subject's folder, which appears completely or not at all; names of its files, their scale and their side-cars."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ContextManager, Dict, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.affine_files import NO_AFFINE
from om_runner.inputs.scans import LoadedScan
from om_runner.names import (
    AFFINE_NAME,
    FIXED_ROLES,
    FLOW_NAME,
    INVERSE_NAME,
    JACOBIAN_NAME,
    LOG_NAME,
    MOVED_NAME,
    MOVED_SEG_NAME,
    NATIVE_SEG_NAME,
)
from om_runner.results.products import LABEL_INTERPOLATIONS, InverseFound, OutputOptions, Registered, atlas_seg
from om_runner.results.side_by_side import Job, side_by_side
from om_runner.sharing.leftovers import ASIDE
from vxm_convert.artifacts.files import UMASK, write_sidecar
from vxm_convert.artifacts.shares import set_mode, write_problem
from vxm_convert.artifacts.temporaries import temporary_prefix
from vxm_convert.errors import ArtifactError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.jacobian import determinant
from vxm_convert.geometry.resample import resample
from vxm_convert.metrics.labels import label_set
from vxm_convert.metrics.overlap import dice
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.text import line_of
from vxm_convert.transforms.affines import write_affine
from vxm_convert.transforms.warps import write_warp

LOG = logging.getLogger(__name__)

#: files by which a folder of ours is known
_RESULTS = (MOVED_NAME, FLOW_NAME, MOVED_SEG_NAME, INVERSE_NAME, NATIVE_SEG_NAME, JACOBIAN_NAME, LOG_NAME)


@dataclass(frozen=True)
class Provenance:
    """Provenance of a result, for its side-cars.

    Parameters
    ----------
    made_from : dict — role → sha256: ``om``, ``moving``, ``atlas``, and ``moving_seg`` if the segmentation is a
        separate file.
    toolchain : dict — ``Toolchain.describe()``.
    details : dict — other entries: whether the toolchain is simulated, the precision plan, the subject.
    """

    made_from: Dict[str, str]
    toolchain: Dict[str, Any]
    details: Dict[str, Any]

    def of(self, made_from: Dict[str, str], **details: object) -> Provenance:
        """A copy with additional sources and entries."""
        return replace(self, made_from={**self.made_from, **made_from}, details={**self.details, **details})


def check_replaceable(folder: Path, advice: str, known: Sequence[str] = _RESULTS) -> None:
    """Refuse, before any work, a folder of results that would replace what is not ours.

    Parameters
    ----------
    advice : str — where results may go instead.
    known : sequence of str — files by which a folder of ours is known.

    Raises
    ------
    ArtifactError
        For a file, and for a folder with anything in it and no result. A link is replaced itself; what it points to is
        not touched.
    """
    if not os.path.lexists(str(folder)) or folder.is_symlink():
        return
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: a file where the folder of the results belongs; {advice}")
    names = sorted(path.name for path in folder.iterdir())
    if names and not set(names) & set(known):
        raise ArtifactError(
            f"{folder}: holds {line_of(names[0])} and no result of om_runner, and results would replace the folder; {advice}"
        )


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that replaces it on success and is removed on failure.

    A folder of an earlier run is moved aside first and removed last, so two runs never mix; a link is removed, never
    followed. Raises ArtifactError if the path cannot be written.
    """
    try:
        temporary = new_folder(target.parent, "-" + target.name[:40])
    except OSError as exc:
        raise ArtifactError(
            f"{target}: cannot write there ({exc.strerror}); choose another output folder or change its permissions"
        ) from exc
    aside: Optional[Path] = None
    try:
        yield temporary
        set_mode(temporary, 0o777 & ~UMASK)
        if os.path.lexists(str(target)):
            aside = new_folder(target.parent, ASIDE)
            os.replace(str(target), str(aside / target.name))
        try:
            os.replace(str(temporary), str(target))
        except OSError:
            if aside is not None:
                os.replace(str(aside / target.name), str(target))
            raise
    except OSError as exc:
        raise ArtifactError(f"{target}: writing failed: {write_problem(exc)}") from exc
    finally:
        shutil.rmtree(str(temporary), ignore_errors=True)
        if aside is not None:
            shutil.rmtree(str(aside), ignore_errors=True)


def new_folder(parent: Path, ending: str) -> Path:
    """A new temporary folder of this process in `parent`."""
    return Path(tempfile.mkdtemp(prefix=temporary_prefix(), suffix=ending, dir=str(parent)))


def record(path: Path, provenance: Provenance, **details: object) -> None:
    """Write the side-car of a file: its provenance and other entries."""
    write_sidecar(path, provenance.made_from, provenance.toolchain, **{**provenance.details, **details})


def provenance_of(model: OfflineModel, fixed: LoadedScan, pair: bool) -> Provenance:
    """Of results that a model made with a fixed image, which is the atlas, or one of a `pair`."""
    details = {"simulated": model.simulated, "fixed": fixed.scan.path.name, "precision": model.contract.precision.name}
    sources = (fixed.sha256, fixed.seg_sha256 if pair else None)
    made_from = {role: digest for role, digest in zip(FIXED_ROLES, sources) if digest is not None}
    return Provenance({"om": model.contract.hashes["om"], **made_from}, model.toolchain.describe(), details)


def _placed(loaded: LoadedScan, provenance: Provenance) -> Provenance:
    """With the affine that was used, and the scan's placement."""
    affine_sha = loaded.placed.how.get("affine_sha256")
    return provenance.of({"affine": affine_sha} if affine_sha else {}, placement=loaded.placed.to_dict())


class Written(NamedTuple):
    """The figures of the inverse, named as in metrics.tsv, if it is wanted; and the processor seconds of the threads that
    wrote.
    """

    figures: Dict[str, Any]
    cpu: float


class Writer:
    """Writes one subject's folder.

    Parameters
    ----------
    options : OutputOptions
    atlas : LoadedScan
    labels : str — name of the label set of the mean Dice in the scan's own space.
    threads : int — files that are written at the same time.
    """

    def __init__(self, options: OutputOptions, atlas: LoadedScan, labels: str, threads: int = 1) -> None:
        self._options, self._atlas, self._labels, self._threads = options, atlas, labels, threads

    def write(
        self,
        place: ContextManager[Path],
        loaded: LoadedScan,
        done: Registered,
        provenance: Provenance,
        inverse: List[InverseFound],
        beside: Sequence[Job[None]] = (),
    ) -> Written:
        """Write all files of a subject into the folder that `place` opens; raises VolumeError if the format cannot hold
        the warp.

        Parameters
        ----------
        inverse : list of one InverseFound, or none if it is not wanted — taken from it, and let go when it is written.
        beside : callables — to be done while files are written; if one fails, the folder does not appear.
        """
        with place as folder:
            jobs: List[Job[Any]] = [*self._large(folder, loaded, done, provenance, inverse)]
            at = len(jobs)
            # Behind the inverse, whose room they get.
            jobs += [*beside, *self._small(folder, loaded, done, provenance)]
            ended = side_by_side(jobs, self._threads)
        figures = [one.value for one in ended[:at] if one.value]
        own = ended[:at] + ended[at + len(beside) :]
        return Written(figures[0] if figures else {}, sum(one.cpu for one in own))

    def _large(
        self, folder: Path, loaded: LoadedScan, done: Registered, provenance: Provenance, inverse: List[InverseFound]
    ) -> Iterator[Job[Optional[Dict[str, Any]]]]:
        """Writing the warps, which takes as long as everything else. The last one returns the inverse's figures."""
        wanted, provenance = self._options.outputs, _placed(loaded, provenance)
        if "warp" in wanted:
            yield partial(self._write_warp, folder / FLOW_NAME, done.warp, provenance)
        if "inverse" in wanted:
            yield partial(self._write_inverse, folder, loaded, inverse.pop() if inverse else None, provenance)

    def _small(self, folder: Path, loaded: LoadedScan, done: Registered, provenance: Provenance) -> Iterator[Job[None]]:
        """Writing the other files."""
        wanted, provenance = self._options.outputs, _placed(loaded, provenance)
        if "jacobian" in wanted:
            yield partial(self._write_jacobian, folder / JACOBIAN_NAME, done.warp, provenance)
        if "moved" in wanted:
            yield partial(self._write_moved, folder / MOVED_NAME, done, provenance)
        if "seg" in wanted and done.moved_seg is not None:
            yield partial(self._write_labels, folder / MOVED_SEG_NAME, loaded, done, provenance)
        if loaded.placed.how.get("affine") != NO_AFFINE:
            yield partial(self._write_affine, folder / AFFINE_NAME, loaded, provenance)

    def _write_moved(self, path: Path, done: Registered, provenance: Provenance) -> None:
        write_nifti(path, done.moved, done.warp.fixed.affine, level=self._options.level)
        record(path, provenance, **self._image_entries(done, "linear"), unit="intensity of the moving file")

    def _write_labels(self, path: Path, loaded: LoadedScan, done: Registered, provenance: Provenance) -> None:
        if done.moved_seg is None:
            raise RuntimeError(f"{path}: the scan has no labels")
        dtype, affine = loaded.seg_dtype, done.warp.fixed.affine
        write_nifti(path, done.moved_seg, affine, dtype, level=self._options.level)
        entries = self._image_entries(done, self._options.label_interpolation)
        made_from = {"moving_seg": loaded.seg_sha256} if loaded.seg_sha256 else {}
        record(path, provenance.of(made_from), **entries, unit="label id")

    def _image_entries(self, done: Registered, interpolation: str) -> Dict[str, Any]:
        return {
            "maps": f"moving scan resampled once onto the {self._options.space} grid",
            "frame": "the header's affine gives RAS mm of the atlas's space",
            "interpolation": interpolation,
            "edge": done.edge,
            "resampled_by": "the network" if done.by_network else "the host, from the original scan",
        }

    def _write_affine(self, path: Path, loaded: LoadedScan, provenance: Provenance) -> None:
        """What `om_runner.inputs.affine_files` reads again: the matrix as it was used, digit for digit."""
        grids = self._atlas.file_grid, loaded.placed.moving
        sources = provenance.made_from, provenance.toolchain, provenance.details
        write_affine(path, loaded.placed.affine, "itk", *grids, *sources)

    def _write_warp(self, path: Path, warp: Warp, provenance: Provenance, **details: object) -> None:
        noted: Dict[str, Any] = {**provenance.details, **details, "level": self._options.level}
        write_warp(path, warp, self._options.warp_format, provenance.made_from, provenance.toolchain, **noted)

    def _write_jacobian(self, path: Path, warp: Warp, provenance: Provenance) -> None:
        values = determinant(warp)
        write_nifti(path, values, warp.fixed.affine, np.float32, level=self._options.level)
        figures = {
            "folded": int(np.count_nonzero(~(values > 0))),
            "min": float(values.min()),
            "max": float(values.max()),
        }
        record(
            path,
            provenance,
            holds="determinant of fixed RAS to moving RAS, central differences",
            unit="1",
            frame="output grid",
            **figures,
        )

    def _write_inverse(
        self, folder: Path, loaded: LoadedScan, found: Optional[InverseFound], provenance: Provenance
    ) -> Dict[str, Any]:
        """The inverse on the scan's own grid, with the atlas's labels carried there."""
        if found is None:
            raise RuntimeError(f"{loaded.scan.path}: its inverse was not computed")
        inverse, report = found
        self._write_warp(folder / INVERSE_NAME, inverse, provenance, inverse_of=FLOW_NAME, consistency=report.to_dict())
        subject = loaded.scan.subject
        off = report.fixed_mm
        LOG.info(
            "%s: error of the inverse warp (%s) %.3g mm (95 %%), %.3g mm at most",
            subject,
            report.method,
            off.p95,
            off.max,
        )
        seg = atlas_seg(self._atlas)
        if seg is None or "seg" not in self._options.outputs:
            return {"inverse_mm_p95": off.p95}
        carried = resample(seg, inverse, LABEL_INTERPOLATIONS[self._options.label_interpolation], "zero")
        dtype, affine = self._atlas.seg_dtype, inverse.fixed.affine
        write_nifti(folder / NATIVE_SEG_NAME, carried, affine, dtype, level=self._options.level)
        own = loaded.seg if loaded.source is None else loaded.source.seg
        score = None if own is None else _mean_dice(carried, own, label_set(self._labels))
        if score is not None:
            LOG.info("%s: Dice (%s) in the scan's own space %.3f", subject, self._labels, score)
        record(
            folder / NATIVE_SEG_NAME,
            provenance,
            maps="atlas's labels carried onto the scan's own grid by the inverse warp",
            frame="the header's affine is that of the scan",
            unit="label id",
            interpolation=self._options.label_interpolation,
            **({} if score is None else {"dice_mean": score, "label_set": self._labels}),
        )
        return {"inverse_mm_p95": off.p95, "dice_native": score}


def _mean_dice(a: np.ndarray, b: np.ndarray, labels: Sequence[int]) -> Optional[float]:
    mean = dice(a, b, labels).mean
    return float(mean) if mean is not None and np.isfinite(mean) else None
