# SPDX-License-Identifier: Apache-2.0
"""The known chips by ATC's names: cores, memory and speed, each with its source. Data only.

Names, cores and clocks of the 910s and cores of the 910Bs are those of the platform files of CANN 8.1.RC1
(data/platform_config/<soc>.ini); `Chip.source` says so for each. Memory sizes and bandwidths, and the rows of 310 and
310P, are general knowledge of the cards, unverified, except the memory of a Duo. No speed was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional

from vxm_convert.ascend.families import FAMILIES, Family

GIB = 1 << 30
_PLATFORM = "platform files of CANN 8.1.RC1"
#: source of figures that are in no file
GENERAL = "general knowledge of the card, unverified"


@dataclass(frozen=True)
class Speed:
    """Clock of the cube unit in GHz, memory and host link in GB/s, and the source of the clock."""

    ghz: float
    memory_gbs: float
    link_gbs: float
    clock_source: str


@dataclass(frozen=True)
class Chip:
    """One chip.

    Parameters
    ----------
    cores : int or None — AI cores; None: unknown.
    memory : int or None — bytes of the smallest card with it, part of which the driver reserves; None: unknown.
    speed : Speed or None — None: unknown.
    family : str — key of `families.FAMILIES`.
    most_memory : int or None — bytes of the largest card with it, if cards differ.
    source : str — of cores and memory.
    """

    cores: Optional[int] = None
    memory: Optional[int] = None
    speed: Optional[Speed] = None
    family: str = "910"
    most_memory: Optional[int] = None
    source: str = f"cores: {_PLATFORM}; memory: {GENERAL}"

    @property
    def first_910(self) -> bool:
        """One of the first generation of the 910: the operator tables and the simulated arithmetic are for it, and a
        model for one of them runs on the others.
        """
        return self.family == "910"


#: bytes of every card of the first generation
MEMORY_910 = 32 * GIB
_HBM, _LINK = 1200.0, 12.0
_A3 = "names: platform files of CANN 8.1.RC1; memory: public output of npu-smi"
#: megabytes that `npu-smi info` shows for a chip of an Atlas 300I Duo (public output)
_DUO = 44280 << 20
CHIPS: Dict[str, Chip] = {
    "Ascend910A": Chip(32, MEMORY_910, Speed(1.0, _HBM, _LINK, _PLATFORM)),
    "Ascend910ProA": Chip(32, MEMORY_910, Speed(1.1, _HBM, _LINK, _PLATFORM)),
    "Ascend910PremiumA": Chip(32, MEMORY_910, Speed(1.22, _HBM, _LINK, _PLATFORM)),
    # Without a digit it is a first-generation part; B1 to B4 are another chip.
    "Ascend910B": Chip(30, MEMORY_910, Speed(0.9, _HBM, _LINK, _PLATFORM)),
    "Ascend910ProB": Chip(30, MEMORY_910, Speed(1.15, _HBM, _LINK, _PLATFORM)),
    "Ascend910B1": Chip(24, 64 * GIB, family="910B"),
    "Ascend910B2": Chip(24, 64 * GIB, family="910B"),
    "Ascend910B2C": Chip(24, 64 * GIB, family="910B"),
    "Ascend910B3": Chip(20, 64 * GIB, family="910B"),
    "Ascend910B4": Chip(20, 32 * GIB, family="910B"),
    "Ascend910B4-1": Chip(20, family="910B", source=f"cores: {_PLATFORM}"),
    **{
        f"Ascend910_{number}": Chip(None, 64 * GIB, family="910_93", source=_A3)
        for number in ("9362", "9372", "9381", "9382", "9391", "9392")
    },
    # Clocks that match the published 8 and 70 TFLOP/s.
    "Ascend310": Chip(2, 8 * GIB, Speed(0.49, 51.0, 3.0, GENERAL), "310", source=GENERAL),
    "Ascend310P1": Chip(10, family="310P", source=GENERAL),
    "Ascend310P3": Chip(8, 24 * GIB, Speed(1.08, 204.0, _LINK, GENERAL), "310P", _DUO, GENERAL),
    "Ascend310P5": Chip(8, family="310P", source=GENERAL),
    "Ascend310P7": Chip(8, family="310P", source=GENERAL),
}
DEFAULT_SOC = "Ascend910A"
#: ATC itself accepts the left name for the right one.
_ALIASES = {"Ascend910": "Ascend910A"}


def canonical(soc_version: str) -> str:
    """The name in `CHIPS` of a ``--soc-version``; unknown names stay unchanged."""
    return _ALIASES.get(soc_version, soc_version)


def chip_of(soc_version: str) -> Optional[Chip]:
    """The chip of a ``--soc-version``, None if it is unknown."""
    return CHIPS.get(canonical(soc_version))


def family_of(soc_version: str) -> Optional[Family]:
    """The family of a ``--soc-version``, None if the chip is unknown."""
    chip = chip_of(soc_version)
    return None if chip is None else FAMILIES[chip.family]


def runs_on(compiled: str, device: str) -> bool:
    """Whether a model compiled for one chip loads on another: the same chip, or both a first-generation 910."""
    first, second = canonical(compiled), canonical(device)
    return first == second or (is_first_910(first) and is_first_910(second))


def is_first_910(soc_version: str) -> bool:
    """Whether it is a first-generation 910."""
    chip = chip_of(soc_version)
    return chip is not None and chip.first_910
