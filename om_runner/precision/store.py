# SPDX-License-Identifier: Apache-2.0
"""Raw .npy files for the comparison: inputs and outputs of the network, for the compared subjects only.

At 160x192x224 one subject takes about 165 MB of temporary disk inside the output folder; everything is deleted when the
store closes.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, List, Optional

import numpy as np

from vxm_convert.artifacts.shares import cannot_map, write_problem
from vxm_convert.artifacts.temporaries import temporary_prefix
from vxm_convert.errors import ArtifactError

FIXED = "fixed"
MOVING = "moving"
SEG = "seg"
MOVED = "moved"
FLOW = "flow"
REFERENCE_MOVED = "ref_moved"
REFERENCE_FLOW = "ref_flow"
#: of a pair, whose fixed image is its own
OWN_FIXED = "fixed"
FIXED_SEG = "fixed_seg"
#: in the order of `CompareStore.put`
_GIVEN = (MOVING, SEG, MOVED, FLOW, OWN_FIXED, FIXED_SEG)


class CompareStore:
    """A context manager over a temporary folder.

    Parameters
    ----------
    out : Path — output folder that contains the temporary folder.
    limit : int or None — number of subjects to keep; None keeps all, 0 none.
    """

    def __init__(self, out: Path, limit: Optional[int]) -> None:
        self._limit = limit
        self.subjects: List[str] = []
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=temporary_prefix(), suffix="-compare", dir=str(out)))
        except OSError as exc:
            raise ArtifactError(
                f"{out}: cannot write there ({exc.strerror}); choose another output folder with --out"
            ) from exc

    def __enter__(self) -> CompareStore:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(str(self.folder), ignore_errors=True)

    @property
    def wants_more(self) -> bool:
        return self._limit is None or len(self.subjects) < self._limit

    def put_fixed(self, image: np.ndarray) -> None:
        self._save(self.folder / f"{FIXED}.npy", image)

    def put(self, subject: str, *arrays: Optional[np.ndarray]) -> None:
        """Keep one subject.

        Parameters
        ----------
        arrays : moving image, its labels or None, moved image, flow; and of a pair its fixed image, and that one's
            labels or None: images (X, Y, Z), flow (X, Y, Z, 3) in voxels, all float32 network values.
        """
        for what, array in zip(_GIVEN, arrays):
            if array is not None:
                self._save(self.path(subject, what), array)
        self.subjects.append(subject)

    def keep(self, subject: str, what: str, array: np.ndarray) -> None:
        """Keep one more array of a subject: a reference that was computed elsewhere."""
        self._save(self.path(subject, what), array)

    def path(self, subject: str, what: str) -> Path:
        # Numbered, so that no subject's name can collide with ours.
        number = self.subjects.index(subject) if subject in self.subjects else len(self.subjects)
        return self.folder / f"{number:06d}.{what}.npy"

    def get(self, subject: str, what: str) -> Optional[np.ndarray]:
        """One array, memory-mapped, or None if it was not stored; raises ArtifactError if it is damaged."""
        path = self.path(subject, what)
        if not path.is_file():
            return None
        try:
            return load_mapped(path)
        except (OSError, ValueError, EOFError) as exc:
            raise ArtifactError(f"{path}: damaged intermediate file: {write_problem(exc)}") from exc

    def fixed_path(self, subject: str) -> Path:
        """The file of a subject's fixed image: its own, or that of all."""
        own = self.path(subject, OWN_FIXED)
        return own if own.is_file() else self.folder / f"{FIXED}.npy"

    def fixed(self, subject: str) -> np.ndarray:
        """The fixed image of a subject, memory-mapped."""
        return load_mapped(self.fixed_path(subject))

    def drop(self, subject: str) -> None:
        """Delete the files of a compared subject."""
        for what in (*_GIVEN, REFERENCE_MOVED, REFERENCE_FLOW):
            path = self.path(subject, what)
            if path.exists():
                path.unlink()

    def adopt(self, subject: str, stem: str) -> None:
        """Keep a subject whose arrays another process wrote with `save_arrays`."""
        for what in _GIVEN:
            there = Path(f"{stem}.{what}.npy")
            if there.is_file():
                there.replace(self.path(subject, what))
        self.subjects.append(subject)

    @staticmethod
    def _save(path: Path, array: np.ndarray) -> None:
        try:
            np.save(str(path), array, allow_pickle=False)
        except OSError as exc:
            raise ArtifactError(
                f"{path}: writing failed: {write_problem(exc)}; --compare 1 keeps only one scan"
            ) from exc


def load_mapped(path: Path) -> Any:
    """An array of a .npy file, memory-mapped, or read where the file system cannot map; raises as ``np.load``."""
    try:
        return np.load(str(path), mmap_mode="r", allow_pickle=False)
    except OSError as exc:
        if not cannot_map(exc):
            raise
        return np.load(str(path), allow_pickle=False)


def save_arrays(stem: Path, *arrays: Optional[np.ndarray]) -> None:
    """Write one subject's arrays, those of `CompareStore.put`, as ``<stem>.<what>.npy``, for `CompareStore.adopt` in another
    process.
    """
    for what, array in zip(_GIVEN, arrays):
        if array is not None:
            CompareStore._save(Path(f"{stem}.{what}.npy"), array)
