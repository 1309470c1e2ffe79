# SPDX-License-Identifier: Apache-2.0
"""participants.tsv: reads what is found in practice, writes the figures of the registration and a data dictionary."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from om_runner.bids.dataset import read_object
from om_runner.bids.names import is_label
from vxm_convert.artifacts.files import read_bounded, write_json
from vxm_convert.artifacts.tsv import MISSING, write_table
from vxm_convert.errors import VolumeError

LOG = logging.getLogger(__name__)

TABLE_NAME, DICTIONARY_NAME = "participants.tsv", "participants.json"
ID = "participant_id"
_MAX_BYTES = 64 << 20
_MAX_COLUMNS = 2000
_UNDEFINED = "Taken over from the source dataset's participants.tsv, which does not define it."

#: names of columns, letters only, that say who somebody is; a derivative is handed on
_IDENTIFIES = re.compile(
    r"(patient|subject|participant)?(full|first|last|middle|given|family|sur|fore|maiden|birth)?names?|initials"
    r"|(patient)?(birth(day|date)|dateofbirth|birthdt|dob|bday)"
    r"|(medical|hospital|patient|health)?(record|chart|file|case)(number|num|no|nr|id)|mrn|(patient|hospital)(id|number|no|nr)"
    r"|(social|national|insurance|health|nhs|ssn)(security|insurance|card)?(number|num|no|nr|id)?|ssn|passport(number|no)?"
    r"|(e?mail|phone|telephone|mobile|fax)(address|number|no)?|(home|street|postal)?address|street|zip(code)?|post(al)?code"
)

#: figure of a scan's row → (function that combines several scans, description)
FIGURES: Dict[str, Tuple[Callable[[Sequence[float]], float], Dict[str, Any]]] = {
    "dice_before": (
        mean,
        {"Description": "Mean Dice over structures before the network; mean over scans", "Units": "1"},
    ),
    "dice_after": (mean, {"Description": "Mean Dice over structures after the network; mean over scans", "Units": "1"}),
    "folding_fraction": (
        max,
        {"Description": "Fraction of voxels whose Jacobian determinant is at most 0; largest of the scans"},
    ),
    "jacobian_min": (min, {"Description": "Smallest Jacobian determinant; smallest of the scans", "Units": "1"}),
    "flow_max_voxel": (
        max,
        {"Description": "Longest displacement in voxels of the network grid; largest of the scans"},
    ),
}
COUNTS: Dict[str, Dict[str, Any]] = {
    "n_scans": {"Description": "Scans of the participant that were registered"},
    "n_failed": {"Description": "Scans of the participant whose last registration failed; reasons in failures.tsv"},
}


@dataclass(frozen=True)
class Participants:
    """Participants of a dataset: other columns in order, ``sub-<label>`` → their cells, and their dictionary."""

    columns: Tuple[str, ...] = ()
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dictionary: Mapping[str, Any] = field(default_factory=dict)


def read_participants(folder: Path) -> Participants:
    """The table of a dataset; empty if there is none. Bad rows and columns are skipped with a warning.

    BIDS tables have no quoting: a ``"`` is an ordinary character.

    Raises
    ------
    VolumeError
        If the table or its dictionary cannot be read, is not text, or has no column participant_id.
    """
    path = Path(folder) / TABLE_NAME
    if not path.is_file():
        return Participants()
    data = read_bounded(path, _MAX_BYTES, "the table of participants", "check its permissions")
    try:
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as exc:
        raise VolumeError(f"{path}: not UTF-8 ({exc}); save it as UTF-8, which BIDS requires") from exc
    header = [name.strip() for name in lines[0].split("\t")] if lines else []
    if ID not in header:
        raise VolumeError(
            f"{path}: its first line is {header[:6]}, expected column names separated by tabs, {ID} among them"
        )
    if len(header) > _MAX_COLUMNS:
        raise VolumeError(f"{path}: {len(header)} columns, expected at most {_MAX_COLUMNS}")
    columns = _columns(path, header)
    rows: Dict[str, Dict[str, str]] = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != len(header):
            LOG.warning(
                "%s, row %d: %d cells, the header has %d; the row is skipped", path, number, len(cells), len(header)
            )
            continue
        subject = _subject(cells[header.index(ID)].strip())
        if subject is None or subject in rows:
            LOG.warning("%s, row %d: %s %r; the row is skipped", path, number, ID, cells[header.index(ID)])
            continue
        rows[subject] = {name: cells[at].strip() or MISSING for name, at in columns.items()}
    side = Path(folder) / DICTIONARY_NAME
    return Participants(tuple(columns), rows, read_object(side) if side.is_file() else {})


def write_participants(
    folder: Path, source: Participants, done: Mapping[str, List[Dict[str, Any]]], failed: Mapping[str, int]
) -> List[str]:
    """Write table and dictionary.

    Parameters
    ----------
    done : ``sub-<label>`` → the rows of metrics of its registered scans.
    failed : ``sub-<label>`` → number of its failed scans.

    Returns
    -------
    list of str — names of the files written.
    """
    taken = {name: _free(name) for name in source.columns}
    columns = [ID] + list(taken.values()) + list(COUNTS) + list(FIGURES)
    lines: List[List[Any]] = []
    for subject in sorted(set(done) | {name for name, count in failed.items() if count}):
        own, rows = source.rows.get(subject, {}), done.get(subject, [])
        cells: List[Any] = [subject] + [own.get(name, MISSING) for name in taken] + [len(rows), failed.get(subject, 0)]
        cells += [_together(rows, key, how) for key, (how, _) in FIGURES.items()]
        lines.append(cells)
    write_table(folder / TABLE_NAME, columns, lines)
    write_json(folder / DICTIONARY_NAME, _dictionary(source, taken))
    return [TABLE_NAME, DICTIONARY_NAME]


def _dictionary(source: Participants, taken: Mapping[str, str]) -> Dict[str, Any]:
    entries: Dict[str, Any] = {ID: {"Description": "Participant, as in the source dataset"}}
    for name, ours in taken.items():
        given = source.dictionary.get(name)
        entries[ours] = given if isinstance(given, dict) and given else {"Description": _UNDEFINED}
    return {**entries, **COUNTS, **{name: about for name, (_, about) in FIGURES.items()}}


def _columns(path: Path, header: Sequence[str]) -> Dict[str, int]:
    """Name → position of the columns that can be taken over."""
    columns: Dict[str, int] = {}
    for at, name in enumerate(header):
        if name == ID and header.index(ID) == at:
            continue
        if not name or name in columns or name == ID or re.search(r"[\x00-\x1f]", name):
            LOG.warning("%s: column %d (%r) has no unique name and is skipped", path, at + 1, name)
            continue
        if _IDENTIFIES.fullmatch(re.sub(r"[^a-z]", "", name.lower())):
            LOG.warning("%s: column %r may identify a person and is left out of the derivative", path, name)
            continue
        columns[name] = at
    return columns


def _subject(text: str) -> Optional[str]:
    label = text[len("sub-") :] if text.startswith("sub-") else text
    return f"sub-{label}" if is_label(label) else None


def _free(name: str) -> str:
    return f"{name}_source" if name in COUNTS or name in FIGURES else name


def _together(rows: Sequence[Mapping[str, Any]], key: str, how: Callable[[Sequence[float]], float]) -> Optional[float]:
    values = [float(row[key]) for row in rows if isinstance(row.get(key), (int, float))]
    return how(values) if values else None
