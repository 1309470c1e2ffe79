# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a command still imports its packages ends in one line, as it does later.

Imported first by each ``__main__`` and does nothing elsewhere: a program that imports this project keeps its own hook.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Optional, Type

#: as `vxm_convert.cliargs.run_main` ends
STOPPED = 130


def _hook(kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write("stopped by the user\n")
    sys.stderr.flush()
    # Otherwise Python ends by the signal or with 1, depending on its version.
    os._exit(STOPPED)


if os.path.basename(sys.argv[0] if sys.argv else "") == "__main__.py":
    sys.excepthook = _hook
