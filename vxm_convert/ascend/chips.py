# SPDX-License-Identifier: Apache-2.0
"""The chips that the product knows: cores, memory and other names, each figure with its source. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """What preflight must know of a chip: `memory` in bytes (None: not known), `known`: the operator table was made for
    it.
    """

    cores: int
    memory: Optional[int]
    known: bool = True


_FIRST_GENERATION = 32 * GIB
#: Cores of the 910 family: platform files of CANN 8.1.RC1 (data/platform_config/<soc>.ini). All memory sizes and the
#: rows of 310 and 310P are general knowledge of the cards, unverified. The driver keeps a part of the memory for
#: itself.
CHIPS: Dict[str, Chip] = {
    "Ascend910A": Chip(32, _FIRST_GENERATION),
    "Ascend910ProA": Chip(32, _FIRST_GENERATION),
    "Ascend910PremiumA": Chip(32, _FIRST_GENERATION),
    "Ascend910B": Chip(30, _FIRST_GENERATION),
    "Ascend910ProB": Chip(30, _FIRST_GENERATION),
    "Ascend310": Chip(2, 8 * GIB, known=False),
    "Ascend310P3": Chip(8, 24 * GIB, known=False),
}
#: ATC itself takes the left name for the right one.
ALIASES = {"Ascend910": "Ascend910A"}


def chip_of(soc_version: str) -> Optional[Chip]:
    """The chip of a ``--soc-version``, None where these tables do not know it."""
    return CHIPS.get(ALIASES.get(soc_version, soc_version))
