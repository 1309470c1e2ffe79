# SPDX-License-Identifier: Apache-2.0
"""The layout of a BIDS derivative: results are written with plain names and then get their BIDS names and side-cars.

Several scans share a folder, so a scan's files appear one after the other, each complete; its figures in
``provenance/`` come last.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ContextManager, Dict, Iterator, List, Sequence

from om_runner.bids import names
from om_runner.bids.dataset import Dataset, read_object
from om_runner.bids.description import Links, write_description
from om_runner.bids.participant_tables import write_tables
from om_runner.bids.participants import Participants
from om_runner.bids.records import FAILURE_RECORD, METRICS_RECORD, RESULTS_RECORD, files_in, record_files
from om_runner.bids.sidecars import Sources, sidecar_of
from om_runner.inputs.scans import Scan
from om_runner.results.columns import FailureRow, MetricsRow
from om_runner.results.index_page import write_index
from om_runner.results.layout import Layout
from om_runner.results.writer import new_folder
from om_runner.sharing.links import refuse_linked_folders
from vxm_convert.artifacts.files import sidecar_path, write_json
from vxm_convert.artifacts.reports import finite
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.errors import ArtifactError, VolumeError

LOG = logging.getLogger(__name__)


class Derivative(Layout):
    """A BIDS derivative.

    Parameters
    ----------
    out : Path — its folder.
    dataset, participants : Dataset, Participants — the source of the scans, and data about the participants.
    naming : Naming — the common part of the names.
    atlas : Path — the fixed image.
    toolchain : str — of the registration, in one line.
    method : str — the registration in one sentence.
    """

    def __init__(
        self,
        out: Path,
        dataset: Dataset,
        participants: Participants,
        naming: names.Naming,
        atlas: Path,
        toolchain: str,
        simulated: bool,
        method: str,
    ) -> None:
        super().__init__(out)
        self._dataset, self._participants, self._naming = dataset, participants, naming
        self.style = f"BIDS, {naming.source()} to {naming.atlas}"
        self._links = Links(self.out, dataset.root, Path(atlas))
        self._toolchain, self._simulated, self._method = toolchain, simulated, method

    def path_of(self, subject: str, name: str) -> Path:
        return self.out / str(self._naming.path_of(subject, name))

    def place(self, scan: Scan) -> ContextManager[Path]:
        return self._placing(scan)

    def files_of(self, subjects: Sequence[str]) -> List[str]:
        return sorted(path.relative_to(self.out).as_posix() for subject in subjects for path in self._standing(subject))

    def note(self, row: MetricsRow) -> None:
        write_json(self.path_of(row.subject, METRICS_RECORD), finite(asdict(row)))
        _remove(self.path_of(row.subject, FAILURE_RECORD))

    def note_failure(self, row: FailureRow) -> None:
        write_json(self.path_of(row.subject, FAILURE_RECORD), asdict(row))
        _remove(self.path_of(row.subject, METRICS_RECORD))

    def finish(self) -> List[str]:
        made = write_description(self.out, self._links, self._dataset.description, self._toolchain, self._simulated)
        return made + write_tables(self.out, self._participants) + record_files(self.out) + write_index(self.out)

    def check(self, scan: Scan) -> None:
        """Files of a derivative are placed one by one, under names of ours."""

    @contextmanager
    def _placing(self, scan: Scan) -> Iterator[Path]:
        try:
            folder = new_folder(self.out, "-" + scan.subject[:40])
        except OSError as exc:
            raise ArtifactError(
                f"{self.out}: cannot write there ({exc.strerror}); choose another output folder"
            ) from exc
        try:
            yield folder
            self._stand(scan, folder)
        except OSError as exc:
            raise ArtifactError(f"{self.out}: writing {scan.subject} failed: {write_problem(exc)}") from exc
        finally:
            shutil.rmtree(str(folder), ignore_errors=True)

    def _stand(self, scan: Scan, folder: Path) -> None:
        """Give the files of a scan their names; results of an earlier run for this scan are removed first."""
        plain = sorted(p.name for p in folder.iterdir())
        subject, labels = scan.subject, []
        for name in [name for name in plain if name + ".json" in plain]:
            noted = self._renamed(subject, read_object(sidecar_path(folder / name)))
            write_json(sidecar_path(folder / name), noted)
            entries = sidecar_of(name, folder / name, noted, self._sources(scan))
            if entries is not None:
                labels += entries.get("Labels", [])
                write_json(folder / _bids_side(name), entries)
        moves = {name: self._target(subject, name, plain) for name in sorted(p.name for p in folder.iterdir())}
        refuse_linked_folders(self.out, {str(target.parent.relative_to(self.out)) for target in moves.values()})
        for path in self._standing(subject):
            _remove(path)
        record = {
            "subject": subject,
            "files": {name: target.relative_to(self.out).as_posix() for name, target in moves.items()},
            "labels": sorted(set(labels)),
        }
        # Before the files, so that no unknown file can be left behind.
        write_json(self.path_of(subject, RESULTS_RECORD), record)
        for name, target in moves.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(str(folder / name), str(target))

    def _target(self, subject: str, name: str, plain: Sequence[str]) -> Path:
        """Destination of a file with that name in the temporary folder: a side-car of either kind goes beside its file."""
        for owner in plain:
            if name == owner + ".json":
                return sidecar_path(self.path_of(subject, owner))
            if name == _bids_side(owner):
                path = self.path_of(subject, owner)
                return path.with_name(_bids_side(path.name))
        return self.path_of(subject, name)

    def _renamed(self, subject: str, noted: Dict[str, Any]) -> Dict[str, Any]:
        """A record with the file names of the derivative."""
        return {
            key: self.path_of(subject, value).name
            if key in ("file", "inverse_of") and isinstance(value, str)
            else value
            for key, value in noted.items()
        }

    def _standing(self, subject: str) -> List[Path]:
        """The files that are known to be ours for exactly this scan; foreign files beside them are not touched."""
        record = self.path_of(subject, RESULTS_RECORD)
        if not record.is_file():
            return []
        try:
            named = files_in(self.out, read_object(record))
        except VolumeError as exc:
            LOG.warning("%s; files that it named may be left behind", exc)
            named = {}
        return [path for path in (*named.values(), record) if path.is_file()]

    def _sources(self, scan: Scan) -> Sources:
        seg = None if scan.seg_path is None else self._links.uri(scan.seg_path)
        return Sources(self._links.uri(scan.path), self._links.atlas_uri(), seg, self._naming, self._method, scan.path)


def _bids_side(name: str) -> str:
    """``moved.nii.gz`` → ``moved.json``; no two plain names have the same stem."""
    return name.partition(".")[0] + ".json"


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ArtifactError(
            f"{path}: cannot remove files of an earlier run ({exc.strerror}); check its permissions"
        ) from exc
