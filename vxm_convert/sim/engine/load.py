# SPDX-License-Identifier: Apache-2.0
"""Opens a compiled model as a program that the simulated device can execute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from vxm_convert.errors import ToolchainError
from vxm_convert.formats.om import OmModel
from vxm_convert.sim.engine.geared import GearedProgram
from vxm_convert.sim.engine.program import load_static

if TYPE_CHECKING:
    from vxm_convert.sim.engine.program import Program


def load_program(model: OmModel) -> Union[Program, GearedProgram]:
    """Prepare a simulated model for execution: a `Program`, or a `geared.GearedProgram` for one with gears.

    Raises
    ------
    ToolchainError
        If the model is not a simulated one, or no engine is installed.
    FormatError
        If its graph cannot be executed although the container is intact.
    """
    if not model.simulated:
        raise ToolchainError(
            f"{model.name}: compiled by the real ATC ({model.attrs.get('atc_version')}), which the simulated device "
            "cannot execute; "
            "run it on an Ascend machine or export again with --toolchain sim"
        )
    if model.gears is None:
        return load_static(model)
    return GearedProgram(model, model.gears, load_static)
