# SPDX-License-Identifier: Apache-2.0
"""Memory that was freed goes back to the system, where the C library can do that."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> bool:
    """Return what the C library keeps of freed memory; whether it could.

    glibc takes arrays below 32 MB from heaps, one for several threads. A heap keeps whatever lies below something that is
    still in use: a run over raw scans grew by 0.1 GB.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is None:
        return False
    trim(0)
    return True
