# SPDX-License-Identifier: Apache-2.0
"""The description of a file by `inspect`, as data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Tuple


@dataclass(frozen=True)
class OpLine:
    """One operator: name, type, dtypes of its inputs and outputs (as stored), shapes of its outputs."""

    name: str
    type: str
    inputs: Tuple[str, ...] = ()
    outputs: Tuple[str, ...] = ()
    shapes: Tuple[Tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Description:
    """The description of a file.

    Parameters
    ----------
    kind : str — as text.
    facts : tuple of (label, text) — in display order; labels may repeat.
    ops : tuple of OpLine — operators or variables, in file order; empty if the kind has none.
    noun : str — what `ops` are.
    content : object — the data of a JSON file.
    """

    kind: str
    facts: Tuple[Tuple[str, str], ...] = ()
    ops: Tuple[OpLine, ...] = ()
    noun: str = "operators"
    content: object = field(default=None)

    def to_dict(self) -> Dict[str, Any]:
        counts = Counter(op.type for op in self.ops)
        return {**asdict(self), "facts": [list(fact) for fact in self.facts], "counts": dict(sorted(counts.items()))}
