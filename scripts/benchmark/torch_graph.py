# SPDX-License-Identifier: Apache-2.0
"""Runs `vxm.onnx` in PyTorch, node by node: those operators only that an exported VoxelMorph graph has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List

import numpy as np
import torch
from onnx import helper, numpy_helper

from vxm_convert.errors import FormatError

if TYPE_CHECKING:
    import onnx

Attributes = Dict[str, Any]
_INT32 = 6


def _conv(inputs: List[Any], attributes: Attributes) -> Any:
    """Uneven padding is cut off on its own: convolutions of PyTorch pad both ends alike."""
    x, pads, rank = inputs[0], attributes["pads"], len(attributes["pads"]) // 2
    before, after = list(pads[:rank]), list(pads[rank:])
    if before != after:
        x = torch.nn.functional.pad(x, [width for pair in zip(before[::-1], after[::-1]) for width in pair])
        before = [0] * rank
    function = {2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[rank]
    return function(
        x,
        *inputs[1:],
        stride=tuple(attributes["strides"]),
        padding=tuple(before),
        dilation=tuple(attributes["dilations"]),
        **({} if len(inputs) > 2 else {"bias": None}),
        groups=attributes.get("group", 1),
    )


def _squeeze(inputs: List[Any], _: Attributes) -> Any:
    value = inputs[0]
    for axis in sorted((int(a) % value.dim() for a in inputs[1]), reverse=True):
        value = value.squeeze(axis)
    return value


def _gather(inputs: List[Any], attributes: Attributes) -> Any:
    x, index, axis = inputs[0], inputs[1], attributes.get("axis", 0)
    found = torch.index_select(x, axis, index.reshape(-1).long())
    return found.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def _split(inputs: List[Any], attributes: Attributes) -> Any:
    x, axis = inputs[0], attributes.get("axis", 0)
    return torch.split(x, [int(n) for n in inputs[1]] if len(inputs) > 1 else 1, axis)


OPERATORS: Dict[str, Callable[[List[Any], Attributes], Any]] = {
    "Add": lambda i, a: i[0] + i[1],
    "Sub": lambda i, a: i[0] - i[1],
    "Mul": lambda i, a: i[0] * i[1],
    "Floor": lambda i, a: i[0].floor(),
    "Max": lambda i, a: torch.maximum(*i),
    "Min": lambda i, a: torch.minimum(*i),
    "Concat": lambda i, a: torch.cat(i, a["axis"]),
    "Reshape": lambda i, a: i[0].reshape([int(n) for n in i[1]]),
    "Transpose": lambda i, a: i[0].permute(*a["perm"]),
    "LeakyRelu": lambda i, a: torch.nn.functional.leaky_relu(i[0], a["alpha"]),
    "Identity": lambda i, a: i[0],
    "Conv": _conv,
    "Squeeze": _squeeze,
    "Gather": _gather,
    "Split": _split,
    "Cast": lambda i, a: i[0].to(torch.int32 if a["to"] == _INT32 else torch.float32),
}


class TorchGraph:
    """An ONNX model ready to run; weights of volumes are kept channels last, which is the faster order on CPUs.

    Raises
    ------
    FormatError
        The model has an operator that this small interpreter does not know.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        unknown = sorted({node.op_type for node in model.graph.node} - set(OPERATORS))
        if unknown:
            raise FormatError(
                f"vxm.onnx: operators without a PyTorch form here: {', '.join(unknown)}; leave torch out with --only"
            )
        self._nodes = [
            (
                node.op_type,
                list(node.input),
                list(node.output),
                {a.name: helper.get_attribute_value(a) for a in node.attribute},
            )
            for node in model.graph.node
        ]
        self._constants = {item.name: _constant(numpy_helper.to_array(item)) for item in model.graph.initializer}
        self._outputs = [item.name for item in model.graph.output]
        #: tensor → number of the last node that reads it; inner tensors do not outlive it
        self._last = {name: number for number, (_, inputs, _, _) in enumerate(self._nodes) for name in inputs}

    def run(self, feeds: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Arrays by tensor name in, the model's outputs by name out."""
        values = {name: torch.from_numpy(value) for name, value in feeds.items()}
        with torch.no_grad():
            for number, (kind, inputs, outputs, attributes) in enumerate(self._nodes):
                operands = [self._constants[name] if name in self._constants else values[name] for name in inputs]
                found = OPERATORS[kind](operands, attributes)
                values.update(zip(outputs, found if kind == "Split" else [found]))
                for name in inputs:
                    if self._last[name] == number and name not in self._outputs:
                        values.pop(name, None)
        return {name: np.ascontiguousarray(values[name].numpy()) for name in self._outputs}


def _constant(array: np.ndarray) -> Any:
    value = torch.from_numpy(np.array(array))
    return value.to(memory_format=torch.channels_last_3d) if value.dim() == 5 and value.is_floating_point() else value
