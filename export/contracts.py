# SPDX-License-Identifier: Apache-2.0
"""The contract of a graph before its export. Needs no TensorFlow."""

from __future__ import annotations

from typing import Optional

from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.model.intensity import CONVENTION, IntensityRule
from vxm_convert.model.precision import PrecisionPlan
from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.spec_file import read_spec
from vxm_convert.model.variables import FIXED_NODE, FLOW_NODE, MOVED_NODE, MOVING_NODE, VELOCITY_NODE
from vxm_convert.weights.files import CheckpointFiles

_IMAGE_UNIT = "intensity 0..1"
_FRAME = "fixed voxel grid"


def build_contract(
    spec: ModelSpec, plan: PrecisionPlan, soc_version: str, files: Optional[CheckpointFiles] = None
) -> GraphContract:
    """Names, shapes and meanings of the inference graph of `spec`, and the intensity rule that the weights' ``spec.json``
    asks for; hashes and tool versions are still empty.
    """
    beside = None if files is None else read_spec(files.path.parent)
    image, flow = spec.image_shape, spec.flow_shape
    velocity = TensorSpec(
        "velocity",
        VELOCITY_NODE,
        0,
        spec.velocity_shape,
        frame="every second voxel of the fixed grid",
        unit="its voxel",
    )
    return GraphContract(
        model=spec,
        inputs=(
            TensorSpec("moving", MOVING_NODE, 0, image, frame="moving voxel grid", unit=_IMAGE_UNIT),
            TensorSpec("fixed", FIXED_NODE, 0, image, frame=_FRAME, unit=_IMAGE_UNIT),
        ),
        outputs=(
            TensorSpec("moved", MOVED_NODE, 0, image, frame=_FRAME, unit=_IMAGE_UNIT),
            TensorSpec("flow", FLOW_NODE, 0, flow, frame=_FRAME, unit="voxel"),
        )
        + ((velocity,) if spec.diffeomorphic else ()),
        precision=plan,
        soc_version=soc_version,
        intensity=IntensityRule(rule=CONVENTION if beside is None else beside.rule),
    )
