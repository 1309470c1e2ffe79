# SPDX-License-Identifier: Apache-2.0
"""What the name of a file in a folder of scans says: a scan, something that a tool left beside it, or an image of a
kind that nothing here reads. Opens nothing but files without a suffix, to know DICOM by its mark.

Words count at the end of a name, after ``_``, ``-``, ``.``, ``+`` or a blank, so that ``mask01`` and
``sub-01_T1w_brain`` are scans. Words of FreeSurfer's and SynthSeg's segmentations count anywhere, except in a BIDS name
that says it is a T1w. Other words count only beside the file that they were made of.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Collection, Dict, List, NamedTuple, Optional, Tuple

_JOINT = r"(?:^|[_.\-+ ])"


def _ending(*words: str) -> re.Pattern[str]:
    return re.compile(rf"{_JOINT}(?:{'|'.join(words)})$", re.IGNORECASE)


class Kind(NamedTuple):
    """What is no scan: its name, for one and for several."""

    one: str
    many: str

    def counted(self, number: int) -> str:
        return f"{number} {self.one if number == 1 else self.many}"


SEGMENTATION = Kind("segmentation", "segmentations")
MASK = Kind("mask", "masks")
PROBABILITY = Kind("probability map", "probability maps")
FIELD = Kind("warp or map of a warp", "warps or maps of warps")
MOVED = Kind("moved scan", "moved scans")
DERIVED = Kind("map made from another file", "maps made from other files")

#: a BIDS name of a scan: nothing but what `desc-` says makes it anything else
_BIDS_SCAN = re.compile(
    r"^sub-[^_]+_(?:.*_)?(?:T1w|T2w|PDw|T2starw|FLAIR|inplaneT1|inplaneT2|T2star|PD|UNIT1|angio)$", re.IGNORECASE
)
#: what `train prepare` appends to a name that would not be taken for a scan
_CALLED_SCAN = _ending("scan")
_BIDS_MOVED = re.compile(r"(?:^|_)desc-moved(?:_|$)", re.IGNORECASE)
#: names of our own results and of FreeSurfer's, as a whole
_WHOLE: Dict[str, Kind] = {
    "moved": MOVED,
    "inverse": FIELD,
    "atlas_seg_in_scan": SEGMENTATION,
    "apas+head": SEGMENTATION,
    "wm": SEGMENTATION,
    "wm.asegedit": SEGMENTATION,
    "filled": SEGMENTATION,
    "filled.auto": SEGMENTATION,
    "ctrl_pts": MASK,
    "surface.defects": SEGMENTATION,
    "entowm": SEGMENTATION,
    "mca-dura": SEGMENTATION,
    "vsinus": SEGMENTATION,
}
#: no scan whatever else is in the folder
_ENDINGS: Tuple[Tuple[re.Pattern[str], Kind], ...] = (
    (
        _ending(
            "seg", "aseg", "dseg", "labels?", "labelmap", "segmentation", "parcellation", "parc", "tissues?", "ribbon",
            "synthseg", "pveseg", "firstsegs?", "origsegs?", "mixeltype", "deep_?seg", "gtmseg",
        ),
        SEGMENTATION,
    ),
    (re.compile(rf"(?:{_JOINT}masks?|(?<=[a-z])Mask|{_JOINT}MASK)$"), MASK),
    (
        _ending(
            "probseg", r"pve(?:_?\d)?", "probmap", "probabilit(?:y|ies)", r"[a-z]*posteriors?_?\d*",
        ),
        PROBABILITY,
    ),
    (
        _ending(
            "flow", r"\d*(?:inverse)?warp", "invwarp", "warp_?field", "warp_?coef+", "field_?coef+", "xfm", "dvf", "ddf",
            "displacement(?:_?field)?", "deformation(?:_?field)?", "velocity", "(?:log_?)?jacobian",
        ),
        FIELD,
    ),
    # ANTs joins them to the name of its prefix: sub-01Warp, sub-011InverseWarp
    (re.compile(r"(?<=[a-z0-9])(?:Inverse)?Warp$"), FIELD),
)  # fmt: skip
#: FreeSurfer, FastSurfer, SynthSeg, fMRIPrep: unmistakable wherever they are in a name
_ANYWHERE = re.compile(
    rf"{_JOINT}(?:aseg|aparc|wmparc|synthseg|gtmseg|brainstemSsLabels|ThalamicNuclei|"
    rf"[lr]h\.hippoAmygLabels|hypothalamic_subunits_seg|desc-aseg|desc-aparcaseg)(?:[_.\-+ ]|$)",
    re.IGNORECASE,
)
#: what tools append to the name of the file that they work on; no scan where that file is there too
_BESIDE: Tuple[Tuple[re.Pattern[str], Kind], ...] = (
    (_ending(r"(?:inverse)?warped", "moved", "deformed"), MOVED),
    (_ending(r"masks?_?\d+", "lesions?", "roi"), MASK),
    (_ending(r"seg_?\d+", r"labels?_?\d+"), SEGMENTATION),
    (_ending("gm", "wm", "csf", r"tissue_?\d", r"prob(?:_?\d+)?"), PROBABILITY),
    (_ending("jac"), FIELD),
    (_ending("bias(?:_?field)?", "thickness", "curv", "t1t2ratio", "wmh", "skull", "overlay"), DERIVED),
)
#: of FreeSurfer, ``brainmask.mgz`` is a scan without skull; of others, a mask
_BRAIN_MASK = _ending("brain_?mask")
#: what SPM and CAT12 put before it
_PREFIXES: Tuple[Tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"^s?(?:mw|w|rc?)?r?[cp]\d"), PROBABILITY),
    (re.compile(r"^(?:y|iy|u|v|j|jw)_(?:rc\d)?"), FIELD),
    (re.compile(r"^s?m?w(?:m)?"), MOVED),
    (re.compile(r"^masks?[_\-.]", re.IGNORECASE), MASK),
    (re.compile(r"^(?:seg|aseg|labels?)[_\-.]", re.IGNORECASE), SEGMENTATION),
)

#: suffix of an image that is not read → what makes a file of it that is
UNREAD: Dict[str, str] = {
    **dict.fromkeys((".dcm", ".dicom", ".ima", ".par", ".rec"), "dcm2niix"),
    **dict.fromkeys((".gipl", ".gipl.gz", ".vtk", ".vti"), "SimpleITK or 3D Slicer"),
    **dict.fromkeys((".img", ".mnc", ".mnc.gz", ".mnc2", ".bshort", ".spr"), "mri_convert"),
    **dict.fromkeys((".brik", ".brik.gz", ".head"), "3dAFNItoNIFTI"),
    **dict.fromkeys((".mif", ".mif.gz", ".mih"), "mrconvert"),
    **dict.fromkeys((".v", ".tif", ".tiff", ".fdf", ".2dseq"), "the program that wrote them"),
    **dict.fromkeys((".npy",), "numpy.savez(FILE, vol=ARRAY)"),
    **dict.fromkeys(
        (".hdr.gz", ".img.gz", ".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip", ".nii.7z", ".nii.z", ".nii.gz.zip", ".zip",
         ".tar", ".tgz", ".tar.gz", ".7z"),
        "unpacking",
    ),
}  # fmt: skip
#: of two files that are one image, the one that is not counted where the other is there
_SECOND_OF = {".img": (".hdr",), ".img.gz": (".hdr.gz",), ".head": (".brik", ".brik.gz"), ".rec": (".par",)}
DICOM = ".dcm"
#: characters of a name behind a prefix, below which the two only look alike
_LEAST_LEFT = 3
_DICOM_AT, _DICOM_MARK = 128, b"DICM"
#: files without a suffix that are looked into: a folder of DICOM has thousands
_MOST_OPENED = 100


def no_scan(stem: str) -> Optional[Kind]:
    """What a file is by the name of itself alone (without suffix); None for a scan."""
    if _BIDS_MOVED.search(stem):
        return next((kind for pattern, kind in _ENDINGS if pattern.search(stem)), MOVED)
    whole = _WHOLE.get(stem.lower())
    if whole is not None:
        return whole
    if _BIDS_SCAN.match(stem) or _CALLED_SCAN.search(stem):
        return None
    ending = next((kind for pattern, kind in _ENDINGS if pattern.search(stem)), None)
    return ending or (SEGMENTATION if _ANYWHERE.search(stem) else None)


def made_of_another(stem: str, stems: Collection[str], freesurfer: bool = False) -> Optional[Kind]:
    """What a file is by the names of the others in its folder: theirs with a word of a tool before or behind.

    Parameters
    ----------
    stem, stems : str — names without suffix: of the file, and of all volumes in its folder.
    freesurfer : bool — the file is an MGH.
    """
    if _BIDS_SCAN.match(stem):
        return None
    for pattern, kind in _BESIDE + (() if freesurfer else ((_BRAIN_MASK, MASK),)):
        found = pattern.search(stem)
        if found and found.start() and stem[: found.start()] in stems:
            return kind
    for pattern, kind in _PREFIXES:
        found = pattern.match(stem)
        rest = stem[found.end() :] if found else ""
        # c101 beside 01 is another subject, c1sub-01 beside sub-01 its grey matter
        if len(rest) >= _LEAST_LEFT and not rest.isdigit() and rest in stems:
            return kind
    return None


def unread_suffix(path: Path) -> Optional[str]:
    """The suffix of an image of a kind that nothing here reads, or None."""
    name = path.name.lower()
    # The longest, so that .nii.gz.zip is not a .zip.
    found = sorted((s for s in UNREAD if name.endswith(s) and len(name) > len(s)), key=len)
    return found[-1] if found else None


def unread_images(files: Collection[Path]) -> Dict[str, List[Path]]:
    """Suffix → files of images that are not read, each image once; DICOM without a suffix counts as .dcm."""
    found: Dict[str, List[Path]] = {}
    names = {path.name.lower() for path in files}
    opened = 0
    for path in files:
        suffix = unread_suffix(path)
        if suffix is None and _nameless(path) and opened < _MOST_OPENED:
            opened += 1
            suffix = DICOM if _is_dicom(path) else None
        if suffix is None:
            continue
        stem = path.name.lower()[: -len(suffix)]
        if not any(stem + first in names for first in _SECOND_OF.get(suffix, ())):
            found.setdefault(suffix, []).append(path)
    return found


def _nameless(path: Path) -> bool:
    """No suffix, or numbers for one, as DICOM's identifiers have them."""
    return not path.suffix or path.suffix[1:].isdigit()


def _is_dicom(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with open(str(path), "rb") as handle:
            return handle.read(_DICOM_AT + len(_DICOM_MARK))[_DICOM_AT:] == _DICOM_MARK
    except OSError:
        return False
