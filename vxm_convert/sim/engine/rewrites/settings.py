# SPDX-License-Identifier: Apache-2.0
"""Which engine rewrites the simulated device uses and whether it rounds: VXM_SIM_REWRITES and VXM_SIM_ROUNDING, for
measurements.

A rewrite makes the compiled graph cheaper for a CPU and does not change its results; each is a separate module with
before, after and proof. By default, those that are faster on this engine and processor are used.
"""

from __future__ import annotations

import os
from typing import Dict, FrozenSet, Iterable, Mapping, NamedTuple, Optional, Tuple

from vxm_convert.errors import ToolchainError
from vxm_convert.sim.version import SIM_VERSION

VARIABLE = "VXM_SIM_REWRITES"
ROUNDING_VARIABLE = "VXM_SIM_ROUNDING"
#: name → what it does, in the order in which they are applied
REWRITES: Dict[str, str] = {
    "upsampling": "nearest upsampling written as concatenations becomes one operator",
    "transposed": "a convolution of an upsampled volume becomes a transposed one of the small volume",
    "phases": "that transposed convolution becomes eight small ones whose results are interleaved",
    "lanes": "a convolution with few outputs computes four neighbouring voxels at a time",
    "winograd": "the convolutions of full size are computed by compiled loops, with 4/9 of the products",
    "channels": "volumes of one channel are joined channels first",
}
#: A rewrite that works on the result of another one includes that one.
_NEEDS: Dict[str, Tuple[str, ...]] = {
    "transposed": ("upsampling",),
    "phases": ("upsampling", "transposed"),
    "winograd": ("upsampling",),
}
_UNROUNDED = "ROUNDING OFF, not the 910's arithmetic"


class Settings(NamedTuple):
    """How a compiled graph is made executable."""

    rewrites: FrozenSet[str]
    rounding: bool = True


def settings(fastest: Iterable[str], environ: Optional[Mapping[str, str]] = None) -> Settings:
    """The settings in the environment; `fastest` are the rewrites of ``auto``.

    Raises
    ------
    ToolchainError
        For an illegal value of a variable; the message lists the legal ones.
    """
    environ = os.environ if environ is None else environ
    return Settings(_chosen(environ.get(VARIABLE) or "auto", frozenset(fastest)), rounds(environ))


def rounds(environ: Optional[Mapping[str, str]] = None) -> bool:
    """Whether the simulated device rounds as the 910 does; off only for measuring the effect of rounding.

    Raises
    ------
    ToolchainError
        For another value than ``on`` and ``off``.
    """
    value = (os.environ if environ is None else environ).get(ROUNDING_VARIABLE) or "on"
    if value not in ("on", "off"):
        raise ToolchainError(
            f"{ROUNDING_VARIABLE}: got {value!r}, expected on or off; unset it for the 910's arithmetic"
        )
    return value == "on"


def named(environ: Mapping[str, str]) -> str:
    """Version of the simulated toolchain in reports and side-cars; it mentions if the rounding is off.

    Raises
    ------
    ToolchainError
        As `settings`, but before a model is loaded, when the message would appear as a failed load.
    """
    return SIM_VERSION if settings((), environ).rounding else f"{SIM_VERSION} ({_UNROUNDED})"


def _chosen(value: str, fastest: FrozenSet[str]) -> FrozenSet[str]:
    whole = {"auto": fastest, "all": frozenset(REWRITES), "none": frozenset()}
    if value in whole:
        return whole[value]
    names = [name.strip() for name in value.split(",")]
    unknown = [name for name in names if name not in REWRITES]
    if unknown:
        raise ToolchainError(
            f"{VARIABLE}: got {', '.join(map(repr, unknown))}, expected auto, all, none, or some of "
            f"{', '.join(REWRITES)}, separated by commas"
        )
    return frozenset(names).union(*(_NEEDS.get(name, ()) for name in names))
