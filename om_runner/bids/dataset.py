# SPDX-License-Identifier: Apache-2.0
"""Reads a BIDS dataset: finds the requested scans and their segmentations, by file names alone.

A scan is ``sub-*/[ses-*/]anat/sub-*_<suffix>.nii[.gz]``. Its segmentation is a ``_dseg`` with the same entities beside
it or in ``derivatives/*``: ``desc-aseg`` first, then one without ``desc-``; a label table with other structures than
FreeSurfer's excludes it, because Dice would compare different things.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from om_runner.bids import names
from om_runner.inputs.scans import Scan
from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import VolumeError, VxmError
from vxm_convert.metrics.labels import LABEL_NAMES, load_label_set
from vxm_convert.scans.discovery import say_unread
from vxm_convert.text import whole_in

LOG = logging.getLogger(__name__)

DESCRIPTION_NAME = "dataset_description.json"
#: name in GeneratedBy that identifies our own derivatives
GENERATOR = "vxm_convert"
FILTER_KEYS = ("suffix",) + names.SCAN_ENTITIES[2:] + names.DERIVED_ENTITIES
_MAX_JSON = 4 << 20
#: a structure whose name distinguishes FreeSurfer's ids from tissue classes
_TELLTALE = 2


@dataclass(frozen=True)
class Choice:
    """Selects scans of a dataset: labels without ``sub-`` and ``ses-`` (None: all), and entity or ``suffix`` → label."""

    participants: Optional[Tuple[str, ...]] = None
    sessions: Optional[Tuple[str, ...]] = None
    filters: Tuple[Tuple[str, str], ...] = ()

    @property
    def suffix(self) -> str:
        return dict(self.filters).get("suffix", "T1w")

    @property
    def space(self) -> Optional[str]:
        return dict(self.filters).get("space")

    def takes(self, name: names.Name) -> bool:
        """Whether a file is requested; entities of derivatives only if a filter names them."""
        wanted = dict(self.filters)
        if name.suffix != self.suffix or any(
            key in name.entities and key not in wanted for key in names.DERIVED_ENTITIES
        ):
            return False
        return all(_same(name.entities.get(key), label) for key, label in wanted.items() if key != "suffix")


class Dataset:
    """A BIDS dataset on disk.

    Parameters
    ----------
    root : Path — its folder.
    skip : Path — a folder inside it that is ignored: the output of this run.
    """

    def __init__(self, root: Path, skip: Optional[Path] = None) -> None:
        self.root = Path(root)
        self.description = read_description(self.root) or {}
        self._pipelines = [
            p
            for p in _folders(self.root / "derivatives")
            if not (skip and _is_same(p, skip)) and not generated_by_us(p)
        ]

    def scans(self, choice: Choice) -> List[Scan]:
        """The scans in the order of names.

        Raises
        ------
        VolumeError
            If a requested participant or session does not exist, or there is no scan.
        """
        found: Dict[str, Scan] = {}
        others: List[Path] = []
        for subject in self._subjects(choice):
            before = len(found)
            for folder, home in self._anat_folders(subject, choice):
                others += [path for path in _listed(folder) if not path.name.startswith(".")]
                for path, name in _named(folder, home):
                    if choice.takes(name):
                        self._add(found, path, name)
            if len(found) == before:
                LOG.warning("%s: no %s scan%s, the participant is skipped", subject, choice.suffix, _filtered(choice))
        say_unread(self.root, others)
        if not found:
            raise VolumeError(
                f"{self.root}: no {choice.suffix} scan in it{_filtered(choice)}; expected "
                f"sub-<label>/[ses-<label>/]anat/sub-<label>_{choice.suffix}.nii.gz; select derived scans with "
                "--bids-filter desc=… or space=…"
            )
        return [found[key] for key in sorted(found)]

    def _subjects(self, choice: Choice) -> List[Path]:
        folders = {p.name[len("sub-") :]: p for p in _labelled(self.root, "sub-")}
        if not folders:
            raise VolumeError(
                f"{self.root}: no folder sub-<label> in it, expected a BIDS dataset; a plain folder needs no --bids"
            )
        return [folders[label] for label in _chosen(folders, choice.participants, "sub-", self.root)]

    def _anat_folders(self, subject: Path, choice: Choice) -> Iterator[Tuple[Path, str]]:
        """Folders of scans, each with the prefix of its file names."""
        sessions = {p.name[len("ses-") :]: p for p in _labelled(subject, "ses-")}
        if choice.sessions is None and (subject / "anat").is_dir():
            yield subject / "anat", subject.name
        if choice.sessions is None or sessions:
            wanted = None if choice.sessions is None else [label for label in choice.sessions if label in sessions]
            for label in _chosen(sessions, wanted, "ses-", subject):
                if (sessions[label] / "anat").is_dir():
                    yield sessions[label] / "anat", f"{subject.name}_ses-{label}"

    def _add(self, found: Dict[str, Scan], path: Path, name: names.Name) -> None:
        unknown = [key for key in name.entities if key not in names.SCAN_ENTITIES + names.DERIVED_ENTITIES]
        if unknown:
            LOG.warning("%s: a registered scan cannot have the entity %s, the scan is skipped", path, unknown[0])
            return
        key = names.identity({k: v for k, v in name.entities.items() if k in names.SCAN_ENTITIES})
        if key in found:
            LOG.warning("%s: %s has the name of the same scan, this one is skipped", path, found[key].path.name)
            return
        found[key] = Scan(key, path, self._segmentation(path, name))

    def _segmentation(self, path: Path, scan: names.Name) -> Optional[Path]:
        home = names.folder_of(scan.entities)
        candidates = []
        for place, folder in enumerate([path.parent] + [pipeline / str(home) / "anat" for pipeline in self._pipelines]):
            for other, name in _named(folder, ""):
                desc = name.entities.get("desc")
                if name.suffix == "dseg" and desc in (None, "aseg") and _same_scan(name, scan):
                    candidates.append((desc is None, place, other.name, other))
        for unsure, _, _, other in sorted(candidates):
            if not unsure:
                return other
            if self._other_structures(other):
                LOG.warning(
                    "%s: its label table names other structures than FreeSurfer's ids; not used for Dice", other
                )
                continue
            LOG.warning(
                "%s: used as the segmentation; its labels are assumed to be FreeSurfer's ids (desc-aseg would state "
                "this)",
                other,
            )
            return other
        return None

    def _other_structures(self, seg: Path) -> bool:
        """The name of one characteristic id in the label table that applies to the file by BIDS' inheritance."""
        stem = seg.name[: -len(names.parse(seg.name).extension)]
        places = [seg.with_name(stem + ".tsv")] + [
            parent / "dseg.tsv" for parent in seg.parents if self.root in (parent, *parent.parents)
        ]
        for path in places:
            if path.is_file():
                try:
                    return load_label_set(str(path)).names.get(_TELLTALE) not in (None, LABEL_NAMES[_TELLTALE])
                except VxmError as exc:
                    LOG.warning("%s", exc)
        return False


def is_described(folder: Path) -> bool:
    """Whether a folder declares itself a BIDS dataset."""
    return (Path(folder) / DESCRIPTION_NAME).is_file()


def is_dataset(folder: Path) -> bool:
    """Whether a folder is read as a BIDS dataset without --bids: it declares itself one and has participants."""
    return is_described(folder) and any(path.name.startswith("sub-") for path in _folders(Path(folder)))


def read_description(folder: Path) -> Optional[Dict[str, Any]]:
    """dataset_description.json, or None if there is none; VolumeError if it is damaged."""
    path = Path(folder) / DESCRIPTION_NAME
    return read_object(path) if path.is_file() else None


def read_object(path: Path) -> Dict[str, Any]:
    """A JSON object of limited size; VolumeError for anything else."""
    try:
        data = json.loads(read_bounded(path, _MAX_JSON, "a JSON file", "check its permissions").decode("utf-8-sig"))
    except (VxmError, ValueError, RecursionError) as exc:
        raise VolumeError(f"{path}: not a JSON object ({exc}); repair or remove it") from exc
    if not isinstance(data, dict):
        raise VolumeError(f"{path}: contains a {type(data).__name__}, expected a JSON object; repair or remove it")
    return data


def generated_by_us(folder: Path) -> bool:
    """Whether a folder is a derivative of this project; a damaged description counts as foreign."""
    try:
        made = (read_description(folder) or {}).get("GeneratedBy")
    except VolumeError:
        return False
    return isinstance(made, list) and any(isinstance(one, dict) and one.get("Name") == GENERATOR for one in made)


def _chosen(there: Dict[str, Path], wanted: Optional[Sequence[str]], prefix: str, where: Path) -> List[str]:
    if wanted is None:
        return sorted(there)
    missing = [label for label in wanted if label not in there]
    if missing:
        known = ", ".join(prefix + label for label in sorted(there)[:8]) or "none"
        raise VolumeError(
            f"{where}: no folder {prefix}{missing[0]} in it; there are {known}{' …' if len(there) > 8 else ''}"
        )
    return sorted(set(wanted))


def _labelled(folder: Path, prefix: str) -> List[Path]:
    """Folders ``<prefix><label>``; others with the prefix are skipped with a warning."""
    found = []
    for path in _folders(folder):
        if path.name.startswith(prefix):
            if names.is_label(path.name[len(prefix) :]):
                found.append(path)
            else:
                LOG.warning("%s: skipped, a label may have only letters, digits and +", path)
    return found


def _folders(folder: Path) -> List[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    except OSError as exc:
        raise VolumeError(f"{folder}: cannot list this folder ({exc.strerror}); check its permissions") from exc


def _named(folder: Path, start: str) -> Iterator[Tuple[Path, names.Name]]:
    """Volumes of a folder with their parsed names; a broken link counts, so that it fails by name later."""
    for path in _listed(folder):
        if not (path.name.startswith("sub-") and path.name.lower().endswith(names.EXTENSIONS)):
            continue
        try:
            name = names.parse(path.name)
        except VolumeError as exc:
            LOG.warning("%s: skipped, %s", path, exc)
            continue
        if start and not (path.name + "_").startswith(start + "_"):
            LOG.warning("%s: skipped, names in this folder start with %s_", path, start)
            continue
        yield path, name


def _listed(folder: Path) -> List[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise VolumeError(f"{folder}: cannot list this folder ({exc.strerror}); check its permissions") from exc


def _same_scan(seg: names.Name, scan: names.Name) -> bool:
    """Whether entities are equal, apart from those that a segmentation may add; a space must be the scan's."""
    ours, theirs = ({k: v for k, v in n.entities.items() if k not in ("desc", "seg")} for n in (seg, scan))
    return set(ours) == set(theirs) and all(_same(ours[key], theirs[key]) for key in ours)


def _same(label: Optional[str], other: str) -> bool:
    """Whether labels are equal, ignoring leading zeros of numbers."""
    return label == other or (label is not None and None is not whole_in(label) == whole_in(other))


def _is_same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def _filtered(choice: Choice) -> str:
    words = [f"ses-{label}" for label in choice.sessions or ()] + [
        f"{key}={label}" for key, label in choice.filters if key != "suffix"
    ]
    return f" with {', '.join(words)}" if words else ""
