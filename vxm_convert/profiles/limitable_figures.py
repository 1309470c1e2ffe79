# SPDX-License-Identifier: Apache-2.0
"""The figures that an acceptance profile may limit: dotted names of entries of a precision report's row, with unit and
direction.

The table is used for reading profiles, for their JSON schema, for judging and for
``python -m vxm_convert profiles show``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Iterator, Tuple

AT_MOST = "<="
AT_LEAST = ">="
#: direction → key of the limit in a profile
LIMIT_KEYS = {AT_MOST: "max", AT_LEAST: "min"}
DICE_PREFIX = "dice."


@dataclass(frozen=True)
class Figure:
    """One figure.

    Parameters
    ----------
    name : str — dotted path into a row of the report.
    unit : str — of the value and of its limit.
    relation : ``<=`` or ``>=`` — relation of a good value to its limit.
    low, high : float — range of possible limits.
    text : str — description.
    """

    name: str
    unit: str
    relation: str
    low: float
    high: float
    text: str

    @property
    def key(self) -> str:
        """``max`` or ``min``: the key of its limit."""
        return LIMIT_KEYS[self.relation]

    @property
    def needs_labels(self) -> bool:
        return self.name.startswith(DICE_PREFIX)


_INTENSITY = "intensity (full scale 1)"
_OUTPUTS: Tuple[Tuple[str, str, str], ...] = (
    ("moved", _INTENSITY, "moved image"),
    ("moved.inside", _INTENSITY, "moved image where the fixed image is above zero"),
    ("moved.warp_only", _INTENSITY, "moved image against a float64 warp by the device's own flow"),
    ("flow", "voxel", "components of the flow"),
)
_ERRORS = (
    ("max_abs", "largest absolute error"),
    ("mean_abs", "mean absolute error"),
    ("p50_abs", "median of the absolute error"),
    ("p99_abs", "99th percentile of the absolute error"),
    ("p999_abs", "99.9th percentile of the absolute error"),
    ("rmse", "root of the mean squared error"),
)
_LENGTHS = (
    ("max", "largest"),
    ("p999", "99.9th percentile of the"),
    ("p99", "99th percentile of the"),
    ("mean", "mean"),
)
_ASCEND = (
    ("CosineSimilarity", AT_LEAST, "1"),
    ("MaxAbsoluteError", AT_MOST, ""),
    ("AccumulatedRelativeError", AT_MOST, "1"),
    ("RelativeEuclideanDistance", AT_MOST, "1"),
    ("KullbackLeiblerDivergence", AT_MOST, "1"),
    ("MeanAbsoluteError", AT_MOST, ""),
    ("RootMeanSquareError", AT_MOST, ""),
    ("MaxRelativeError", AT_MOST, "1"),
    ("MeanRelativeError", AT_MOST, "1"),
)


def _build() -> Iterator[Figure]:
    for prefix, unit, what in _OUTPUTS:
        for key, text in _ERRORS:
            yield Figure(f"{prefix}.{key}", unit, AT_MOST, 0.0, math.inf, f"{what}: {text}")
        yield Figure(f"{prefix}.cosine", "1", AT_LEAST, -1.0, 1.0, f"{what}: cosine similarity")
        yield Figure(f"{prefix}.one_minus_cosine", "1", AT_MOST, 0.0, 2.0, f"{what}: 1 − cosine, without cancellation")
        yield Figure(
            f"{prefix}.relative_euclidean",
            "1",
            AT_MOST,
            0.0,
            math.inf,
            f"{what}: length of the error over that of the reference",
        )
        if prefix != "flow":
            yield Figure(
                f"{prefix}.psnr_db", "dB", AT_LEAST, 0.0, math.inf, f"{what}: peak signal-to-noise ratio, peak 1"
            )
        yield Figure(f"{prefix}.snr_db", "dB", AT_LEAST, 0.0, math.inf, f"{what}: signal-to-noise ratio")
    for prefix, unit in (("epe_voxel", "voxel"), ("epe_mm", "mm")):
        for key, text in _LENGTHS:
            yield Figure(f"{prefix}.{key}", unit, AT_MOST, 0.0, math.inf, f"{text} end-point error of the flow")
    for key, text in (("max", "largest"), ("p999", "99.9th percentile of the"), ("mean", "mean")):
        yield Figure(
            f"sampling.position_{key}", "voxel", AT_MOST, 0.0, math.inf, f"{text} distance of sampling positions"
        )
    yield Figure(
        "sampling.floor_flip_fraction",
        "share",
        AT_MOST,
        0.0,
        1.0,
        "voxels and axes in which the warp blends other neighbours",
    )
    yield Figure(
        "dice.min_change",
        "Dice",
        AT_LEAST,
        -1.0,
        1.0,
        "change of Dice of the structure with the largest loss, offline − reference",
    )
    yield Figure("dice.mean_change", "Dice", AT_LEAST, -1.0, 1.0, "change of the mean Dice, offline − reference")
    yield Figure("dice.offline", "Dice", AT_LEAST, 0.0, 1.0, "mean Dice after registration by the offline model")
    yield Figure(
        "folding.change", "share", AT_MOST, -1.0, 1.0, "change of the share of folded voxels, offline − reference"
    )
    yield Figure(
        "folding.offline_fraction", "share", AT_MOST, 0.0, 1.0, "share of folded voxels of the offline model's flow"
    )
    yield Figure(
        "jacobian.offline.min",
        "1",
        AT_LEAST,
        -math.inf,
        math.inf,
        "smallest Jacobian determinant of the offline model's flow",
    )
    for prefix, unit, what in (_OUTPUTS[0], _OUTPUTS[-1]):
        for name, relation, own_unit in _ASCEND:
            low, high = (-1.0, 1.0) if name == "CosineSimilarity" else (0.0, math.inf)
            yield Figure(
                f"{prefix}.ascend.{name}", own_unit or unit, relation, low, high, f"{what}: {name} of Ascend's comparer"
            )


FIGURES: Dict[str, Figure] = {figure.name: figure for figure in _build()}
