# SPDX-License-Identifier: Apache-2.0
"""The figures by which the outputs of one scan are judged before anything of it is written: the section ``plausible`` of
a profile. They need no TensorFlow, so they are judged whatever ``--compare`` says.
"""

from __future__ import annotations

import math
from typing import Dict

from vxm_convert.profiles.limitable_figures import AT_LEAST, AT_MOST, Figure

DISPLACEMENT = "displacement.share"
FOLDING = "folding.fraction"
JACOBIAN_MIN, JACOBIAN_MAX = "jacobian.min", "jacobian.max"
WARP = "warp.max_abs"
LIKENESS = "likeness"

PLAUSIBLE_FIGURES: Dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            DISPLACEMENT,
            "share",
            AT_MOST,
            0.0,
            math.inf,
            "longest displacement along an axis, as a share of the grid's side along it",
        ),
        Figure(FOLDING, "share", AT_MOST, 0.0, 1.0, "share of folded voxels of the flow"),
        Figure(JACOBIAN_MIN, "1", AT_LEAST, -math.inf, math.inf, "smallest Jacobian determinant of the flow"),
        Figure(JACOBIAN_MAX, "1", AT_MOST, 0.0, math.inf, "largest Jacobian determinant of the flow"),
        Figure(
            WARP,
            "intensity (full scale 1)",
            AT_MOST,
            0.0,
            math.inf,
            "largest difference of the moved image from the scan warped by the flow on the host",
        ),
        Figure(
            LIKENESS,
            "1",
            AT_LEAST,
            -1.0,
            1.0,
            "correlation of the moved image with the scan or with the fixed image, the larger one",
        ),
    )
}
