# SPDX-License-Identifier: Apache-2.0
"""Sets of structures over which Dice is averaged, by name or from a file; a Dice without the set's name is meaningless.

`paper30` are the 30 structures of the VoxelMorph paper (its ``labels.npz``). `seed30` are the 30 ids of the public
Ascend adaptation: with background (Dice near 0.97) and parts of the corpus callosum, but without the putamen, so its
mean is not comparable with the paper's. `common24` is in both. Names: FreeSurferColorLUT.txt.

`oasis35` are the 35 structures of OASIS as Learn2Reg and neurite number them, 1 to 35: not FreeSurfer's ids (`numbering`
tells the two apart), so it is no choice where structures are named by their FreeSurfer ids.

A file of a set holds one structure per line: id and name, further columns ignored, ``#`` starts a comment; a line for 0 is
left out, because background is no structure. So FreeSurferColorLUT.txt, a BIDS ``dseg.tsv`` that starts with index and
name, and a plain list of ids are read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Tuple

from vxm_convert.errors import VolumeError
from vxm_convert.text import read_reason, whole_in

LOG = logging.getLogger(__name__)

# (id, name, in seed30, in paper30)
_TABLE: Tuple[Tuple[int, str, bool, bool], ...] = (
    (0, "Background", True, False),
    (2, "Left-Cerebral-White-Matter", True, True),
    (3, "Left-Cerebral-Cortex", True, True),
    (4, "Left-Lateral-Ventricle", True, True),
    (7, "Left-Cerebellum-White-Matter", True, True),
    (8, "Left-Cerebellum-Cortex", True, True),
    (10, "Left-Thalamus", True, True),
    (11, "Left-Caudate", True, True),
    (12, "Left-Putamen", False, True),
    (13, "Left-Pallidum", True, True),
    (14, "3rd-Ventricle", True, True),
    (15, "4th-Ventricle", True, True),
    (16, "Brain-Stem", True, True),
    (17, "Left-Hippocampus", True, True),
    (18, "Left-Amygdala", False, True),
    (24, "CSF", True, True),
    (28, "Left-VentralDC", True, True),
    (31, "Left-choroid-plexus", False, True),
    (41, "Right-Cerebral-White-Matter", True, True),
    (42, "Right-Cerebral-Cortex", True, True),
    (43, "Right-Lateral-Ventricle", True, True),
    (46, "Right-Cerebellum-White-Matter", True, True),
    (47, "Right-Cerebellum-Cortex", True, True),
    (49, "Right-Thalamus", True, True),
    (50, "Right-Caudate", True, True),
    (51, "Right-Putamen", False, True),
    (52, "Right-Pallidum", False, True),
    (53, "Right-Hippocampus", True, True),
    (54, "Right-Amygdala", True, True),
    (60, "Right-VentralDC", True, True),
    (63, "Right-choroid-plexus", False, True),
    (251, "CC_Posterior", True, False),
    (252, "CC_Mid_Posterior", True, False),
    (253, "CC_Central", True, False),
    (254, "CC_Mid_Anterior", True, False),
    (255, "CC_Anterior", True, False),
)

LABEL_NAMES: Dict[int, str] = {label: name for label, name, _, _ in _TABLE}
LABEL_SETS: Dict[str, Tuple[int, ...]] = {
    "paper30": tuple(label for label, _, _, paper in _TABLE if paper),
    "seed30": tuple(label for label, _, seed, _ in _TABLE if seed),
    "common24": tuple(label for label, _, seed, paper in _TABLE if seed and paper),
}
_PAIRED = (
    "Cerebral-White-Matter Cerebral-Cortex Lateral-Ventricle Inf-Lat-Vent Cerebellum-White-Matter Cerebellum-Cortex "
    "Thalamus Caudate Putamen Pallidum"
).split()
_PAIRED_BELOW = "Hippocampus Amygdala Accumbens-area VentralDC vessel choroid-plexus".split()
#: structures in the order of OASIS' ids, the first is 1
_OASIS = (
    [f"Left-{name}" for name in _PAIRED]
    + ["3rd-Ventricle", "4th-Ventricle", "Brain-Stem"]
    + [f"Left-{name}" for name in _PAIRED_BELOW]
    + [f"Right-{name}" for name in _PAIRED + _PAIRED_BELOW]
)
#: sets whose ids are not FreeSurfer's: set → id → name
OTHER_SETS: Dict[str, Dict[int, str]] = {"oasis35": {n: name for n, name in enumerate(_OASIS, start=1)}}
ALL_SETS: Tuple[str, ...] = tuple(sorted(LABEL_SETS)) + tuple(sorted(OTHER_SETS))
DEFAULT_LABEL_SET = "paper30"
#: packaged tables of `vxm_convert.metrics.label_maps`
LABEL_MAPS: Tuple[str, ...] = ("neuromorphometrics", "synthseg")
_MAX_BYTES = 1 << 20
_MAX_LABELS = 10000


@dataclass(frozen=True)
class LabelSet:
    """Name of the set (the file's name for a file), ids ascending, id → structure name."""

    name: str
    ids: Tuple[int, ...]
    names: Dict[int, str]


def label_set(name: str) -> Tuple[int, ...]:
    """Label ids of a named set, ascending; raises VolumeError for an unknown name."""
    if name not in LABEL_SETS:
        raise VolumeError(f"label set: got {name!r}, expected one of {', '.join(sorted(LABEL_SETS))}")
    return LABEL_SETS[name]


def label_name(label: int) -> str:
    """FreeSurfer's name of a structure, or ``label-<id>`` if the table has none."""
    return LABEL_NAMES.get(int(label), f"label-{int(label)}")


def load_label_set(choice: str) -> LabelSet:
    """A named set, or the set in a file.

    Raises
    ------
    VolumeError
        For a name that is neither a set nor a file, or a file without labels.
    """
    if choice in LABEL_SETS:
        ids = tuple(sorted(label_set(choice)))
        return LabelSet(choice, ids, {label: label_name(label) for label in ids})
    if choice in OTHER_SETS:
        return LabelSet(choice, tuple(sorted(OTHER_SETS[choice])), dict(OTHER_SETS[choice]))
    path = Path(choice)
    if not path.is_file():
        raise VolumeError(
            f"label set: got {choice!r}, expected one of {', '.join(ALL_SETS)} or a file of ids and names"
        )
    if path.stat().st_size > _MAX_BYTES:
        raise VolumeError(f"{path}: {path.stat().st_size} bytes, expected a label list of at most {_MAX_BYTES}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise VolumeError(f"{path}: not a readable text file ({read_reason(exc)})") from exc
    names = _parse_lines(lines, path)
    if names.pop(0, None) is not None:
        LOG.info("%s: label 0 is background and left out", path)
    if not 0 < len(names) <= _MAX_LABELS:
        raise VolumeError(f"{path}: {len(names)} labels, expected 1 to {_MAX_LABELS} lines with an id and a name")
    return LabelSet(path.name, tuple(sorted(names)), names)


def _parse_lines(lines: List[str], path: Path) -> Dict[int, str]:
    names: Dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words or (number == 1 and not words[0].lstrip("-").isdigit()):
            continue
        label = whole_in(words[0])
        if label is None or label >= 2**31:
            raise VolumeError(f"{path}, line {number}: {words[0]!r:.60}, expected a label id from 0 to {2**31 - 1}")
        if label in names:
            raise VolumeError(f"{path}, line {number}: label {label} appears twice")
        names[label] = words[1] if len(words) > 1 else label_name(label)
    return names
