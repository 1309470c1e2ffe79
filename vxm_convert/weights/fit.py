# SPDX-License-Identifier: Apache-2.0
"""Whether a set of variables is the requested network, with one message if not. Compares only names and shapes."""

from __future__ import annotations

import re
from typing import Dict, List, Tuple

from vxm_convert.errors import CheckpointError
from vxm_convert.model.spec import VARIANTS, ModelSpec
from vxm_convert.model.variables import LOG_SIGMA_LAYER, expected_variables

Shapes = Dict[str, Tuple[int, ...]]

_MAX_NAMED = 4
# Variables of optimisers, loss scaling and step counters in a checkpoint. `cond/` comes from loss scaling, which
# updates inside a tf.cond; `Variable` is the unnamed step counter of the Ascend training script.
_TRAINING_STATE = tuple(
    re.compile(p)
    for p in (
        r".+/(Adam|Adam_1|AdamW|Momentum|Adagrad|RMSProp|RMSProp_1|ExponentialMovingAverage)$",
        r"(.*/)?beta[12]_power(_\d+)?$",
        r"(.*/)?global_step$",
        r"(.*/)?(loss_scale|good_steps|bad_steps|current_loss_scale|num_good_steps|num_bad_steps|skipped_steps|save_counter)(_\d+)?$",
        r"Variable(_\d+)?$",
    )
)


def is_training_state(name: str) -> bool:
    """Optimiser slots, powers, counters and loss scales: in the checkpoint, not in the network."""
    return any(pattern.match(name) for pattern in _TRAINING_STATE)


def check_fit(found: Shapes, spec: ModelSpec, where: str) -> None:
    """Raise CheckpointError with the differences and the fitting variants unless `found` is exactly the network of
    `spec`.
    """
    if not spec.diffeomorphic and any(name.split("/")[0] == LOG_SIGMA_LAYER for name in found):
        raise CheckpointError(
            f"{where}: has a {LOG_SIGMA_LAYER} layer, so it is a diffeomorphic network whose output is a velocity, "
            f"unlike --variant {spec.variant}; {_advice(found, spec)}"
        )
    problems = _differences(found, expected_variables(spec))
    if not problems:
        return
    shown = "; ".join(problems[:_MAX_NAMED]) + (
        f"; and {len(problems) - _MAX_NAMED} more" if len(problems) > _MAX_NAMED else ""
    )
    raise CheckpointError(f"{where}: does not fit --variant {spec.variant}: {shown}; {_advice(found, spec)}")


def _differences(found: Shapes, expected: Shapes) -> List[str]:
    missing = [f"variable {name} {_text(shape)} is missing" for name, shape in expected.items() if name not in found]
    extra = [
        f"variable {name} {_text(shape)} is not part of it"
        for name, shape in sorted(found.items())
        if name not in expected
    ]
    wrong = [
        f"variable {name} has shape {_text(found[name])}, expected {_text(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != shape
    ]
    return wrong + missing + extra


def _advice(found: Shapes, spec: ModelSpec) -> str:
    fitting = [v for v in VARIANTS if not _differences(found, expected_variables(ModelSpec(v, spec.volume_shape)))]
    if fitting:
        return f"these weights fit --variant {fitting[0]}"
    return f"they fit none of {', '.join(VARIANTS)}; check that it is a VoxelMorph checkpoint of the right file"


def _text(shape: Tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape) or "scalar"
