# SPDX-License-Identifier: Apache-2.0
"""Whether a contract agrees with itself: what it says of tensors, grid and intensities against its own model spec.

A contract that contradicts itself would be obeyed without a word: a flow in millimetres taken for voxels, a scale that
is no number.
"""

from __future__ import annotations

import math
import re
from typing import Any, Dict, Iterator, Sequence, Tuple

from vxm_convert.ascend.atc_flags import check_flags
from vxm_convert.errors import ContractError, SpecError
from vxm_convert.model.intensity import INTENSITIES

#: meaning → what its unit may be; older exports leave it out
_UNITS = {"flow": ("voxel", ""), "velocity": ("its voxel", "voxel", "")}
_IMAGE_UNITS = ("intensity 0..1", "")
_INPUTS, _OUTPUTS = ("moving", "fixed"), ("moved", "flow")
_DTYPES = ("float32", "float16")
_LAYOUT = "NDHWC"
_AXES = ("LR", "PA", "IS")
_SHA256 = re.compile("[0-9a-f]{64}")


def check_contract(contract: Any) -> None:
    """Raise ContractError with the first entry that cannot be.

    Parameters
    ----------
    contract : GraphContract — as read, its entries of any type; the module of its class calls this one.
    """
    for entry, got, expected in _contradictions(contract):
        raise ContractError(f"contract: {entry} is {got!r:.80}, expected {expected}; export the model again")


def _contradictions(contract: Any) -> Iterator[Tuple[str, Any, str]]:
    spec = contract.model
    velocity = ("velocity",) if spec.diffeomorphic else ()
    for kind, tensors, meanings in (
        ("inputs", contract.inputs, _INPUTS),
        ("outputs", contract.outputs, _OUTPUTS + velocity),
    ):
        found = [tensor.meaning for tensor in tensors]
        if sorted(map(str, found)) != sorted(meanings):
            yield f"meaning of the {kind}", found, f"{', '.join(meanings)} for {spec.variant}"
    shapes = {"flow": spec.flow_shape, "velocity": spec.velocity_shape}
    for tensor in contract.inputs + contract.outputs:
        yield from _of_tensor(tensor, shapes.get(tensor.meaning, spec.image_shape))
    yield from _of_grid(contract.grid.orientation, contract.grid.spacing_mm)
    rule = contract.intensity
    if not (_number(rule.scale) and rule.scale > 0):
        yield "intensity.scale", rule.scale, "a finite number above 0"
    if not (_number(rule.low) and _number(rule.high) and rule.low < rule.high):
        yield "intensity.low and .high", (rule.low, rule.high), "two finite numbers, the lower one first"
    if not isinstance(rule.convention, str):
        yield "intensity.convention", rule.convention, "a text"
    if rule.rule not in INTENSITIES:
        yield "intensity.rule", rule.rule, f"one of {', '.join(INTENSITIES)}"
    yield from _of_texts(contract.hashes, contract.tools)
    try:
        check_flags(contract.atc_flags, contract.precision.mode, bool(contract.precision.fp32_results))
    except (SpecError, AttributeError) as exc:
        yield "atc_flags", contract.atc_flags, f"flags that an export may pass ({exc})"


def _of_tensor(tensor: Any, shape: Sequence[int]) -> Iterator[Tuple[str, Any, str]]:
    name = f"{tensor.meaning}"
    if tuple(tensor.shape) != tuple(shape):
        yield f"shape of {name}", list(tensor.shape), f"{list(shape)} by its model"
    if tensor.dtype not in _DTYPES:
        yield f"dtype of {name}", tensor.dtype, " or ".join(_DTYPES)
    if tensor.layout != _LAYOUT:
        yield f"layout of {name}", tensor.layout, _LAYOUT
    units = _UNITS.get(tensor.meaning, _IMAGE_UNITS)
    if tensor.unit not in units:
        yield f"unit of {name}", tensor.unit, units[0]
    if not (isinstance(tensor.node, str) and tensor.node) or not isinstance(tensor.frame, str):
        yield f"node and frame of {name}", (tensor.node, tensor.frame), "a node's name and a text"
    if tensor.index < 0:
        yield f"index of {name}", tensor.index, "0 or more"


def _of_grid(orientation: str, spacing: Sequence[float]) -> Iterator[Tuple[str, Any, str]]:
    axes = [group for letter in orientation for group in _AXES if letter in group]
    if len(orientation) != 3 or len(set(axes)) != 3:
        yield "grid.orientation", orientation, "three letters, one of each of L/R, P/A, I/S"
    if not all(math.isfinite(side) and side > 0 for side in spacing):
        yield "grid.spacing_mm", list(spacing), "three finite numbers above 0"


def _of_texts(hashes: Dict[str, Any], tools: Dict[str, Any]) -> Iterator[Tuple[str, Any, str]]:
    for role, digest in hashes.items():
        if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
            yield f"hashes.{role}", digest, "a sha256 of 64 hexadecimal digits"
    for tool, version in tools.items():
        if not isinstance(version, str):
            yield f"tools.{tool}", version, "a version as text"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
