# SPDX-License-Identifier: Apache-2.0
"""A loaded model with several shapes: one `engine.Program` per gear, prepared when it is first used, of which a few are
kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Callable, List, Tuple

from vxm_convert.formats.ge_ir import Model
from vxm_convert.formats.gears import Gears
from vxm_convert.formats.om import OmModel
from vxm_convert.sim.engine.program import Program, TensorDesc, edge_of

#: Prepared programs that are kept: a program holds its intermediate tensors, and a model may have 100 gears.
MAX_PREPARED = 4
Tensors = List[TensorDesc]


class GearedProgram:
    """`inputs` and `outputs` are those of the file: each as large as in its largest gear, with the input that selects
    the gear last.

    The gear with the smallest outputs is prepared at once, which finds operators without a kernel at load time; the
    largest is prepared only after the device has confirmed that it has the memory.

    Parameters
    ----------
    model : OmModel — with gears.
    load : callable — prepares a model with static shapes.

    Raises
    ------
    FormatError
        If the smallest gear cannot be executed.
    """

    def __init__(self, model: OmModel, gears: Gears, load: Callable[[OmModel], Program]) -> None:
        self.inputs, self.outputs = edge_of(model)
        self.work_bytes = int(model.attrs["memory_size"])
        self.weight_bytes = len(model.weights)
        self.gears = gears
        self._model = model
        self._load = load
        self._prepared: OrderedDict[int, Program] = OrderedDict()
        self._lock = threading.Lock()
        sizes = [sum(desc.nbytes for desc in model.model.branches[name][-1].output_descs) for name in gears.graphs]
        self.program(sizes.index(min(sizes)))

    def tensors(self, gear: int) -> Tuple[Tensors, Tensors]:
        """The model's own inputs and outputs in a gear."""
        shapes = self.gears.shapes(gear)
        inputs = [replace(desc, shape=shapes[desc.name]) for desc in self.inputs[:-1]]
        return inputs, [replace(desc, shape=shape) for desc, shape in zip(self.outputs, self.gears.outputs[gear])]

    def program(self, gear: int) -> Program:
        """The program of a gear; raises FormatError if its graph cannot be executed."""
        with self._lock:
            found = self._prepared.pop(gear, None)
            if found is None:
                while len(self._prepared) >= MAX_PREPARED:
                    self._prepared.popitem(last=False)
                found = self._load(self._branch(gear))
            self._prepared[gear] = found
            return found

    def _branch(self, gear: int) -> OmModel:
        """One gear as a model of its own."""
        model = self._model.model
        return replace(
            self._model, model=Model(model.name, model.branches[self.gears.graphs[gear]], model.attrs), gears=None
        )
