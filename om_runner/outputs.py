# SPDX-License-Identifier: Apache-2.0
"""One subject's folder, which appears whole or not at all; names of its files, their scale and their side-cars."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator

import numpy as np

from vxm_convert.artifacts import UMASK, write_sidecar
from vxm_convert.errors import ArtifactError

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
        os.chmod(str(temporary), 0o777 & ~UMASK)
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


def to_source_scale(moved: np.ndarray, stored_dtype: str, factor: float) -> np.ndarray:
    """Network intensities back in the scan's scale (times `factor`) and kind: float32 for a float scan, rounded for an integer one."""
    values = moved * np.float32(factor)
    dtype = np.dtype(stored_dtype)
    if dtype.kind not in "ui":
        return values
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), max(limits.min, -(2**31)), min(limits.max, 2**31 - 128)).astype(dtype)


def record(path: Path, provenance: Provenance, **details: Any) -> None:
    """The side-car of a written file: its provenance and further entries."""
    write_sidecar(path, provenance.made_from, provenance.toolchain, **{**provenance.details, **details})
