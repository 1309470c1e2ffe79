# SPDX-License-Identifier: Apache-2.0
"""The only import of TensorFlow: checks the version, silences it, and raises one clear error if it is missing.

Everything that builds or runs graphs uses ``from vxm_convert.network.tf1 import tf``.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

from vxm_convert.errors import ToolchainError

__all__ = ["REQUIRED_VERSION", "tf"]

REQUIRED_VERSION = "1.15"
#: Set to 2, TensorFlow 2 is taken as well, by its 1.x interface: its kernels for CPUs train twice as fast. Nothing but training
#: and evaluation is tested with it; graphs are exported by 1.15 only.
VERSION_VARIABLE = "VXM_TENSORFLOW"


def _import_tensorflow() -> ModuleType:
    # 3 = the C++ side reports fatal errors only; set the variable beforehand to see more.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with warnings.catch_warnings():
            # TF 1.15's dtype tables trip NumPy ≥ 1.17, its collections imports trip Python ≥ 3.3.
            warnings.simplefilter("ignore")
            import tensorflow.compat.v1 as tf
            from tensorflow.python.util import deprecation
    except ImportError as exc:
        raise ToolchainError(
            f"TensorFlow: cannot import it in {sys.executable} (Python {sys.version.split()[0]}: {exc}), expected "
            f"TensorFlow {REQUIRED_VERSION} on Python 3.7; run `make setup` and use its Python; only om_runner works "
            "without TensorFlow"
        ) from exc
    if tf.__version__.startswith("2.") and os.environ.get(VERSION_VARIABLE) == "2":
        tf.disable_v2_behavior()
    elif not tf.__version__.startswith(REQUIRED_VERSION + "."):
        raise ToolchainError(
            f"TensorFlow: {sys.executable} has {tf.__version__}, expected {REQUIRED_VERSION}.x; run `make setup` and "
            "use its Python"
        )
    # Everything this code uses is deprecated in favour of TensorFlow 2, which it cannot use.
    deprecation._PRINT_DEPRECATION_WARNINGS = False
    tf.logging.set_verbosity(tf.logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    module: ModuleType = tf
    return module


if TYPE_CHECKING:
    # For annotations: tf.Tensor, tf.Session. TensorFlow 1.15 has no types of its own, so mypy takes each for Any.
    import tensorflow.compat.v1 as tf
else:
    tf = _import_tensorflow()
