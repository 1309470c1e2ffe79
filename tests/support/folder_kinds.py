# SPDX-License-Identifier: Apache-2.0
"""Kinds of entries in a folder of scans, what each command does with them, and the table of docs/running.md about it.

``python -m tests.support.folder_kinds`` writes the table. tests/integration/test_folder_kinds.py proves every cell.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple

import nibabel as nib

from tests.support import fakes, textual

#: what lists a folder; all do the same
ENTRIES = ("om_runner", "audit", "layers", "export tune", "train", "train evaluate", "train prepare")
READ, SAID, UNREAD, IGNORED, SKIPPED = "read", "left out, said", "not read, said", "ignored", "skipped, said"
BEGIN, END = "<!-- folders: made by tests/support/folder_kinds.py -->", "<!-- end of folders -->"


class Kind(NamedTuple):
    """A kind of entry: what makes it in a folder that has ``sub-01.npz`` (the names), and what becomes of it."""

    make: Callable[[Path], List[str]]
    outcome: str


def _scan(*names: str) -> Callable[[Path], List[str]]:
    def make(folder: Path) -> List[str]:
        for number, name in enumerate(names, 2):
            fakes.write_scan(folder / "made.npz", number)
            (folder / "made.npz").rename(folder / name)
        return list(names)

    return make


def _scan_as(*suffixes: str) -> Callable[[Path], List[str]]:
    def make(folder: Path) -> List[str]:
        names = [f"as{suffix}" if at == 0 else f"also{suffix}" for at, suffix in enumerate(suffixes)]
        for number, name in enumerate(names, 2):
            textual.write(folder / name, fakes.brain(number)[0])
        return names

    return make


def _pair(folder: Path) -> List[str]:
    nib.save(nib.Nifti1Pair(fakes.brain(2)[0], textual.LIA), str(folder / "pair.hdr"))
    return ["pair.hdr"]


def _bytes(*names: str) -> Callable[[Path], List[str]]:
    def make(folder: Path) -> List[str]:
        for name in names:
            (folder / name).write_bytes(b"\0" * 128 + b"DICM")
        return list(names)

    return make


def _folder(folder: Path) -> List[str]:
    (folder / "x.nii.gz").mkdir()
    return ["x.nii.gz"]


def _pipe(folder: Path) -> List[str]:
    os.mkfifo(str(folder / "x.nii"))
    return ["x.nii"]


def _link(folder: Path) -> List[str]:
    (folder / "link.npz").symlink_to(folder / "sub-01.npz")
    return ["link.npz"]


KINDS: Dict[str, Kind] = {
    "suffix in capitals (`S.NPZ`)": Kind(_scan("S.NPZ", "t.Npz"), READ),
    "`mask01`, `sub-01_T1w_brain`": Kind(_scan("mask01.npz", "sub-01_T1w_brain.npz"), READ),
    "blanks, accents, line breaks in a name": Kind(_scan("a b.npz", "é.npz", "c\nd.npz"), READ),
    "link to a scan": Kind(_link, READ),
    "mask": Kind(_bytes("sub-01_mask.nii.gz", "sub-02_brain_mask.nii"), SAID),
    "probability map": Kind(_bytes("sub-01_pve_0.nii.gz", "x_probseg.nii"), SAID),
    "`aparc`, `wmparc`, `synthseg`, `ribbon`": Kind(
        _bytes("aparc+aseg.mgz", "wmparc.mgz", "x_synthseg.nii", "lh.ribbon.mgz"), SAID
    ),
    "segmentation without a scan": Kind(_bytes("sub-09_seg.nii.gz"), SAID),
    "warp, Jacobian": Kind(_bytes("sub-01_1Warp.nii.gz", "jacobian.nii.gz"), SAID),
    "moved scan beside its scan": Kind(_bytes("sub-01_Warped.nii.gz", "wsub-01.nii"), SAID),
    "results of ours": Kind(_bytes("moved.nii.gz", "flow.nii.gz", "moved_seg.nii.gz"), SAID),
    "DICOM, also without suffix": Kind(_bytes("a.dcm", "IM0001"), UNREAD),
    "NRRD (`.nrrd`) and MetaImage (`.mha`)": Kind(_scan_as(".nrrd", ".mha"), READ),
    "the same with their voxels in a file beside them (`.nhdr`, `.mhd`)": Kind(_scan_as(".nhdr", ".mhd"), READ),
    "NIfTI in two files (`.hdr`, `.img`)": Kind(_pair, READ),
    "`.img` without `.hdr`, MINC": Kind(_bytes("b.img", "d.mnc"), UNREAD),
    "folder or pipe with a scan's name": Kind(lambda folder: _folder(folder) + _pipe(folder), SKIPPED),
    "hidden file (`._sub-01.nii.gz`)": Kind(_bytes("._sub-01.nii.gz", ".hidden.npz"), IGNORED),
    "`Thumbs.db`, tables, side-cars": Kind(_bytes("Thumbs.db", "x.tsv", "sub-01.json"), IGNORED),
}


def table() -> str:
    """The table in Markdown."""
    every = ", ".join(f"`{entry}`" for entry in ENTRIES)
    rows = [f"| {name} | {kind.outcome} |" for name, kind in KINDS.items()]
    return "\n".join([f"| entry | {every} |", "|---|---|", *rows])


def main(path: Path) -> None:
    """Put the table into the document."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/running.md"))
