# SPDX-License-Identifier: Apache-2.0
"""The small JSON beside a subject's pictures, from which the pages are made; and the folder of pictures itself,
complete or not at all.
"""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, Optional, Tuple

from om_runner.qc.case import Case
from om_runner.qc.measures import warnings_of
from om_runner.qc.pictures import Drawn, draw
from om_runner.qc.structures import MOST_LABELS
from om_runner.results.writer import check_replaceable, whole_folder
from vxm_convert.artifacts.files import read_bounded, write_json
from vxm_convert.errors import ArtifactError, FormatError, VxmError
from vxm_convert.metrics.labels import label_name

LOG = logging.getLogger(__name__)

RECORD_NAME = "record.json"
SUBJECT_PAGE = "index.html"
SCHEMA = 1
#: names of the pictures, in the order of drawing; the file of each is its name + .png
PICTURES = (
    "fixed",
    "before",
    "after",
    "overview",
    "thumb",
    "checker",
    "difference_before",
    "difference_after",
    "contours",
    "structures",
    "grid",
    "jacobian",
)
_MAX_BYTES = 1 << 18
_LONGEST_TEXT = 2000
#: legal folder names in a link; the runner's own names are more restricted
_FOLDER_NAME = re.compile(r"[^/\\\x00-\x1f]{1,255}")


@dataclass(frozen=True)
class Record:
    """The data of one subject for the pages.

    Parameters
    ----------
    figures : dict — name → number or None, see `om_runner.qc.measures` and the columns of metrics.tsv.
    pictures : dict — name of `PICTURES` → (width, height) in pixels.
    by_labels : bool — the contours show labels, not intensities.
    structures : tuple of str — names of those in the picture ``structures``, from value 1.
    origin : str — hashes of model and atlas, the key of the ratings in a browser.
    """

    subject: str
    simulated: Optional[bool]
    figures: Dict[str, Optional[float]]
    pictures: Dict[str, Tuple[int, int]]
    warnings: Tuple[str, ...] = ()
    notes: Tuple[str, ...] = ()
    label_set: str = ""
    grid: str = ""
    letters: bool = True
    by_labels: bool = False
    moved_labels: bool = False
    structures: Tuple[str, ...] = ()
    origin: str = ""


def write_case(folder: Path, case: Case, drawn: Optional[Drawn] = None) -> Record:
    """Draw, if that was not done before, and write ``folder/<subject>/``; replaces a folder of an earlier run.

    Raises
    ------
    ArtifactError
        If the folder cannot be written, or would replace a file or a folder of other files.
    """
    check_replaceable(Path(folder) / case.subject, "choose another --out", (RECORD_NAME,))
    drawn = drawn or draw(case)
    record = _record(case, drawn)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ArtifactError(
            f"{folder}: cannot create this folder for pictures ({exc.strerror}); choose another place"
        ) from exc
    with whole_folder(folder / case.subject) as place:
        for name, picture in drawn.pictures.items():
            (place / f"{name}.png").write_bytes(picture.png)
        entries = {"schema": SCHEMA, "made_from": case.made_from, **asdict(record)}
        write_json(place / RECORD_NAME, entries)
    return record


def _record(case: Case, drawn: Drawn) -> Record:
    figures = {name: _number(value) for name, value in {**case.figures, **drawn.figures}.items()}
    return Record(
        subject=case.subject,
        simulated=case.simulated,
        figures=figures,
        pictures={name: (picture.width, picture.height) for name, picture in drawn.pictures.items()},
        warnings=tuple(dict.fromkeys([*case.warnings, *warnings_of(figures, case.letters)])),
        notes=case.notes,
        label_set=case.label_set,
        grid=case.grid.describe(),
        letters=case.letters,
        by_labels=case.fixed_seg is not None,
        moved_labels=case.moved_seg is not None,
        structures=tuple(map(label_name, drawn.labels)),
        origin=" ".join(str(case.made_from.get(role)) for role in ("om", "atlas")),
    )


def read_records(folder: Path) -> Iterator[Record]:
    """The records below a folder of pictures in name order; damaged ones are logged and skipped."""
    for path in sorted(Path(folder).glob(f"*/{RECORD_NAME}")):
        try:
            yield read_record(path)
        except VxmError as exc:
            LOG.warning("%s", exc)


def read_record(path: Path) -> Record:
    """One record; raises FormatError or ArtifactError for another file, or if its subject differs from its folder."""
    data = read_bounded(path, _MAX_BYTES, "a record of pictures", "make the pictures again")
    try:
        entries = json.loads(data.decode("utf-8"))
        if (
            entries["schema"] != SCHEMA
            or entries["subject"] != path.parent.name
            or not _FOLDER_NAME.fullmatch(entries["subject"])
        ):
            raise ValueError("another schema or subject")
        sizes: Dict[str, Tuple[int, int]] = {}
        for name in (name for name in PICTURES if name in entries["pictures"]):
            width, height = (int(n) for n in entries["pictures"][name])
            sizes[name] = width, height
        if any(min(size) < 1 for size in sizes.values()):
            raise ValueError("a picture without size")
        return Record(
            subject=entries["subject"],
            simulated=entries["simulated"] if isinstance(entries["simulated"], bool) else None,
            figures={str(name): _number(value) for name, value in entries["figures"].items()},
            pictures={name: size for name, size in sizes.items() if (path.parent / f"{name}.png").is_file()},
            warnings=_texts(entries["warnings"]),
            notes=_texts(entries["notes"]),
            label_set=str(entries["label_set"]),
            grid=str(entries["grid"]),
            letters=entries["letters"] is True,
            by_labels=entries["by_labels"] is True,
            moved_labels=entries["moved_labels"] is True,
            # Records of earlier versions have none.
            structures=_texts(entries.get("structures", ()), MOST_LABELS),
            origin=str(entries["origin"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as exc:
        raise FormatError(f"{path}: not a record of pictures ({exc!r:.200}); make the pictures again") from exc


def _texts(entries: Iterable[object], most: int = 100) -> Tuple[str, ...]:
    return tuple(str(entry)[:_LONGEST_TEXT] for entry in list(entries)[:most])


def _number(value: object) -> Optional[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value
