# SPDX-License-Identifier: Apache-2.0
"""The labels of `fakes`, numbered as another tool numbers them."""

from __future__ import annotations

import numpy as np

from tests.support import fakes

#: FreeSurfer's id → the number that another tool gives that structure
OTHER = {0: 0, 2: 1, 41: 20, 16: 35}


def other(seed: int) -> np.ndarray:
    """The labels of a scan of `fakes`, numbered as another tool numbers them."""
    seg = fakes.brain(seed)[1]
    return np.vectorize(OTHER.get)(seg).astype(np.int16)
