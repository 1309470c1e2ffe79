# SPDX-License-Identifier: Apache-2.0
"""The size of the volumes that the tests of training use."""

from __future__ import annotations

#: voxels of the synthetic cohort in tests/train
SHAPE = (16, 16, 32)
