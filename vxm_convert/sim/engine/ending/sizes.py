# SPDX-License-Identifier: Apache-2.0
"""Which convolutions the loops take. Data only, so that nothing is compiled to look at a graph."""

from __future__ import annotations

#: float32 numbers of a vector of AVX-512: channels come in blocks of so many
LANES = 16
#: outputs of the last convolution: the three components of a flow
OUTPUTS = 3
#: voxels of a volume below which the engine is left alone: loading the loops would take longer than they save
LEAST_VOXELS = 1 << 20
