# SPDX-License-Identifier: Apache-2.0
"""``spec.json`` beside a checkpoint: the network, and the intensity rule that suits what its weights were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

from vxm_convert.artifacts.files import read_bounded, write_json
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.names import SPEC_NAME
from vxm_convert.errors import ArtifactError, FormatError, SpecError
from vxm_convert.model.intensity import CONVENTION, INTENSITIES
from vxm_convert.model.spec import ModelSpec

_MAX_BYTES = 1 << 20
_RULE = "intensity"
_ADVICE = "pass --variant, or remove the file"


@dataclass(frozen=True)
class SpecFile:
    """The content of ``spec.json``; ``rule`` is one of `INTENSITIES`."""

    spec: ModelSpec
    rule: str = CONVENTION


def write_spec(folder: Path, spec: ModelSpec, rule: str = CONVENTION) -> None:
    """Write ``spec.json``; the rule is an entry unless it is the convention."""
    extra = {} if rule == CONVENTION else {_RULE: rule}
    write_json(folder / SPEC_NAME, {**spec.to_dict(), **extra})


def read_spec(folder: Path) -> Optional[SpecFile]:
    """The ``spec.json`` of a folder, or None if it has none.

    Raises
    ------
    ArtifactError
        For a file that is no spec.
    """
    path = folder / SPEC_NAME
    if not path.is_file():
        return None
    try:
        data = parse_json(read_bounded(path, _MAX_BYTES, "the model spec", _ADVICE), str(path), _ADVICE)
        entries: Dict[str, Any] = dict(data) if isinstance(data, dict) else {}
        rule = entries.pop(_RULE, CONVENTION)
        if rule not in INTENSITIES:
            raise SpecError(f"model spec: {_RULE} is {rule!r:.80}, expected one of {', '.join(INTENSITIES)}")
        return SpecFile(ModelSpec.from_dict(entries), rule)
    except FormatError as exc:
        raise ArtifactError(str(exc)) from exc
    except SpecError as exc:
        raise ArtifactError(f"{path}: {exc}; {_ADVICE}") from exc
