# SPDX-License-Identifier: Apache-2.0
"""Descriptions of weights for `inspect`: TensorFlow checkpoints (without TensorFlow) and Keras HDF5 files."""

from __future__ import annotations

from pathlib import Path
from typing import List

from vxm_convert.errors import FormatError, ToolchainError
from vxm_convert.inspection.description import Description, OpLine
from vxm_convert.text import read_reason
from vxm_convert.weights.foreign import describe_keras_model


def describe_checkpoint(path: Path) -> Description:
    """A checkpoint by its index: variables, dtypes, shapes; whether its data files exist and are long enough."""
    from vxm_convert.formats.tf_checkpoint import INDEX_SUFFIX, read_index

    index = read_index(path)
    prefix = path.name[: -len(INDEX_SUFFIX)]
    facts = [("variables", f"{len(index.entries)}, {sum(entry.nbytes for entry in index.entries)} bytes")]
    for shard in range(index.shards):
        data = path.with_name(f"{prefix}.data-{shard:05d}-of-{index.shards:05d}")
        need = max([entry.offset + entry.nbytes for entry in index.entries if entry.shard == shard] or [0])
        if not data.is_file():
            facts.append(("data", f"{data.name} is MISSING: copy it beside the index"))
        else:
            size = data.stat().st_size
            facts.append(
                ("data", f"{data.name}, {size} bytes" + ("" if size >= need else f": CUT OFF, {need} expected"))
            )
    ops = tuple(OpLine(entry.name, _group(entry.name), (), (entry.dtype,), (entry.shape,)) for entry in index.entries)
    return Description("TensorFlow checkpoint", tuple(facts), ops, "tensors")


def _group(name: str) -> str:
    """Last part of a variable's name: kernel, bias, Adam, …"""
    return name.rpartition("/")[2].rstrip("0123456789_") or name


def describe_h5(path: Path) -> Description:
    """A Keras file; raises ToolchainError if h5py is missing."""
    try:
        import h5py
    except ImportError as exc:
        raise ToolchainError(
            f"{path}: reading HDF5 needs the package h5py, which is not installed; run `make setup`"
        ) from exc
    ops: List[OpLine] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            ops.append(OpLine(name, _group(name).partition(":")[0], (), (str(item.dtype),), (tuple(item.shape),)))

    try:
        with h5py.File(str(path), "r") as handle:
            handle.visititems(visit)
            said = {key: handle.attrs[key] for key in ("keras_version", "backend") if key in handle.attrs}
            foreign = describe_keras_model(handle)
    except (OSError, RuntimeError, KeyError, ValueError) as exc:
        raise FormatError(f"{path}: not a readable HDF5 file ({read_reason(exc)}); copy it again") from exc
    facts = [
        (key.replace("_version", ""), value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
        for key, value in said.items()
    ]
    facts += [("network", foreign)] if foreign else []
    return Description("HDF5 weights (Keras)", tuple(facts), tuple(ops), "tensors")
