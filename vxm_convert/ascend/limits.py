# SPDX-License-Identifier: Apache-2.0
"""Limits of the chips and of their Conv3D kernel, each with its source. Data only."""

from __future__ import annotations

#: the largest number of fp16
HALF_MAX = 65504.0

#: Share of the memory that a model may take before preflight warns; the rest is for the driver, the runtime and
#: fragmentation.
COMFORTABLE_SHARE = 0.85

# Conv3D of the 910: TBE implementation `conv3d.py` of CANN's operator sources (Apache-2.0), with its error codes.
CHANNEL_BLOCK = 16
MAX_KERNEL = 255
MAX_PAD = 255
MAX_STRIDE = 63
MAX_DILATION = 255
MAX_FMAP = 4096
L1_BYTES = 1 << 20

#: Placeholders of other types cannot be parsed.
INPUT_DTYPES = ("float16", "float32", "uint8", "int32", "int64", "bool")
