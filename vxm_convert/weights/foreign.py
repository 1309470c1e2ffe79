# SPDX-License-Identifier: Apache-2.0
"""Identifies a file that was passed as a checkpoint and that export cannot read. Reads only its first bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from vxm_convert.errors import FormatError

if TYPE_CHECKING:
    import h5py

#: the files that export accepts, for the end of every message
TAKEN = "pass a TensorFlow 1 checkpoint of the cvpr2018 or miccai2018 network, or its Keras .h5 file"
#: the answer for files that nothing is known of
UNKNOWN = "a file of another kind"
_TF2_CLASSES = ("VxmDense", "VxmDenseSemiSupervisedSeg", "VxmDensePairwise", "VxmAffine", "HyperVxmDense")
_MAX_CONFIG_BYTES = 16 << 20
_HEAD_BYTES = 64


def describe_file(path: Path) -> Optional[str]:
    """The kind of an existing file or folder without a checkpoint of ours; None if unknown."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "a SavedModel folder; its variables are the checkpoint `variables/variables` inside it"
        return None
    try:
        with open(str(path), "rb") as handle:
            head = handle.read(_HEAD_BYTES)
    except OSError:
        return None
    return _by_first_bytes(path, head)


def refuse_foreign_graph(path: Path) -> None:
    """Refuse a file that is passed as a frozen graph and is known to be something else; raises FormatError."""
    what = None if path.suffix.lower() == ".pb" else describe_file(path)
    if what not in (None, UNKNOWN):
        raise FormatError(f"{path}: is {what}; expected a frozen graph (.pb)")


def _by_first_bytes(path: Path, head: bytes) -> str:
    suffix = path.suffix.lower()
    if suffix in (".pt", ".pth", ".ckpt", ".bin") and head.startswith((b"PK\x03\x04", b"\x80")):
        return (
            "a PyTorch file; VoxelMorph's PyTorch networks have other layers and cannot be converted: train one with "
            "`python -m train`"
        )
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        named = suffix in (".h5", ".hdf5", ".keras")
        return "a Keras .h5 file" if named else "an HDF5 file; give it the suffix .h5 if it holds Keras weights"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive (.npz, .keras or PyTorch)"
    if suffix == ".onnx":
        return "an ONNX model, which is what the export writes"
    if suffix == ".om" or head.startswith(b"IMOD"):
        return "an offline model, which is what the export writes; pass it to `python -m om_runner --model`"
    if suffix == ".pb":
        return "a frozen graph; `python -m export preflight --pb` checks it, but the export starts from its checkpoint"
    if head.startswith(b"\x1f\x8b") or suffix in (".tar", ".gz", ".tgz"):
        return "a compressed archive; unpack it first"
    return UNKNOWN


def describe_keras_model(handle: h5py.File) -> Optional[str]:
    """The description of an open HDF5 file that holds a network of VoxelMorph's TensorFlow 2 code.

    Parameters
    ----------
    handle : h5py.File

    Returns
    -------
    str or None — None for a file without such a description.
    """
    text = handle.attrs.get("model_config", "")
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    if len(text) > _MAX_CONFIG_BYTES:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = config.get("class_name") if isinstance(config, dict) else None
    layers = [str(layer) for layer in handle.get("model_weights", {})]
    if name in _TF2_CLASSES or any(layer.startswith("vxm_dense") for layer in layers):
        return (
            f"a network of VoxelMorph's TensorFlow 2 code (class {name or 'VxmDense'}); it has other layers (pooling "
            "instead of strides) and cannot be converted"
        )
    return None
