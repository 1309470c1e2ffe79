# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of an offline model in the runtime: matching by name, memory, one or several sets.

Nothing here calls pyACL: addresses are Python ints that `om_runner.device.acl_runtime` got from it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

import numpy as np

from vxm_convert.errors import ContractError
from vxm_convert.model.contract import TensorSpec


@dataclass
class Port:
    """One input or output: its contract entry, its position in the model, and its memory on both sides.

    Parameters
    ----------
    spec : TensorSpec
    index : int — position among the model's inputs or outputs.
    size : int — bytes of the model's buffer; at least the bytes of the tensor.
    host : ndarray — view of page-locked memory, shape and dtype of `spec`.
    host_address, device_address : int
    """

    spec: TensorSpec
    index: int
    size: int
    host: Optional[np.ndarray] = None
    host_address: int = 0
    device_address: int = 0

    @property
    def array(self) -> np.ndarray:
        """`host`, after its allocation."""
        if self.host is None:
            raise RuntimeError(f"{self.spec.tensor_name}: has no memory yet")
        return self.host


@dataclass
class Buffers:
    """One set: both ends of the model with memory and datasets. `seconds` is set by the execution. All sets have the host
    side of the inputs and the device side of the outputs in common.

    Parameters
    ----------
    inputs, outputs : list of Port — in model order.
    input_set, output_set : int — datasets over their device side.
    """

    inputs: List[Port]
    outputs: List[Port]
    input_set: int = 0
    output_set: int = 0
    seconds: float = 0.0
    fixed_is_there: bool = False


def index_of(end: str, spec: TensorSpec, names: List[str], om_path: Path) -> int:
    """Position of the contract's tensor among the model's names, which are ``node`` for inputs, ``node:index[:top]``
    for outputs.
    """
    if end == "input":
        found = [i for i, name in enumerate(names) if name == spec.node]
    else:
        found = [
            i for i, name in enumerate(names) if name == spec.tensor_name or name.startswith(spec.tensor_name + ":")
        ]
    if len(found) == 1:
        return found[0]
    wanted = spec.node if end == "input" else spec.tensor_name
    raise ContractError(
        f"{om_path}: {len(found) or 'no'} {end}s are named {wanted} ({spec.meaning}), the model has "
        f"{', '.join(names) or 'none'}; the model and contract.json are from different exports; export again"
    )


def tensor_bytes(spec: TensorSpec) -> int:
    count = int(np.dtype(spec.dtype).itemsize)
    for side in spec.shape:
        count *= side
    return count


def view_of(address: int, spec: TensorSpec) -> np.ndarray:
    """Memory at an address as an array of the tensor's shape and dtype, not a copy."""
    raw = (ctypes.c_char * tensor_bytes(spec)).from_address(address)
    return np.frombuffer(raw, np.dtype(spec.dtype)).reshape(tuple(spec.shape))


def same_bytes(first: Optional[np.ndarray], second: np.ndarray) -> bool:
    if first is None:
        return False
    # Compared as integers: NaN equals itself, and 0.0 differs from -0.0.
    bits = np.dtype(f"u{second.dtype.itemsize}")
    return bool(np.array_equal(first.view(bits), second.view(bits)))
