# SPDX-License-Identifier: Apache-2.0
"""Numbers of the chips and of their Conv3D kernel, each with where it comes from. Data only."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """What preflight must know of a chip: `memory` in bytes (None: not known), `known`: the operator table was made for it."""

    cores: int
    memory: Optional[int]
    known: bool = True


_FIRST_GENERATION = 32 * GIB
#: Cores of the 910 family: platform files of CANN 8.1.RC1 (data/platform_config/<soc>.ini). All memory sizes and the rows of
#: 310 and 310P are general knowledge of the cards, unverified. The driver keeps a part of the memory for itself.
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

#: Share of the memory that a model may take before preflight warns; the rest is the driver's, the runtime's and fragmentation.
COMFORTABLE_SHARE = 0.85

# Conv3D of the 910: TBE implementation `conv3d.py` of CANN's operator sources (Apache-2.0), with the codes it raises.
CHANNEL_BLOCK = 16
MAX_KERNEL = 255
MAX_PAD = 255
MAX_STRIDE = 63
MAX_DILATION = 255
MAX_FMAP = 4096
L1_BYTES = 1 << 20

#: Placeholders of other types cannot be parsed.
INPUT_DTYPES = ("float16", "float32", "uint8", "int32", "int64", "bool")


def chip_of(soc_version: str) -> Optional[Chip]:
    """The chip of a ``--soc-version``, None where these tables do not know it."""
    return CHIPS.get(ALIASES.get(soc_version, soc_version))
