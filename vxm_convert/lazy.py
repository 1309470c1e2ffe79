# SPDX-License-Identifier: Apache-2.0
"""Modules and public names that are imported when first used, so that ``--help`` and wrong options do not wait for
them.

For packages that take a tenth of a second and that most commands need only once they work. Not for TensorFlow, which
has fences of its own, and not for packages that may be missing: the error would come late.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Callable, Dict, List, Tuple


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


def silence_openvino() -> None:
    """Keep OpenVINO from reporting over the network; call it before OpenVINO is imported.

    OpenVINO 2024 and newer tell its makers of every import (``openvino/tools/ovc/__init__.py``) where the package
    ``openvino_telemetry`` is installed, as it is with OpenVINO, and start a thread for it. Without that package they use
    a stub of their own.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def public_names(
    package: str, homes: Dict[str, str], modules: Tuple[str, ...] = ()
) -> Tuple[Callable[[str], Any], Callable[[], List[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562) whose public names are imported when first used.

    Parameters
    ----------
    package : str — the package's ``__name__``.
    homes : public name → module that defines it.
    modules : names of public modules of the package.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> List[str]:
        return sorted([*homes, *modules])

    return get, listed
