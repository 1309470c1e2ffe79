# SPDX-License-Identifier: Apache-2.0
"""Keeps TensorFlow's reference between runs, for searches that register the same scans many times with different
models.

One folder per result, ``<key>/{moved.npy, flow.npy, entry.json}``; the key is the sha256 over the frozen graph's hash,
the batch and the bytes of both images, so that another graph or scan is another entry. Entries appear completely or not
at all, and each use checks their content against the hashes in ``entry.json``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from om_runner.device.offline_model import OfflineModel
from om_runner.precision.reference import Reference
from om_runner.precision.store import MOVING, REFERENCE_FLOW, REFERENCE_MOVED, CompareStore
from vxm_convert.artifacts.files import check_output_folder, sha256_of, write_json
from vxm_convert.artifacts.temporaries import clear_temporaries, temporary_prefix
from vxm_convert.errors import ArtifactError

LOG = logging.getLogger(__name__)

_ENTRY = "entry.json"
_SCHEMA = 1
_MAX_ENTRY_BYTES = 1 << 16
_BLOCK = 1 << 18
#: result → file in the entry
_FILES = {REFERENCE_MOVED: "moved.npy", REFERENCE_FLOW: "flow.npy"}


class CachedReference(Reference):
    """A replacement for `ReferenceProcess` that starts the process only if a result is not in the cache.

    Parameters
    ----------
    folder : Path — the cache, created if missing.
    start : callable — starts the process.
    pb_sha256, batch : str, int — of the frozen graph.
    store : CompareStore — destination of the references.

    Raises
    ------
    ArtifactError
        If the folder cannot be written.
    """

    def __init__(
        self, folder: Path, start: Callable[[], Reference], pb_sha256: str, batch: int, store: CompareStore
    ) -> None:
        self._folder = check_output_folder(folder)
        clear_temporaries(self._folder)
        self._start = start
        self._pb_sha256 = pb_sha256
        self._batch = batch
        self._store = store
        self._process: Optional[Reference] = None
        self._version = ""
        self._fixed_sha256: Dict[Path, str] = {}

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    @property
    def tensorflow_version(self) -> str:
        """Version of the results of `run`; starts the process if there are none."""
        return self._version or self._running().tensorflow_version

    def run(self, subjects: List[str]) -> float:
        """As `ReferenceProcess.run`: one batch. Returns TensorFlow's seconds at the time of computation."""
        keys = {subject: self._key(subject) for subject in subjects}
        entries = {subject: self._load(keys[subject], subject) for subject in subjects}
        missing = [subject for subject in subjects if entries[subject] is None]
        known = sum(float(entry["seconds"]) for entry in entries.values() if entry is not None)
        if not missing:
            LOG.info("reference of %s: from the cache", ", ".join(subjects))
            return known
        process = self._running()
        self._version = process.tensorflow_version
        seconds = process.run(missing)
        for subject in missing:
            self._save(keys[subject], subject, seconds / len(missing))
        return known + seconds

    def _running(self) -> Reference:
        if self._process is None:
            self._process = self._start()
        return self._process

    def _key(self, subject: str) -> str:
        fixed = self._store.fixed_path(subject)
        if fixed not in self._fixed_sha256:
            self._fixed_sha256[fixed] = sha256_of(fixed)
        images = [sha256_of(self._store.path(subject, MOVING)), self._fixed_sha256[fixed]]
        return hashlib.sha256("\n".join([self._pb_sha256, str(self._batch)] + images).encode("ascii")).hexdigest()

    def _load(self, key: str, subject: str) -> Optional[Dict[str, Any]]:
        """Copy an entry into the store; None if there is none that can be trusted."""
        folder = self._folder / key
        if not folder.is_dir():
            return None
        try:
            if (folder / _ENTRY).stat().st_size > _MAX_ENTRY_BYTES:
                raise ValueError("entry too large")
            entry = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
            for what, name in _FILES.items():
                if _copy(folder / name, self._store.path(subject, what)) != entry["sha256"][name]:
                    raise ValueError(f"{name} is not what was stored")
            self._version = str(entry["tensorflow"])
            return {"seconds": float(entry["seconds"])}
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ArtifactError) as exc:
            LOG.warning("reference cache: %s is damaged (%s); TensorFlow computes it again", folder, exc)
            shutil.rmtree(str(folder), ignore_errors=True)
            return None

    def _save(self, key: str, subject: str, seconds: float) -> None:
        """A cache that cannot be written costs only time."""
        work = None
        try:
            work, hashes = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=str(self._folder))), {}
            for what, name in _FILES.items():
                hashes[name] = _copy(self._store.path(subject, what), work / name)
            write_json(
                work / _ENTRY, {"schema": _SCHEMA, "sha256": hashes, "tensorflow": self._version, "seconds": seconds}
            )
            os.rename(str(work), str(self._folder / key))
        except (OSError, ArtifactError) as exc:
            # Also if another process has stored it in the meantime.
            LOG.debug("reference cache: %s not stored (%s)", key, exc)
        finally:
            if work is not None:
                shutil.rmtree(str(work), ignore_errors=True)


def _copy(source: Path, target: Path) -> str:
    """Copy a file; returns the hex sha256 of the copied bytes without reading it again."""
    digest = hashlib.sha256()
    with open(str(source), "rb") as here, open(str(target), "wb") as there:
        for block in iter(lambda: here.read(_BLOCK), b""):
            there.write(block)
            digest.update(block)
    return digest.hexdigest()


def open_reference(
    cache: Optional[Path], start: Callable[[], Reference], model: OfflineModel, store: CompareStore
) -> Any:
    """The reference as a context manager: the process from `start`, or with a cache folder one that is started on
    demand.
    """
    if cache is None:
        return start()
    contract = model.contract
    if sha256_of(model.pb_path) != contract.hashes.get("frozen_pb"):
        # The process refuses it with a reason; a cache hit must not hide this.
        return start()
    return CachedReference(cache, start, contract.hashes["frozen_pb"], contract.model.batch, store)
