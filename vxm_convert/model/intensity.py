# SPDX-License-Identifier: Apache-2.0
"""How stored intensities become network inputs: the scale, and the rules of ``--intensity`` by name."""

from __future__ import annotations

from dataclasses import dataclass

CONVENTION, MATCH, PERCENTILE, CONTRAST = "convention", "match", "percentile", "contrast"
#: ways to network intensities, as `om_runner --intensity` names them
INTENSITIES = (CONVENTION, MATCH, PERCENTILE, CONTRAST)


@dataclass(frozen=True)
class IntensityRule:
    """Conversion of stored intensities to network inputs: ``value / scale``, expected in [low, high]; ``rule``, one of
    `INTENSITIES`, is the way that suits what the network was trained on.
    """

    scale: float = 255.0
    low: float = 0.0
    high: float = 1.0
    convention: str = "FreeSurfer-normalised scan (norm.mgz or brain.mgz, 0..255) divided by 255"
    rule: str = CONVENTION
