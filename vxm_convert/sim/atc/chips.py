# SPDX-License-Identifier: Apache-2.0
"""Which ``--soc_version`` values compile, and how many AI cores each chip has.

The 910 rows (names, core counts) are those of the platform files of CANN 8.1.RC1, and so is the exact, case-sensitive
match. The 310 and 310P rows are general knowledge, names and core counts alike: not checked against a platform file.
"""

from __future__ import annotations

from vxm_convert.sim.refusal import AtcRefusal

#: chip → AI cores. ``Ascend910B`` without a digit is a first-generation part; B1 to B4 are another chip.
SOC_CORES = {
    "Ascend910A": 32,
    "Ascend910ProA": 32,
    "Ascend910PremiumA": 32,
    "Ascend910B": 30,
    "Ascend910ProB": 30,
    # unverified, see above
    "Ascend310": 2,
    "Ascend310P1": 10,
    "Ascend310P2": 8,
    "Ascend310P3": 8,
    "Ascend310P4": 8,
    "Ascend310P5": 8,
    "Ascend310P7": 8,
}
#: Older name of the first-generation chip.
_ALIASES = {"Ascend910": "Ascend910A"}


def check_soc(value: str, cores: str) -> str:
    """Canonical chip name.

    Parameters
    ----------
    value : str — ``--soc_version``.
    cores : str — ``--aicore_num``; empty for all.

    Raises
    ------
    AtcRefusal
        E20101 for a chip that is not in the table, E20103 for more cores than it has.
    """
    soc = _ALIASES.get(value, value)
    if soc not in SOC_CORES:
        raise AtcRefusal(
            "E20101",
            f"--soc_version is {value!r}; no platform of that name is known",
            solution=f"Use one of {', '.join(SOC_CORES)} (Ascend910B1 to B4 are another chip).",
        )
    if cores and not 1 <= int(cores) <= SOC_CORES[soc]:
        raise AtcRefusal("E20103", f"--aicore_num is {cores}, expected 1 to {SOC_CORES[soc]} on {soc}")
    return soc


def is_first_910(soc: str) -> bool:
    """Whether the simulated arithmetic was modelled on this chip's family."""
    return soc.startswith("Ascend910")
