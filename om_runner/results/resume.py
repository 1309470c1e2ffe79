# SPDX-License-Identifier: Apache-2.0
"""Decides which scans need not be registered again: the record of a finished one, and the comparison with it.

A record (``OUT/.om_runner/<subject>.json``) is written after the subject's files. It holds the key (everything that
determines the results), the sha256 of every file, and the row of the table. A scan is skipped if its present key is the
recorded one and every file still has its recorded bytes. Any other scan is registered again, with a reason in the log.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.affine_files import AUTO_AFFINE, NO_AFFINE, affine_file
from om_runner.inputs.placement import PlacingOptions
from om_runner.inputs.scans import LoadedScan, Scan
from om_runner.names import LOG_NAME, STATE_FOLDER
from om_runner.results.cohort_record import as_strict
from om_runner.results.columns import MetricsRow
from om_runner.results.layout import Layout
from om_runner.results.products import OutputOptions
from om_runner.sharing.names import file_name, file_stamp
from vxm_convert.artifacts.files import read_bounded, sha256_of, write_json
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.reports import finite
from vxm_convert.artifacts.sha256sums import recorded_digest, set_aside
from vxm_convert.artifacts.temporaries import remove
from vxm_convert.errors import VxmError
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.profiles.profile import Limit

#: increased when results of the same inputs change: records of other versions are ignored
RESULT_VERSION = 2
#: of ``--affine auto``, increased when the search finds other affines
_SEARCH_VERSION = 2
#: of an image and of its segmentation, where that is a file of its own
Digests = Tuple[Optional[str], Optional[str]]
_MAX_RECORD = 4 << 20
_CHECKERS = 2
#: parts of a key → text for a difference in them
_REASONS = {
    "version": "results have another version",
    "om": "another offline model",
    "contract": "another contract",
    "toolchain": "another toolchain",
    "atlas": "another atlas",
    "atlas_seg": "another segmentation of the atlas",
    "scan": "the scan changed",
    "scan_file": "the scan's file has another name",
    "seg": "the scan's segmentation changed",
    "affine_file": "another affine",
    "search": "the search for the affine changed",
    "judged": "judged by laxer limits of plausibility",
}


@dataclass(frozen=True)
class Record:
    """A finished scan.

    Parameters
    ----------
    key : dict — see `Keys`.
    files : dict — name below the output folder → sha256.
    row : MetricsRow
    digest : str — of the whole record: a subject that is registered again has another one.
    """

    key: Dict[str, Any]
    files: Dict[str, str]
    row: MetricsRow
    digest: str = ""


@dataclass(frozen=True)
class Decision:
    """The decision for a scan and its reason; `record` if an earlier result is kept; `seen`: digest of the record that was
    looked at, if there was one.
    """

    scan: Scan
    why: str
    record: Optional[Record] = None
    seen: Optional[str] = None

    @property
    def skip(self) -> bool:
        return self.record is not None


class Keys:
    """Everything that determines results, as one flat dict per scan.

    Parameters
    ----------
    model, atlas, label_set, placing, outputs : settings of the run; atlas None: every scan has a fixed image of its own.
    layout : str — naming of files.
    judged : sequence of Limit — what outputs must meet; results that met the same or stricter limits are kept.
    """

    def __init__(
        self,
        model: OfflineModel,
        atlas: Optional[LoadedScan],
        label_set: str,
        placing: PlacingOptions,
        outputs: OutputOptions,
        layout: str = Layout.style,
        judged: Sequence[Limit] = (),
    ) -> None:
        described = model.toolchain.describe()
        self._affine = placing.affine
        from_file = placing.affine not in (NO_AFFINE, AUTO_AFFINE)
        self.of_run: Dict[str, Any] = {
            "version": RESULT_VERSION,
            "om": model.contract.hashes["om"],
            "contract": sha256_of(model.contract_path),
            "toolchain": f"{described['kind']} {described['version']}",
            **({"pairs": True} if atlas is None else {"atlas": atlas.sha256, "atlas_seg": atlas.seg_sha256}),
            "labels": label_set,
            "layout": layout,
            "judged": {limit.figure.name: [limit.figure.relation, limit.value] for limit in judged},
            **{**vars(placing), "affine": "file" if from_file else placing.affine},
            "label_map": None if placing.label_map is None else load_label_map(placing.label_map).sha256,
            **({"search": _SEARCH_VERSION} if placing.affine == AUTO_AFFINE else {}),
            **outputs.to_dict(),
        }

    def of(self, scan: Scan, digests: Digests, fixed: Digests) -> Dict[str, Any]:
        """The key of a scan whose files have these sha256; those of the fixed image count if that is the scan's own."""
        affine = None
        if self.of_run["affine"] == "file":
            path = affine_file(self._affine, scan.subject)
            affine = None if path is None else sha256_of(path)
        own = {"scan": digests[0], "scan_file": scan.path.name, "seg": digests[1], "affine_file": affine}
        if scan.fixed is not None:
            own["atlas"], own["atlas_seg"] = fixed
        # In the form in which JSON is read back, so that a tuple equals its list.
        key: Dict[str, Any] = json.loads(json.dumps({**self.of_run, **own}))
        return key


class Records:
    """Records of an output folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.out / STATE_FOLDER

    def write(self, key: Mapping[str, Any], row: MetricsRow, further: Sequence[str] = ()) -> None:
        """Record a subject after its files are written; `further` files of it, by their names below the output folder,
        are elsewhere.
        """
        names = [name for name in self._layout.files_of([row.subject]) if not name.endswith(LOG_NAME)] + list(further)
        files = {name: recorded_digest(self._layout.out / name) for name in names}
        body = {"key": dict(key), "files": files, "row": finite(asdict(row))}
        write_json(self._path(row.subject), {**body, "sha256": _digest(body)})

    def forget(self, subject: str) -> None:
        """Remove the record before its files change, and the list of hashes, which would name the old ones."""
        path = self._path(subject)
        if os.path.lexists(str(path)):
            set_aside(self._layout.out)
            remove(path)

    def read(self, subject: str) -> Optional[Record]:
        """The record, or None if there is none that can be trusted."""
        found = self._read(self._path(subject))
        return found if found is not None and found.row.subject == subject else None

    def stamp(self, subject: str) -> object:
        """Changes with every new record of this subject; None without one."""
        return file_stamp(self._path(subject))

    def everything(self) -> Iterator[Record]:
        """All records that can be trusted, of whatever runs, in the order of their files' names."""
        for path in sorted(self._folder.glob("*.json")):
            found = self._read(path)
            if found is not None and self._path(found.row.subject) == path:
                yield found

    @staticmethod
    def _read(path: Path) -> Optional[Record]:
        if path.is_symlink() or not path.is_file():
            return None
        try:
            data = parse_json(read_bounded(path, _MAX_RECORD, "the record of a scan", "register it again"), str(path))
            row, digest = data["row"], data.pop("sha256")
            if digest != _digest(data) or set(row) != {f.name for f in fields(MetricsRow)}:
                return None
            files = {str(name): str(file_digest) for name, file_digest in data["files"].items()}
            return Record(dict(data["key"]), files, MetricsRow(**row), str(digest))
        except (VxmError, ValueError, KeyError, TypeError, AttributeError):
            # A damaged record counts as missing: the scan is registered again, which writes a new one.
            return None

    def damage(self, record: Record) -> Optional[str]:
        """The problem with a subject's files; None if all are as recorded."""
        if not record.files:
            return "no file is recorded"
        for name, digest in sorted(record.files.items()):
            path = self._layout.out / name
            if path.is_symlink():
                return f"{name} is a link"
            if not path.is_file():
                return f"{name} is missing"
            if sha256_of(path) != digest:
                return f"{name} is damaged"
        return None

    def _path(self, subject: str) -> Path:
        return self._folder / f"{file_name(subject)}.json"


def decide(
    scans: Sequence[Scan], keys: Keys, records: Records, force: bool, failed: Sequence[str] = ()
) -> List[Decision]:
    """A decision per scan, in order. Reads only scans whose record may be valid.

    Parameters
    ----------
    force : bool — register all of them.
    failed : subjects that failed in an earlier run, for the reason.
    """
    if force:
        return [Decision(scan, "--force", seen=_digest_of(records.read(scan.subject))) for scan in scans]
    known = set(failed)
    with ThreadPoolExecutor(_CHECKERS, "check") as pool:
        return list(pool.map(lambda scan: _decide(scan, keys, records, scan.subject in known), scans))


def _decide(scan: Scan, keys: Keys, records: Records, failed: bool) -> Decision:
    record = records.read(scan.subject)
    if record is None:
        return Decision(scan, "failed before" if failed else "no finished result")
    changed = _difference(record.key, {**record.key, **keys.of_run})
    if changed is None:
        try:
            changed = _difference(record.key, keys.of(scan, _digests(scan), _digests(scan.fixed)))
        except VxmError as exc:
            return Decision(scan, f"cannot be compared with its result: {exc}", seen=record.digest)
    if changed is None:
        changed = records.damage(record)
    if changed:
        return Decision(scan, changed, seen=record.digest)
    return Decision(scan, "unchanged", record, record.digest)


def _digests(scan: Optional[Scan]) -> Digests:
    """sha256 of a scan's file as it is now, and of its segmentation's."""
    if scan is None:
        return None, None
    return scan.file.sha256, None if scan.seg_file is None else scan.seg_file.sha256


def _digest_of(record: Optional[Record]) -> Optional[str]:
    return None if record is None else record.digest


def matches_run(record: Record, of_run: Mapping[str, Any]) -> bool:
    """Whether a record was made with these settings, whatever its scan."""
    return _difference(record.key, {**record.key, **of_run}) is None


def _digest(body: Mapping[str, Any]) -> str:
    """Digest of a record without the digest itself: otherwise one changed digit in a row would stay in every later
    table.
    """
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("utf-8")).hexdigest()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> Optional[str]:
    before, now = json.loads(json.dumps(before)), json.loads(json.dumps(now))
    parts = [part for part in sorted(set(before) | set(now)) if before.get(part) != now.get(part)]
    if "judged" in parts and as_strict(before.get("judged"), now.get("judged") or {}):
        parts.remove("judged")
    if not parts:
        return None
    told = [_REASONS[part] for part in parts if part in _REASONS]
    settings = [part for part in parts if part not in _REASONS]
    return ", ".join(told + ([f"other settings: {', '.join(settings)}"] if settings else []))
