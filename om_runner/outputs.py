# SPDX-License-Identifier: Apache-2.0
"""One subject's folder: moved.nii.gz, flow.nii.gz, moved_seg.nii.gz, each with its side-car. It appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import numpy as np

from vxm_convert.artifacts import write_sidecar
from vxm_convert.errors import ArtifactError
from vxm_convert.flowfile import write_flow
from vxm_convert.nifti import write_nifti

MOVED_NAME = "moved.nii.gz"
FLOW_NAME = "flow.nii.gz"
MOVED_SEG_NAME = "moved_seg.nii.gz"


@dataclass(frozen=True)
class Provenance:
    """What the side-cars of a result record.

    Parameters
    ----------
    made_from : dict — role → sha256: ``om``, ``moving``, ``atlas``, and ``moving_seg`` where the segmentation is a file of its own.
    toolchain : dict — ``Toolchain.describe()``.
    details : dict — further entries: whether the toolchain is simulated, the precision plan, the subject.
    """

    made_from: Dict[str, str]
    toolchain: Dict[str, Any]
    details: Dict[str, Any]

    def of(self, made_from: Dict[str, str], **details: Any) -> Provenance:
        """A copy with further sources and entries."""
        return replace(self, made_from={**self.made_from, **made_from}, details={**self.details, **details})


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place on success and vanishes on failure.

    A folder of an earlier run is moved aside first and removed last, so no mixture of two runs can be seen.
    Raises ArtifactError where the place cannot be written.
    """
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", suffix="-" + target.name, dir=str(target.parent)))
    except OSError as exc:
        raise ArtifactError(
            f"{target}: cannot write there ({exc.strerror}); choose another output folder or change its permissions"
        ) from exc
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        os.chmod(str(temporary), 0o777 & ~_umask())
        if target.exists() or target.is_symlink():
            os.replace(str(target), str(old))
        try:
            os.replace(str(temporary), str(target))
        except OSError:
            if old.exists():
                os.replace(str(old), str(target))
            raise
    except OSError as exc:
        raise ArtifactError(f"{target}: writing failed ({exc.strerror or exc}); is the disk full?") from exc
    finally:
        shutil.rmtree(str(temporary), ignore_errors=True)
        shutil.rmtree(str(old), ignore_errors=True)


def write_subject(
    target: Path,
    moved: np.ndarray,
    flow_vox: np.ndarray,
    moved_seg: Optional[np.ndarray],
    affine: np.ndarray,
    stored_dtype: str,
    factor: float,
    provenance: Provenance,
    seg_sha256: Optional[str] = None,
) -> None:
    """Write one subject's results with the atlas's geometry, and what they were made from.

    Parameters
    ----------
    moved : ndarray, shape (X, Y, Z), float32 — network intensities; stored in the scan's own scale (times `factor`) and kind:
        float32 for a float scan, rounded to the scan's integer dtype for an integer one.
    flow_vox : ndarray, shape (X, Y, Z, 3), float32 — voxels of the fixed grid.
    moved_seg : ndarray, shape (X, Y, Z), integer, or None.
    affine : ndarray, shape (4, 4) — of the atlas.
    provenance : Provenance — of the moved scan and the flow.
    seg_sha256 : str — of the segmentation's own file; None where the scan's file holds it.
    """
    with whole_folder(target) as folder:
        write_nifti(folder / MOVED_NAME, to_source_scale(moved, stored_dtype, factor), affine)
        _record(folder / MOVED_NAME, provenance)
        write_flow(folder / FLOW_NAME, flow_vox, affine, provenance.made_from, provenance.toolchain, **provenance.details)
        if moved_seg is not None:
            write_nifti(folder / MOVED_SEG_NAME, moved_seg, affine)
            _record(folder / MOVED_SEG_NAME, provenance.of({"moving_seg": seg_sha256} if seg_sha256 else {}))


def to_source_scale(moved: np.ndarray, stored_dtype: str, factor: float) -> np.ndarray:
    """Network intensities back in the scan's scale and kind (see `write_subject`)."""
    values = moved * np.float32(factor)
    dtype = np.dtype(stored_dtype)
    if dtype.kind not in "ui":
        return values
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), max(limits.min, -(2**31)), min(limits.max, 2**31 - 128)).astype(dtype)


def _record(path: Path, provenance: Provenance) -> None:
    write_sidecar(path, provenance.made_from, provenance.toolchain, **provenance.details)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
