# SPDX-License-Identifier: Apache-2.0
"""``--intensity``: how a scan's values become network intensities. Chosen before anything slow is done, so that a scan
that will be refused is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.intensities.contrast import fit_contrast
from vxm_convert.intensities.matching import Curve, Reference, curve_doubt, fit_curve, flatten_shading, scale_doubts
from vxm_convert.intensities.rules import Intensity, detect_intensity, percentile_intensity
from vxm_convert.model.intensity import CONTRAST, CONVENTION, MATCH, PERCENTILE, IntensityRule
from vxm_convert.scans.values import Volume


@dataclass(frozen=True)
class Scale:
    """One scan's way to network intensities.

    Parameters
    ----------
    intensity : Intensity — the rule in words, and the file value per network value (1 for a curve).
    rule : IntensityRule — the network's range.
    clipped : bool — whether values beyond that range are cut.
    curve : Curve or None — the fit to the atlas.
    reference : Reference or None — what the curve is fitted to.
    contrast : bool — whether, once the scan lies on the atlas, it is given the atlas's contrast.
    """

    intensity: Intensity
    rule: IntensityRule
    clipped: bool = False
    curve: Optional[Curve] = None
    reference: Optional[Reference] = None
    contrast: bool = False

    @property
    def plain(self) -> bool:
        """Whether the network sees the file's values, divided at most."""
        return self.reference is None and not self.clipped

    def describe(self) -> str:
        """The rule in words, for logs, tables and side-cars."""
        if self.clipped:
            return f"{self.intensity.name}, clipped to {self.rule.low:g}..{self.rule.high:g}"
        factor = self.intensity.factor
        return self.intensity.name + (f", divided by {factor:g}" if factor != 1 else "")

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Network intensities, float32, of the scan on its own grid."""
        if self.curve is not None:
            return self.curve.apply(values)
        factor = self.intensity.factor
        normal = values if factor == 1.0 else values / np.float32(factor)
        return np.clip(normal, self.rule.low, self.rule.high) if self.clipped else normal

    def finish(self, image: np.ndarray, where: str) -> np.ndarray:
        """What can be done only where the scan lies on the atlas: (X, Y, Z) float32 on the network grid."""
        if self.reference is None:
            return image
        if self.contrast:
            inside = image > 0
            return fit_contrast(image, self.reference.image, inside).apply(image, inside)
        flat = flatten_shading(image, self.reference)
        return fit_curve(flat, self.reference, where).apply(flat)


def scale_of(
    volume: Volume,
    rule: IntensityRule,
    atlas: Optional[np.ndarray],
    how: str = CONVENTION,
    reference: Optional[Reference] = None,
) -> Tuple[Scale, List[str]]:
    """The scale of a scan and what is doubtful about it.

    Parameters
    ----------
    volume : Volume
    rule : IntensityRule — of the contract.
    atlas : ndarray or None — the fixed image, network intensities; None for the atlas itself.
    how : str — one of `INTENSITIES`.
    reference : Reference — the atlas as `match` and `contrast` need it.

    Raises
    ------
    VolumeError
        For a scan outside the convention, or too far from the atlas under the rule.
    """
    where = str(volume.path)
    if how == MATCH and reference is not None:
        curve = fit_curve(volume.data, reference, where)
        doubt = curve_doubt(curve)
        return Scale(Intensity(curve.describe(), 1.0), rule, curve=curve, reference=reference), [doubt] if doubt else []
    if how == CONTRAST and reference is not None:
        # The percentile only brings the values into range, in which scan and atlas are compared until they overlap.
        factor = percentile_intensity(volume).factor
        name = "given the atlas's contrast by the regression of its intensities on the scan's"
        return Scale(Intensity(name, factor), rule, reference=reference, contrast=True), []
    if how == CONTRAST:
        return _scale_of_atlas(volume, rule), []
    if how == PERCENTILE:
        return Scale(percentile_intensity(volume), rule, clipped=True), []
    scale = Scale(detect_intensity(volume, rule), rule)
    return scale, [] if atlas is None else scale_doubts(scale.apply(volume.data), atlas, where)


def _scale_of_atlas(volume: Volume, rule: IntensityRule) -> Scale:
    """The convention where the atlas keeps it; otherwise its own percentile, since the scans follow its contrast anyway."""
    try:
        return Scale(detect_intensity(volume, rule), rule)
    except VolumeError:
        return Scale(percentile_intensity(volume), rule, clipped=True)
