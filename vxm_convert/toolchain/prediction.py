# SPDX-License-Identifier: Apache-2.0
"""What the simulator predicts for a graph: compiled by the simulated ATC, executed by its engine, without ACL or faults.

For comparing a device with it; a prediction is never a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, Mapping, Sequence, Tuple

import numpy as np

from vxm_convert.errors import ToolchainError
from vxm_convert.formats.om import read_om


class Prediction:
    """An offline model of the simulator, loaded.

    Parameters
    ----------
    om_path : Path — compiled by the simulated ATC.

    Raises
    ------
    ToolchainError, FormatError
        If it is no model of the simulator, or no engine is installed.
    """

    def __init__(self, om_path: Path) -> None:
        # Needs an inference engine, which a machine with a device may lack.
        from vxm_convert.sim.engine.program import load_static

        model = read_om(om_path)
        if not model.simulated:
            raise ToolchainError(f"{om_path}: compiled by the real ATC, which the simulator cannot execute")
        self._program = load_static(model)

    def outputs(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Output node → ndarray, in the model's order, for inputs by their nodes."""
        results = self._program.run([feeds[desc.name] for desc in self._program.inputs])
        return {desc.name.partition(":")[0]: value for desc, value in zip(self._program.outputs, results)}

    def tensors(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Iterator[Tuple[str, np.ndarray]]:
        """(``operator:index``, value) of inner tensors of the compiled graph, in logical shape and the device's dtype."""
        arrays = [feeds[desc.name] for desc in self._program.inputs]
        for name, index, value in self._program.run_with_dumps(arrays, wanted):
            yield f"{name}:{index}", value
