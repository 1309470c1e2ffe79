# SPDX-License-Identifier: Apache-2.0
"""File names of BIDS: parses and builds names, and maps each plain result to its derivative. Opens no file.

Rules: BIDS specification 1.11, `Common principles` (entities, labels) and its schema's order of entities.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Dict, Iterable, Optional, Tuple

from om_runner.names import FLOW_NAME, INVERSE_NAME, JACOBIAN_NAME, MOVED_NAME, MOVED_SEG_NAME, NATIVE_SEG_NAME
from vxm_convert.errors import VolumeError

#: entities of a raw scan, in the order of names; those of a derivative follow
SCAN_ENTITIES = ("sub", "ses", "acq", "ce", "rec", "run", "echo", "part")
_ORDER = SCAN_ENTITIES + ("space", "chunk", "seg", "res", "desc", "from", "to", "mode")
#: entities that only derivatives have: a name with one of them is not a raw scan
DERIVED_ENTITIES = ("space", "res", "desc")
#: suffixes of scans for which BIDS allows derivatives
SUFFIXES = ("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "T2star", "PD")
EXTENSIONS = (".nii.gz", ".nii")
_LABEL = re.compile("[0-9A-Za-z+]+")
_PICTURES = (".png", ".svg", ".html", ".jpg")
FIGURES, PROVENANCE = "figures", "provenance"


@dataclass(frozen=True)
class Name:
    """A parsed file name: entity → label, suffix (``T1w``), extension (``.nii.gz``)."""

    entities: Dict[str, str]
    suffix: str
    extension: str

    def text(self) -> str:
        return f"{identity(self.entities)}_{self.suffix}{self.extension}"


@dataclass(frozen=True)
class Naming:
    """The common parts of a derivative's names.

    Parameters
    ----------
    atlas : str — label of the atlas, for ``space-``, ``seg-``, ``from-`` and ``to-``.
    suffix : str — of the scans.
    space : str — grid of the results (``atlas``, ``network``, ``native``); all except the first get a ``res-``.
    source_space : str — ``space-`` of the scans, or None for raw ones.
    """

    atlas: str
    suffix: str = "T1w"
    space: str = "atlas"
    source_space: Optional[str] = None

    def path_of(self, subject: str, plain: str) -> PurePosixPath:
        """Path of a result with that plain name (``moved.nii.gz``) below the derivative.

        Pictures go into ``figures/``, records of our own into ``provenance/``; both are in ``.bidsignore``.
        """
        entities = entities_of(subject)
        home = folder_of(entities)
        known = self._derivative(plain)
        if known is None:
            kind = FIGURES if plain.lower().endswith(_PICTURES) else PROVENANCE
            return home / kind / f"{subject}_{plain.replace('/', '_')}"
        added, suffix = known
        return home / "anat" / Name({**entities, **added}, suffix, ".nii.gz").text()

    def source(self) -> str:
        """Name of a scan's space in ``from-`` and ``to-``."""
        return self.source_space or self.suffix

    def _derivative(self, plain: str) -> Optional[Tuple[Dict[str, str], str]]:
        grid = {"space": self.atlas, **({} if self.space == "atlas" else {"res": self.space})}
        own = {"space": self.source_space} if self.source_space else {}
        return {
            MOVED_NAME: ({**grid, "desc": "moved"}, self.suffix),
            MOVED_SEG_NAME: ({**grid, "desc": "moved"}, "dseg"),
            NATIVE_SEG_NAME: ({**own, "seg": self.atlas}, "dseg"),
            JACOBIAN_NAME: (grid, "jacobian"),
            FLOW_NAME: ({"from": self.source(), "to": self.atlas, "mode": "image"}, "xfm"),
            INVERSE_NAME: ({"from": self.atlas, "to": self.source(), "mode": "image"}, "xfm"),
        }.get(plain)


def parse(file_name: str) -> Name:
    """The parts of a name.

    Raises
    ------
    VolumeError
        If it is not of the form ``sub-<label>[_<entity>-<label>…]_<suffix>.<extension>``; the message says where it
        differs.
    """
    extension = next((e for e in EXTENSIONS if file_name.lower().endswith(e)), None)
    if extension is None:
        raise VolumeError(f"{file_name!r}: expected a name that ends in {' or '.join(EXTENSIONS)}")
    *words, suffix = file_name[: -len(extension)].split("_")
    if not re.fullmatch("[0-9A-Za-z]+", suffix):
        raise VolumeError(f"{file_name!r}: the suffix is {suffix!r}, expected letters and digits such as T1w")
    return Name(_entities(words, file_name), suffix, extension)


def entities_of(subject: str) -> Dict[str, str]:
    """The entities of an identity such as ``sub-01_ses-02_run-1``."""
    return _entities(subject.split("_"), subject)


def identity(entities: Dict[str, str]) -> str:
    """Entities in the order of the specification."""
    return "_".join(f"{key}-{entities[key]}" for key in sorted(entities, key=_rank))


def folder_of(entities: Dict[str, str]) -> PurePosixPath:
    """``sub-<label>[/ses-<label>]``."""
    home = PurePosixPath(f"sub-{entities['sub']}")
    return home / f"ses-{entities['ses']}" if "ses" in entities else home


def is_label(text: str) -> bool:
    """Whether it is a BIDS label: letters, digits and +."""
    return bool(_LABEL.fullmatch(text))


def label_from(text: str) -> str:
    """Letters and digits of a text; VolumeError if there are none."""
    label = "".join(re.findall("[0-9A-Za-z]", text))
    if not label:
        raise VolumeError(f"{text!r}: no letter or digit for a BIDS label; pass one with --atlas-label")
    return label


def _entities(words: Iterable[str], where: str) -> Dict[str, str]:
    entities: Dict[str, str] = {}
    for word in words:
        key, dash, label = word.partition("-")
        if not dash or not re.fullmatch("[a-zA-Z0-9]+", key) or not is_label(label):
            raise VolumeError(
                f"{where!r}: {word!r} is not an entity, expected <name>-<label> with letters, digits and +, such as "
                "sub-01"
            )
        if key in entities:
            raise VolumeError(f"{where!r}: the entity {key} appears twice")
        entities[key] = label
    if next(iter(entities), None) != "sub":
        raise VolumeError(f"{where!r}: expected a name that starts with sub-<label>")
    return entities


def _rank(key: str) -> Tuple[int, str]:
    return (_ORDER.index(key) if key in _ORDER else len(_ORDER), key)
