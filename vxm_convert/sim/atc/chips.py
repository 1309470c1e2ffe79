# SPDX-License-Identifier: Apache-2.0
"""Which ``--soc_version`` values compile: those of the table of chips, matched exactly, as in the real compiler."""

from __future__ import annotations

from vxm_convert.ascend.chips import CHIPS, canonical
from vxm_convert.sim.refusal import AtcRefusal


def check_soc(value: str, cores: str) -> str:
    """Canonical chip name.

    Parameters
    ----------
    value : str — ``--soc_version``.
    cores : str — ``--aicore_num``; empty for all.

    Raises
    ------
    AtcRefusal
        E20101 for an unknown chip, E20103 for more cores than it has.
    """
    soc = canonical(value)
    if soc not in CHIPS:
        raise AtcRefusal(
            "E20101",
            f"--soc_version is {value!r}; no platform of that name is known",
            solution=f"Use one of {', '.join(CHIPS)}.",
        )
    most = CHIPS[soc].cores
    if cores and (int(cores) < 1 or (most is not None and int(cores) > most)):
        raise AtcRefusal("E20103", f"--aicore_num is {cores}, expected 1 to {most or 'as many as it has'} on {soc}")
    return soc
