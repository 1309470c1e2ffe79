# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner`` with a simulated device that computes nothing: it gives the moving image back with a flow of 0
and sleeps as long as VXM_SIM_LATENCY says, so that only the host has work.
"""

from __future__ import annotations

import sys
from typing import Any, List, Optional

import numpy as np

from vxm_convert.sim.engine.backends import Places
from vxm_convert.sim.engine.program import Program


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the runner."""
    from om_runner.__main__ import main as runner

    Program.lend = unmoved  # type: ignore[assignment]
    return runner(argv)


def unmoved(program: Any, arrays: List[np.ndarray], places: Places = ()) -> List[np.ndarray]:
    """What the program would return: an image is the first input, anything else 0."""
    moving = arrays[0]
    return [
        moving.astype(tensor.dtype) if tuple(tensor.shape) == moving.shape else np.zeros(tensor.shape, tensor.dtype)
        for tensor in program.outputs
    ]


if __name__ == "__main__":
    sys.exit(main())
