# SPDX-License-Identifier: Apache-2.0
"""Writes small frozen TensorFlow graphs without TensorFlow: placeholders, constants and nodes with plain attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

import numpy as np

from vxm_convert.artifacts.files import write_bytes
from vxm_convert.formats.tf_graph import DTYPES, new_message

_NUMBERS = {name: number for number, name in DTYPES.items()}
#: GraphDef version of TensorFlow 1.15
_PRODUCER = 134


class GraphWriter:
    """Collects nodes in the GraphDef `graph`; every method returns the node's name."""

    def __init__(self) -> None:
        self.graph: Any = new_message()
        self.graph.versions.producer = _PRODUCER

    def node(self, op: str, name: str, *inputs: str, **attrs: Any) -> str:
        """A node; attributes are ``np.dtype``, ``ndarray``, ``tuple`` (a shape), ``list`` of int, bool, int, float,
        str.
        """
        message = self.graph.node.add(name=name, op=op)
        message.input.extend(inputs)
        for key, value in sorted(attrs.items()):
            _put(message.attr.add(key=key).value, value)
        return name

    def placeholder(self, name: str, shape: Sequence[int], dtype: str = "float32") -> str:
        return self.node("Placeholder", name, dtype=np.dtype(dtype), shape=tuple(shape))

    def constant(self, name: str, value: np.ndarray) -> str:
        return self.node("Const", name, dtype=value.dtype, value=value)

    def save(self, path: Path) -> Path:
        """The graph as a file; equal graphs have equal bytes."""
        write_bytes(Path(path), self.graph.SerializeToString(deterministic=True))
        return Path(path)


def _put(message: Any, value: Any) -> None:
    if isinstance(value, np.dtype):
        message.type = _NUMBERS[value.name]
    elif isinstance(value, np.ndarray):
        message.tensor.dtype = _NUMBERS[value.dtype.name]
        message.tensor.tensor_shape.SetInParent()
        for side in value.shape:
            message.tensor.tensor_shape.dim.add(size=side)
        message.tensor.tensor_content = np.ascontiguousarray(value).tobytes()
    elif isinstance(value, tuple):
        message.shape.SetInParent()
        for side in value:
            message.shape.dim.add(size=side)
    elif isinstance(value, list):
        message.list.i.extend(value)
    else:
        setattr(message, _field_of(value), value.encode() if isinstance(value, str) else value)


def _field_of(value: object) -> str:
    """The field of a plain value; bool before int, which it is too."""
    kinds = ((bool, "b"), (int, "i"), (float, "f"), (str, "s"))
    return next(field for kind, field in kinds if isinstance(value, kind))
