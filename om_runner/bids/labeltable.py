# SPDX-License-Identifier: Apache-2.0
"""dseg.tsv: name and colour of every label in the segmentations of a derivative. Names and colours:
FreeSurferColorLUT.txt.
"""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

from vxm_convert.artifacts.tsv import write_table
from vxm_convert.metrics.labels import label_name

TABLE_NAME = "dseg.tsv"
#: structures of an aseg that are in none of our label sets
_FURTHER_NAMES = {
    1: "Left-Cerebral-Exterior",
    5: "Left-Inf-Lat-Vent",
    26: "Left-Accumbens-area",
    30: "Left-vessel",
    44: "Right-Inf-Lat-Vent",
    58: "Right-Accumbens-area",
    62: "Right-vessel",
    72: "5th-Ventricle",
    77: "WM-hypointensities",
    80: "non-WM-hypointensities",
    85: "Optic-Chiasm",
}
_BOTH_SIDES: Tuple[Tuple[int, int, str], ...] = (
    (3, 42, "#CD3E4E"),
    (4, 43, "#781286"),
    (5, 44, "#C43AFA"),
    (7, 46, "#DCF8A4"),
    (8, 47, "#E69422"),
    (10, 49, "#00760E"),
    (11, 50, "#7ABADC"),
    (12, 51, "#EC0DB0"),
    (17, 53, "#DCD814"),
    (18, 54, "#67FFFF"),
    (26, 58, "#FFA500"),
    (28, 60, "#A52A2A"),
    (30, 62, "#A020F0"),
)
_COLOURS: Dict[int, str] = {
    0: "#000000",
    1: "#4682B4",
    2: "#F5F5F5",
    41: "#00E100",
    13: "#0C30FF",
    52: "#0D30FF",
    14: "#CCB68E",
    15: "#2ACCA4",
    16: "#779FB0",
    24: "#3C3C3C",
    31: "#00C8C8",
    63: "#00C8DD",
    72: "#78BE96",
    77: "#C846FF",
    80: "#A46CE2",
    85: "#EAA91E",
    251: "#000040",
    252: "#000070",
    253: "#0000A0",
    254: "#0000D0",
    255: "#0000FF",
    **{label: colour for left, right, colour in _BOTH_SIDES for label in (left, right)},
}


def name_of(label: int) -> str:
    """FreeSurfer's name, or ``label-<id>``."""
    return _FURTHER_NAMES.get(label) or label_name(label)


def colour_of(label: int) -> str:
    """FreeSurfer's colour as ``#RRGGBB``; for other ids a hue that differs from its neighbours' and is the same in
    every run.
    """
    if label in _COLOURS:
        return _COLOURS[label]
    # Steps of the golden angle spread any sequence of ids over the circle.
    rgb = colorsys.hsv_to_rgb((label * 0.61803398875) % 1.0, 0.65, 0.9)
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)


def write_label_table(folder: Path, labels: Iterable[int]) -> List[str]:
    """Write the table; names of the files written, none if there is no label."""
    rows = [(label, name_of(label), colour_of(label)) for label in sorted(set(labels))]
    if not rows:
        return []
    write_table(Path(folder) / TABLE_NAME, ("index", "name", "color"), rows)
    return [TABLE_NAME]
