# SPDX-License-Identifier: Apache-2.0
"""Weights from Keras ``.h5`` files. The file is not trusted: its size and kind are checked before anything is read.

Layers are ``conv3d_<n>`` with the numbers of the session that saved them, so their order decides; the flow layer is
named ``flow``. No Keras is involved and the model description inside the file is never interpreted.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator

import numpy as np

from vxm_convert.errors import CheckpointError
from vxm_convert.model.variables import HEADS, conv_name
from vxm_convert.text import read_reason
from vxm_convert.weights.foreign import TAKEN, describe_keras_model

if TYPE_CHECKING:
    import h5py

_WEIGHTS_GROUP = "model_weights"
_CONV = re.compile(r"conv3d(?:_(\d+))?$")
_HEAD = re.compile(rf"({'|'.join(HEADS)})(?:_\d+)?$")
_VARIABLE = re.compile(r"(kernel|bias)(?::0)?$")
_MAX_LAYERS = 500
_MAX_DEPTH = 4
_MAX_ELEMENTS = 1 << 24
INDEXINGS = ("ij", "xy")


@contextmanager
def open_h5(path: Path) -> Iterator[Dict[str, h5py.Dataset]]:
    """Variable name (``conv3d/kernel`` …) → h5py dataset, unread; datasets are valid inside the context only.

    Raises
    ------
    CheckpointError
        If the file is not HDF5, has no conv3d layers, or a dataset is not plain numbers stored inside it.
    """
    import h5py

    try:
        handle = h5py.File(str(path), "r")
    except OSError as exc:
        raise CheckpointError(
            f"{path}: cannot open it as HDF5 ({read_reason(exc)}); expected a Keras weights file"
        ) from exc
    with handle:
        try:
            foreign = describe_keras_model(handle)
            if foreign is not None:
                raise CheckpointError(f"{path}: is {foreign}; {TAKEN}")
            yield _rename(_layers(handle, path), path)
        except (OSError, KeyError, RuntimeError, ValueError) as exc:
            raise CheckpointError(f"{path}: damaged HDF5 file ({read_reason(exc)}); copy it again") from exc


def swap_xy(weights: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Channels 0 and 1 of the heads exchanged, for networks trained with 'xy' indexing, whose first displacement is
    along axis 1.
    """
    order = [1, 0, 2]
    swapped = dict(weights)
    for name in weights:
        if name.split("/")[0] in HEADS:
            swapped[name] = np.ascontiguousarray(weights[name][..., order])
    return swapped


def _layers(handle: h5py.File, path: Path) -> Dict[str, Dict[str, h5py.Dataset]]:

    root = handle.get(_WEIGHTS_GROUP, default=handle) if _is_hard_link(handle, _WEIGHTS_GROUP) else handle
    layers: Dict[str, Dict[str, h5py.Dataset]] = {}
    _collect(root, path, 0, layers)
    return layers


def _collect(group: h5py.Group, path: Path, depth: int, layers: Dict[str, Dict[str, h5py.Dataset]]) -> None:
    """Enter the layers below a group; a model that is a layer of another model has its own group."""
    import h5py

    if not isinstance(group, h5py.Group) or len(group) > _MAX_LAYERS or depth > _MAX_DEPTH:
        raise CheckpointError(
            f"{path}: expected a group of at most {_MAX_LAYERS} layers, nested at most {_MAX_DEPTH} deep; this is not "
            "a VoxelMorph weights file"
        )
    for name in group:
        if not _is_hard_link(group, name) or not isinstance(group[name], h5py.Group):
            continue
        if not (_CONV.match(name) or _HEAD.match(name)):
            _collect(group[name], path, depth + 1, layers)
            continue
        variables = _variables(group[name], path, 0)
        if variables and name in layers:
            raise CheckpointError(f"{path}: has layer {name} twice; expected the weights of one network")
        if variables:
            layers[name] = variables


def _variables(group: h5py.Group, path: Path, depth: int) -> Dict[str, h5py.Dataset]:
    """kernel and bias below a layer's group, at any nesting of Keras."""
    import h5py

    if depth > _MAX_DEPTH or len(group) > _MAX_LAYERS:
        raise CheckpointError(
            f"{path}: layer {group.name} is nested too deeply or too widely; this is not a VoxelMorph weights file"
        )
    found: Dict[str, Any] = {}
    for name in group:
        if not _is_hard_link(group, name):
            raise CheckpointError(f"{path}: {group.name}/{name} is a link; expected the weights inside the file")
        entry = group[name]
        match = _VARIABLE.match(name)
        if isinstance(entry, h5py.Group):
            found.update(_variables(entry, path, depth + 1))
        elif match:
            found[match.group(1)] = _checked(entry, path)
    return found


def _is_hard_link(group: h5py.Group, name: str) -> bool:
    """Soft and external links could point to any file of this machine."""
    import h5py

    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def _checked(dataset: h5py.Dataset, path: Path) -> h5py.Dataset:
    elements = int(np.prod(dataset.shape, dtype=np.float64)) if dataset.shape else 1
    if dataset.dtype.kind != "f" or elements > _MAX_ELEMENTS:
        raise CheckpointError(
            f"{path}: {dataset.name} has dtype {dataset.dtype} and shape {dataset.shape}, "
            f"expected floating numbers, at most {_MAX_ELEMENTS} of them"
        )
    if dataset.external or getattr(dataset, "is_virtual", False):
        raise CheckpointError(
            f"{path}: {dataset.name} stores its numbers in another file; expected the weights inside this one"
        )
    return dataset


def _rename(layers: Dict[str, Dict[str, h5py.Dataset]], path: Path) -> Dict[str, h5py.Dataset]:
    matches = [(_CONV.match(name), name) for name in layers]
    convolutions = sorted((int(match.group(1) or 0), name) for match, name in matches if match)
    if not convolutions:
        raise CheckpointError(f"{path}: has no conv3d layers; expected a VoxelMorph weights file written by Keras")
    names = {name: conv_name(position) for position, (_, name) in enumerate(convolutions)}
    for name in layers:
        match = _HEAD.match(name)
        if match:
            head = match.group(1)
            if head in names.values():
                raise CheckpointError(f"{path}: has more than one {head} layer; expected one")
            names[name] = head
    return {f"{names[layer]}/{kind}": dataset for layer, kinds in layers.items() for kind, dataset in kinds.items()}
