# SPDX-License-Identifier: Apache-2.0
"""CANN's version numbers: where to find them, how to compare them, and requirements. Only reads files."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

#: comparable; pre-releases come before their release
VersionKey = Tuple[Tuple[int, int, int], Tuple[Tuple[int, int], ...]]

UNKNOWN = "unknown"
_MAX_TEXT = 1 << 16
_ARCHITECTURES = {"x86_64": ("x86_64",), "aarch64": ("aarch64", "arm64")}
_FORM = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?((?:[.-]?(?:rc|alpha|beta)\.?\d+)*)(?:[.-].*)?$", re.IGNORECASE)
_STAGES = {"alpha": -3, "beta": -2, "rc": -1}
_FIRST_YEAR = 20

_INSTALL_INFO = r"^version=(\S+)"
# (file, pattern), best first: the version of the product before that of a component.
_VERSION_FILES = (
    ("ascend_toolkit_install.info", _INSTALL_INFO),
    ("ascend_nnae_install.info", _INSTALL_INFO),
    ("ascend_nnrt_install.info", _INSTALL_INFO),
    ("ascend_cann_install.info", _INSTALL_INFO),
    ("version.cfg", r"^\w*running_version=\[[^:\]]*:([^\]]+)\]"),
    ("compiler/version.info", r"^version_dir=(\S+)"),
    ("share/info/compiler/version.info", r"^version_dir=(\S+)"),
)
_COMPONENT_FILES = tuple(
    (folder + "/version.info", r"^Version=(\S+)")
    for folder in ("compiler", "share/info/compiler", "atc", "fwkacllib", "opp", "runtime", "acllib", "pyACL")
)


@dataclass(frozen=True)
class Requirement:
    """Oldest CANN for a stage, and the source of this requirement."""

    what: str
    minimum: str
    why: str
    #: only for a Python newer than 3.7
    newer_python: bool = False


REQUIREMENTS: Tuple[Requirement, ...] = (
    Requirement(
        "export",
        "5.0.4",
        "the oldest release whose operator tables the graph and the precision plans were checked against",
    ),
    Requirement("om_runner", "5.0.4", "the oldest release whose pyACL pages the runtime's calls were compared with"),
    Requirement(
        "om_runner on a Python newer than 3.7",
        "6.0.RC1",
        "older releases ship pyACL for Python 3.7 only",
        newer_python=True,
    ),
)


def arch_folders() -> Tuple[str, ...]:
    """Patterns of a release's folder per processor: ``x86_64-linux``, in 20.x ``x86_64-linux_gcc7.3.0``."""
    machine = platform.machine()
    return tuple(name + "-linux*" for name in _ARCHITECTURES.get(machine, (machine,)))


def version_key(text: str) -> Optional[VersionKey]:
    """A sort key for releases; None if it is not a product version (component numbers such as 1.76.22.3.220).

    The releases of 2020 and 2021 were numbered 20.x and 21.x; they are older than 5.0.
    """
    match = _FORM.match(text.strip())
    if match is None or len(re.findall(r"\d+", text)) > 4 and not match.group(4):
        return None
    major, minor, patch = int(match.group(1)), int(match.group(2)), int(match.group(3) or 0)
    named = re.findall(r"(rc|alpha|beta)\.?(\d+)", match.group(4).lower())
    stages = [(_STAGES[name], int(number)) for name, number in named]
    numbers = (0, major, minor) if major >= _FIRST_YEAR else (major, minor, patch)
    return numbers, tuple(stages + [(0, 0)] * (2 - len(stages)))


def newest_first(folders: Sequence[Path]) -> List[Path]:
    """Folders named by version (``8.1.RC1``, ``cann-8.5.0``) in descending order; others are ignored."""
    keyed = [(version_key(folder.name.rpartition("cann-")[2]), folder) for folder in folders]
    return [folder for _, folder in sorted(((key, folder) for key, folder in keyed if key is not None), reverse=True)]


def read_version(root: Path) -> str:
    """CANN's version from an existing version file, else from the folder's name; ``unknown`` otherwise."""
    places = [root] + [folder for pattern in arch_folders() for folder in sorted(root.glob(pattern))]
    found = _first_match(places, _VERSION_FILES)
    return found or _version_of_name(root) or _first_match(places, _COMPONENT_FILES) or UNKNOWN


def read_text(path: Path) -> str:
    """The head of a text file, empty if it cannot be read."""
    try:
        with open(str(path), encoding="utf-8", errors="replace") as handle:
            return handle.read(_MAX_TEXT)
    except OSError:
        return ""


def too_old_for(version: str, python: Tuple[int, int]) -> List[Requirement]:
    """Requirements that a version does not meet; none if the version cannot be compared."""
    key = version_key(version)
    if key is None:
        return []
    relevant = [need for need in REQUIREMENTS if not need.newer_python or python > (3, 7)]
    return [need for need in relevant if key < (version_key(need.minimum) or key)]


def _first_match(places: Sequence[Path], files: Sequence[Tuple[str, str]]) -> Optional[str]:
    for name, pattern in files:
        for place in places:
            match = re.search(pattern, read_text(place / name), re.MULTILINE)
            if match:
                return match.group(1)
    return None


def _version_of_name(root: Path) -> Optional[str]:
    try:
        resolved = root.resolve()
    except (OSError, RuntimeError):
        return None
    for folder in (root, resolved, resolved.parent):
        name = folder.name.rpartition("cann-")[2]
        if version_key(name) is not None:
            return name
    return None
