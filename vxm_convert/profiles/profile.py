# SPDX-License-Identifier: Apache-2.0
"""A profile: limits of figures. Reads and checks profiles; judging is in `om_runner.precision.acceptance`."""

from __future__ import annotations

import difflib
import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Collection, Dict, Iterable, Mapping, Optional, Tuple

from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.profiles.limitable_figures import AT_MOST, FIGURES, Figure
from vxm_convert.profiles.plausible_figures import PLAUSIBLE_FIGURES
from vxm_convert.profiles.yamlfile import parse_mapping, read_bytes

PROFILE_SCHEMA = 1
DEFAULT_PROFILE = "research"
#: the choice without limits; NaN and Inf fail anyway
NO_PROFILE = "none"
#: values of ``--profile`` of every command
CHOICE_HELP = (
    "a name that `python -m vxm_convert profiles` lists, or a YAML file; names have priority, so write ./research "
    "for a file called research"
)
#: whose section `plausible` a profile without one takes over
_LENIENT_PROFILE = "smoke"
TOP_KEYS = ("schema", "name", "description", "limits", "cohort", "plausible")
LIMIT_ENTRIES = ("max", "min", "optional")
MAX_TEXT = 2000
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Limit:
    """One limit; `optional`: a scan with an undefined figure passes."""

    figure: Figure
    value: float
    optional: bool = False

    def holds(self, value: float) -> bool:
        """False for NaN."""
        return value <= self.value if self.figure.relation == AT_MOST else value >= self.value

    def to_dict(self) -> Dict[str, Any]:
        return {
            "figure": self.figure.name,
            "relation": self.figure.relation,
            "limit": self.value,
            "optional": self.optional,
        }


@dataclass(frozen=True)
class Profile:
    """Limits for each compared scan, and for means over them; `sha256` is that of the file. `plausible`: limits for the
    outputs of every scan, compared or not.
    """

    name: str
    description: str
    limits: Tuple[Limit, ...]
    cohort: Tuple[Limit, ...]
    sha256: str
    plausible: Tuple[Limit, ...] = ()

    def to_dict(self) -> Dict[str, Any]:
        return {
            "name": self.name,
            "sha256": self.sha256,
            "description": self.description,
            "limits": [limit.to_dict() for limit in self.limits],
            "cohort": [limit.to_dict() for limit in self.cohort],
        }


def shipped_profiles() -> Dict[str, Path]:
    """Name → file of the shipped profiles."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def profile_path(choice: str) -> Optional[Path]:
    """The file that a choice names: a shipped profile's name first, then a path, which has a separator or a suffix.

    Returns
    -------
    None for ``none``, which has no file.

    Raises
    ------
    ArtifactError
        If it is neither a name nor a file.
    """
    shipped = shipped_profiles()
    if choice == NO_PROFILE or choice in shipped:
        return shipped.get(choice)
    path = Path(choice)
    is_path = path.name != choice or bool(path.suffix)
    if is_path and path.is_file():
        return path
    known = ", ".join(sorted(shipped) + [NO_PROFILE])
    hint = f"; write ./{choice} for the file" if not is_path and path.is_file() else _suggestion(choice, shipped)
    raise ArtifactError(f"profile {choice!r}: neither a file nor one of {known}{hint}")


def load_profile(choice: str) -> Profile:
    """A shipped profile by name, ``none``, or a profile file; see `profile_path`.

    Raises
    ------
    ArtifactError
        If it is neither a shipped name nor a readable file.
    FormatError
        If the file is not a profile; the message names the key.
    """
    path = profile_path(choice)
    if path is None:
        return Profile(NO_PROFILE, "No limits; only NaN and Inf fail.", (), (), hashlib.sha256(b"").hexdigest())
    return profile_from_bytes(read_bytes(path), str(path))


@lru_cache(maxsize=8)
@lru_cache(maxsize=16)
def profile_from_bytes(data: bytes, where: str) -> Profile:
    """The profile in a file's bytes, read once; `where` names the file in messages. Raises FormatError."""
    content = parse_mapping(data, where)
    _check_keys(content, TOP_KEYS, where, "")
    if content.get("schema") != PROFILE_SCHEMA or isinstance(content["schema"], bool):
        raise FormatError(f"{where}: schema is {content.get('schema')!r}, expected {PROFILE_SCHEMA}")
    limits = _limits(content.get("limits"), where, "limits")
    cohort = _limits(content.get("cohort", {}), where, "cohort")
    if "plausible" in content:
        plausible = _limits(content["plausible"], where, "plausible", PLAUSIBLE_FIGURES)
    else:
        plausible = load_profile(_LENIENT_PROFILE).plausible
    name = _text(content, "name", where)
    if not name.strip():
        raise FormatError(f"{where}: name is empty, expected a word such as research")
    description = _text(content, "description", where)
    return Profile(name, description, limits, cohort, hashlib.sha256(data).hexdigest(), plausible)


def _text(content: Dict[str, Any], key: str, where: str) -> str:
    value = content.get(key, "" if key == "description" else None)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise FormatError(f"{where}: {key} is {_short(value)}, expected a text of at most {MAX_TEXT} letters")
    return " ".join(value.split())


def _limits(content: object, where: str, section: str, figures: Mapping[str, Figure] = FIGURES) -> Tuple[Limit, ...]:
    if not isinstance(content, dict):
        raise FormatError(
            f"{where}: {section} is {_short(content)}, expected figures with limits such as "
            f"{next(iter(figures))}: {{max: 0.01}}"
        )
    _check_keys(content, figures, where, section + ": ")
    return tuple(_limit(figures[name], entry, f"{where}: {section}: {name}") for name, entry in content.items())


def _limit(figure: Figure, entry: object, where: str) -> Limit:
    if not isinstance(entry, dict):
        raise FormatError(f"{where}: got {_short(entry)}, expected {{{figure.key}: NUMBER}}")
    _check_keys(entry, LIMIT_ENTRIES, where, "")
    wrong = ({"max", "min"} - {figure.key}) & set(entry)
    if wrong or figure.key not in entry:
        better = "smaller" if figure.relation == AT_MOST else "larger"
        raise FormatError(
            f"{where}: got {', '.join(sorted(entry)) or 'nothing'}, expected {figure.key}: {better} values are better"
        )
    value, optional = entry[figure.key], entry.get("optional", False)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise FormatError(f"{where}: {figure.key} is {_short(value)}, expected a finite number in {figure.unit}")
    if not figure.low <= value <= figure.high:
        raise FormatError(
            f"{where}: {figure.key} is {value:g}, expected {figure.low:g} to {figure.high:g} ({figure.unit})"
        )
    if not isinstance(optional, bool):
        raise FormatError(f"{where}: optional is {_short(optional)}, expected true or false")
    return Limit(figure, float(value), optional)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _check_keys(content: Dict[str, Any], known: Collection[str], where: str, section: str) -> None:
    for key in content:
        if key not in known:
            hint = _suggestion(key, known) or (f"; expected {', '.join(known)}" if len(known) < 10 else "")
            more = "" if len(known) < 10 else "; `python -m vxm_convert profiles figures` lists them"
            raise FormatError(f"{where}: {section}unknown key {key[:80]!r}{hint}{more}")


def _short(value: object) -> str:
    return repr(value)[:80]


def _suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
