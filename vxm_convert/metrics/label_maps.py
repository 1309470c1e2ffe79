# SPDX-License-Identifier: Apache-2.0
"""From the labels of one tool to those of another, by a table: packaged ones by name, or a file.

A table is text with tabs; its first line names the columns ``from`` and ``to``, and ``name`` if it has names. Several labels
may go to one; lines that start with # are comments. A label that the table does not have becomes background, which is counted and said.

`synthseg` are SynthSeg's labels, with its parcels of the cortex (``--parc``) put together: the 32 structures are FreeSurfer's
under FreeSurfer's ids. `neuromorphometrics` are the labels of the MICCAI 2012 challenge, which SPM's
``labels_Neuromorphometrics`` has too; what FreeSurfer has no structure for (vermis, basal forebrain, vessels, optic chiasm) is
left out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Dict, List

import numpy as np

from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import VolumeError
from vxm_convert.metrics.labels import LABEL_MAPS
from vxm_convert.metrics.numbering import ids_in
from vxm_convert.text import whole_in

LOG = logging.getLogger(__name__)

_MAX_BYTES = 1 << 20
_MAX_LABEL = 2**31
_NAMED = 6
_COLUMNS = ("from", "to", "name")


@dataclass(frozen=True)
class LabelMap:
    """A table of labels.

    Parameters
    ----------
    name : str — of the packaged table, or the file's.
    to : dict — label → label of the other scheme.
    sha256 : str — of the table.
    """

    name: str
    to: Dict[int, int]
    sha256: str

    def apply(self, labels: np.ndarray, where: object, quiet: bool = False) -> np.ndarray:
        """The segmentation in the other scheme, int32; logs what the table does not have.

        Parameters
        ----------
        labels : ndarray, any shape, integer.
        where : object — names the segmentation in the log.
        quiet : bool — do not log.
        """
        found = [label for label in ids_in(labels) if label != 0]
        known = [label for label in found if label in self.to]
        lost = [label for label in found if label not in self.to]
        mapped = np.zeros(labels.shape, np.int32)
        if known:
            places = np.searchsorted(known, labels).clip(0, len(known) - 1)
            same = np.asarray(known)[places] == labels
            mapped = np.where(same, np.array([self.to[label] for label in known], np.int32)[places], np.int32(0))
        if lost and not quiet:
            voxels = int(np.count_nonzero(np.isin(labels, lost)))
            shown = ", ".join(str(label) for label in lost[:_NAMED]) + (", …" if len(lost) > _NAMED else "")
            LOG.warning(
                "%s: %d of its %d labels (%d voxels) are not in the label map %s and become background: %s",
                where,
                len(lost),
                len(found),
                voxels,
                self.name,
                shown,
            )
        return mapped


def load_label_map(choice: str) -> LabelMap:
    """A packaged table, or the table in a file.

    Raises
    ------
    VolumeError
        For a name that is neither, and a file that is no such table.
    """
    path = Path(__file__).with_name(f"{choice}.tsv") if choice in LABEL_MAPS else Path(choice)
    if not path.is_file():
        raise VolumeError(f"label map: got {choice!r}, expected one of {', '.join(LABEL_MAPS)} or a file")
    data = read_bounded(path, _MAX_BYTES, "a label map", "write a table with the columns from and to")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as exc:
        raise VolumeError(f"{path}: is no UTF-8 text, expected a table with the columns from and to") from exc
    name = choice if choice in LABEL_MAPS else path.name
    return LabelMap(name, _parsed(path, lines), sha256(data).hexdigest())


def _parsed(path: Path, lines: List[str]) -> Dict[int, int]:
    rows = [
        (number, line.split("\t")) for number, line in enumerate(lines, 1) if line.strip() and line.lstrip()[0] != "#"
    ]
    head = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if not {"from", "to"} <= set(head) or not set(head) <= set(_COLUMNS) or len(set(head)) != len(head):
        raise VolumeError(
            f"{path}: its first line says {', '.join(head)[:80] or 'nothing'}, expected the columns from, to, and name if "
            "you like, separated by tabs"
        )
    found: Dict[int, int] = {}
    for number, cells in rows[1:]:
        if len(cells) != len(head):
            raise VolumeError(f"{path}, line {number}: {len(cells)} cells, expected {len(head)}, one per column")
        pair = []
        for column in _COLUMNS[:2]:
            cell = cells[head.index(column)].strip()
            label = whole_in(cell)
            if label is None or not 0 <= label < _MAX_LABEL:
                raise VolumeError(
                    f"{path}, line {number}: {column} {cell[:60]!r}, expected a label from 0 to 2147483647"
                )
            pair.append(label)
        if pair[0] == 0 or pair[0] in found:
            raise VolumeError(
                f"{path}, line {number}: label {pair[0]} {'is background' if pair[0] == 0 else 'appears twice'}; "
                "remove the line"
            )
        found[pair[0]] = pair[1]
    if not found:
        raise VolumeError(f"{path}: maps no label, expected a line for each below its first; add them")
    return found
