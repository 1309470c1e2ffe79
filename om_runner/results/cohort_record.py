# SPDX-License-Identifier: Apache-2.0
"""What all processes that work on an output folder have in common: the settings of its results, the scans of the input;
and a short entry per process that has ended.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from om_runner.inputs.scans import FIXED_IMAGE, Scan
from om_runner.names import STATE_FOLDER
from om_runner.sharing.names import COHORT_FOLDER
from vxm_convert.artifacts.files import MAX_JSON_BYTES, read_bounded, write_json
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.temporaries import process_token, remove
from vxm_convert.errors import ArtifactError, VxmError
from vxm_convert.profiles.limitable_figures import AT_MOST

LOG = logging.getLogger(__name__)

#: entry of the settings: limits of plausibility, by name; stricter ones before imply laxer ones now
JUDGED = "judged"
SETTINGS_NAME, SCANS_NAME = "settings.json", "scans.json"
_PROCESS = "process-"
#: entries of processes that are kept
_MOST_PROCESSES = 256
_SHOWN = 12


class Known(NamedTuple):
    """A scan as the folder knows it: subject, file, and segmentation file or None; of a pair, both files of its fixed
    image, and what the table calls it; of a series, the number of the frame.
    """

    subject: str
    path: str
    seg_path: Optional[str]
    fixed: Optional[str] = None
    fixed_seg: Optional[str] = None
    called: Optional[str] = None
    frame: Optional[str] = None


def known(scans: Sequence[Scan]) -> List[Known]:
    """Scans of an input."""
    return [Known(scan.subject, *_files(scan), *_of_fixed(scan.fixed), _frame_of(scan)) for scan in scans]


def scans_from(entries: Sequence[Known], opened: Dict[Tuple[Optional[str], ...], Scan]) -> List[Scan]:
    """The inverse of `known`.

    Parameters
    ----------
    opened : fixed images by their files, which is added to: pairs with the same one share it.
    """
    found = []
    for entry in entries:
        fixed = None
        if entry.fixed is not None:
            files = (entry.fixed, entry.fixed_seg)
            fixed = opened.setdefault(files, Scan(FIXED_IMAGE, *_paths(*files), called=entry.called or ""))
        frame = None if entry.frame is None else int(entry.frame)
        found.append(Scan(entry.subject, *_paths(entry.path, entry.seg_path), fixed, frame=frame))
    return found


class CohortRecord:
    """The common records of an output folder."""

    def __init__(self, out: Path) -> None:
        self._out = Path(out)
        self._folder = self._out / STATE_FOLDER / COHORT_FOLDER

    def settings(self) -> Optional[Dict[str, Any]]:
        """``key``: what all results were made with; ``about``: entries of run.json. None if no run has begun here."""
        data = self._read(SETTINGS_NAME)
        sound = isinstance(data, dict) and isinstance(data.get("key"), dict) and isinstance(data.get("about"), dict)
        return data if sound else None

    def check(self, key: Mapping[str, Any], in_use: Callable[[Mapping[str, Any]], bool], what: str) -> None:
        """Refuse settings that differ from those of the results.

        Parameters
        ----------
        in_use : callable — whether there are results with the recorded settings, or processes that make some.
        what : str — how to go on.

        Raises
        ------
        ArtifactError
            Names every setting with its value there and here.
        """
        there = self.settings()
        # Results in another layout have other names.
        if there is None or there["key"].get("layout") != key.get("layout"):
            return
        differences = different(there["key"], json.loads(json.dumps(dict(key))))
        if differences and in_use(there["key"]):
            told = "; ".join(
                f"{name} is {_short(before)} there and {_short(now)} here" for name, before, now in differences
            )
            raise ArtifactError(f"{self._out}: its results have other settings: {told}; {what}")

    def write(self, key: Mapping[str, Any], about: Mapping[str, Any], scans: Sequence[Scan]) -> None:
        """Record settings and scans, if they are not there already."""
        settings = json.loads(json.dumps({"key": dict(key), "about": dict(about)}))
        if self.settings() != settings:
            write_json(self._folder / SETTINGS_NAME, settings)
        listed = known(scans)
        if self.scans() != listed:
            short = len(Known._fields) - len(Known._field_defaults)
            write_json(
                self._folder / SCANS_NAME, [list(scan if any(scan[short:]) else scan[:short]) for scan in listed]
            )

    def scans(self) -> Optional[List[Known]]:
        """The scans of the input of the last run; None if unknown."""
        data = self._read(SCANS_NAME)
        if not isinstance(data, list) or not all(isinstance(entry, list) and len(entry) in (3, 7) for entry in data):
            return None
        cells = [[None if cell is None else str(cell) for cell in entry] for entry in data]
        return [Known(str(subject), str(path), *files) for subject, path, *files in cells]

    def add_process(self, entry: Mapping[str, Any]) -> None:
        """Record what this process did; the oldest entries go."""
        write_json(self._folder / f"{_PROCESS}{process_token()}.json", dict(entry))
        entries = sorted(self._folder.glob(f"{_PROCESS}*.json"), key=_age)
        for path in entries[:-_MOST_PROCESSES]:
            remove(path)

    def processes(self) -> List[Dict[str, Any]]:
        """The entries of processes, the last one to end last."""
        found = [self._read(path.name) for path in self._folder.glob(f"{_PROCESS}*.json")]
        return sorted(
            (entry for entry in found if isinstance(entry, dict)), key=lambda entry: str(entry.get("finished"))
        )

    def _read(self, name: str) -> Any:
        path = self._folder / name
        if path.is_symlink() or not path.is_file():
            return None
        try:
            return parse_json(read_bounded(path, MAX_JSON_BYTES, "a record of the runs", "remove it"), str(path))
        except VxmError as exc:
            LOG.warning("%s; it is ignored", exc)
            return None


def different(before: Mapping[str, Any], now: Mapping[str, Any]) -> List[Tuple[str, Any, Any]]:
    """Name, value before and value now of all entries that differ; limits are kept with every result instead, which is
    registered again if it was judged by laxer ones.
    """
    names = sorted(set(before) | set(now))
    found = [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]
    return [one for one in found if one[0] != JUDGED]


def as_strict(before: object, now: Mapping[str, Any]) -> bool:
    """Whether limits that a result has met imply those that it would have to meet now; both name → (relation, value)."""
    if not isinstance(before, dict) or not set(now) <= set(before):
        return False
    pairs = [(*before[name], *limit) for name, limit in now.items()]
    return all(was == is_now and (old <= new if is_now == AT_MOST else old >= new) for was, old, is_now, new in pairs)


def _short(value: object) -> str:
    text = json.dumps(value)
    digest = isinstance(value, str) and len(value) == 64
    return f'{text[: _SHOWN + 1]}…"' if digest else text


def _files(scan: Scan) -> Tuple[str, Optional[str]]:
    return os.path.abspath(str(scan.path)), None if scan.seg_path is None else os.path.abspath(str(scan.seg_path))


def _of_fixed(fixed: Optional[Scan]) -> Tuple[Optional[str], Optional[str], Optional[str]]:
    return (None, None, None) if fixed is None else (*_files(fixed), fixed.called)


def _frame_of(scan: Scan) -> Optional[str]:
    return None if scan.frame is None else str(scan.frame)


def _paths(path: str, seg_path: Optional[str]) -> Tuple[Path, Optional[Path]]:
    return Path(path), None if seg_path is None else Path(seg_path)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
