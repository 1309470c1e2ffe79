# SPDX-License-Identifier: Apache-2.0
"""The BLAS of NumPy and SciPy in one thread: a run's threads are those of ``--threads``, and matrices here are small.

OpenBLAS wakes its threads even for the inverse of a 4 x 4 matrix (NumPy 1.18), and they then wait at full speed for some
20 ms: a processor that the device's loops could have. Imported before NumPy by the ``__main__`` that registers, and does
nothing elsewhere: a program that imports this project keeps its own setting.
"""

from __future__ import annotations

import os
import sys

if os.path.basename(sys.argv[0] if sys.argv else "") in ("__main__.py", "vxm-register"):
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
