# SPDX-License-Identifier: Apache-2.0
"""Modules that are imported when first used, so that ``--help`` and wrong options do not wait for them.

For packages that take a tenth of a second and that most commands need only once they work. Not for TensorFlow, which
has fences of its own, and not for packages that may be missing: the error would come late.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for a module until one of its names is asked for; assign it to the name that the import would have had.

    Parameters
    ----------
    name : str — dotted name of the module.
    """

    def __init__(self, name: str) -> None:
        self._lazy_name = name

    def __getattr__(self, name: str) -> Any:
        # Not kept on this object: the import system keeps it, under its own lock.
        return getattr(importlib.import_module(self._lazy_name), name)

    def __repr__(self) -> str:
        return f"<{self._lazy_name}, imported when used>"
