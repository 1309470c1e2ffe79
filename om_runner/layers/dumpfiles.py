# SPDX-License-Identifier: Apache-2.0
"""Finds the dump file of every operator in a folder, and returns its tensors in the shape of the framework's graph."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Sequence

import numpy as np

from om_runner.layers.matching import Layer
from vxm_convert.errors import ContractError, FormatError
from vxm_convert.formats.dump import Dump, parse_dump_name, plain_name
from vxm_convert.formats.fractal import unpack_feature_map
from vxm_convert.formats.ge_ir import Desc

_BLOCKED = ("NDC1HWC0", "NC1HWC0")
_MAPPING = "mapping.csv"
_MAX_MAPPING_BYTES = 16 << 20


def index_dumps(folder: Path, layers: Sequence[Layer], some: bool = True) -> Dict[str, Path]:
    """Operator of the model → its dump file, of one execution anywhere below `folder`.

    Parameters
    ----------
    some : bool — whether there must be a file at all; a device writes none for an operator without a task, such as
        Reshape.

    Raises
    ------
    ContractError
        If there is no dump file, or there are files of several executions or of another model.
    """
    known = {plain_name(layer.op): layer.op for layer in layers}
    if len(known) != len({layer.op for layer in layers}):
        raise ContractError(
            f"{folder}: two operators of the model have the same name in dump files, where / and . become _; rename a "
            "node"
        )
    found: Dict[str, Path] = {}
    strangers = []
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and not path.name.startswith(".")]
    renamed = _renamed(files)
    for path in files:
        try:
            name = parse_dump_name(renamed.get(path, path.name)).op_name
        except FormatError:
            continue
        if name not in known:
            strangers.append(name)
            continue
        if known[name] in found:
            folders = f"{found[known[name]].parent} and {path.parent}"
            raise ContractError(
                f"{folder}: contains two dumps of {known[name]} ({folders}); pass the folder of one execution"
            )
        found[known[name]] = path
    if strangers:
        raise ContractError(
            f"{folder}: is the dump of another model: {len(strangers)} operators are not in this one, such as "
            f"{strangers[0]}; pass the dump of this .om, or the .om of this dump"
        )
    if some and not found:
        raise ContractError(
            f"{folder}: contains no dump file of this model, expected <OpType>.<op_name>.<task>.<stream>.<16 digits>"
        )
    return found


def _renamed(files: Sequence[Path]) -> Dict[Path, str]:
    """File → its real name, from the ``mapping.csv`` of its folder: a device gives numbers to files whose names would be
    too long, as those of fused operators are.
    """
    found: Dict[Path, str] = {}
    for path in files:
        if path.name != _MAPPING:
            continue
        if path.stat().st_size > _MAX_MAPPING_BYTES:
            raise FormatError(f"{path}: more than {_MAX_MAPPING_BYTES} bytes; this is no list of renamed dumps")
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            short, comma, name = line.partition(",")
            if comma:
                found[path.with_name(Path(short.strip()).name or _MAPPING)] = name.strip()
    return found


def dumped_tensor(dump: Dump, layer: Layer, where: str) -> np.ndarray:
    """The output of a layer, in logical shape and the device's dtype.

    Raises
    ------
    ContractError
        If the dump is of another operator, or its dtype or shape differs from the model.
    FormatError
        If its layout cannot be unpacked.
    """
    if plain_name(dump.op_name) != plain_name(layer.op):
        raise ContractError(
            f"{where}: is a dump of {dump.op_name}, its file name says {layer.op}; the dump is not of this model"
        )
    if layer.output >= len(dump.outputs):
        has = f"{len(dump.outputs)} outputs"
        raise ContractError(
            f"{where}: contains {has}, output {layer.output} is needed; dump with dump_mode output or all"
        )
    data, desc = dump.outputs[layer.output].data, layer.desc
    # NumPy has no bf16: the reader of dumps gives the fp32 numbers of the same value.
    dtype = "float32" if desc.dtype == "bfloat16" else desc.dtype
    if data.dtype.name != dtype or data.shape != tuple(desc.shape):
        raise ContractError(
            f"{where}: output {layer.output} is {data.dtype.name} {data.shape}, the model says {desc.dtype} "
            f"{tuple(desc.shape)}; "
            "the dump is of another model"
        )
    return logical(data, desc, where)


def logical(data: np.ndarray, desc: Desc, where: str = "tensor") -> np.ndarray:
    """Storage form → the shape of the framework's graph; dtype unchanged."""
    if desc.layout in _BLOCKED:
        return unpack_feature_map(data, desc.logical_shape, first=desc.logical_layout in ("NCHW", "NCDHW"))
    if tuple(desc.logical_shape) == tuple(data.shape):
        return data
    raise FormatError(
        f"{where}: stored as {desc.layout} {tuple(desc.shape)}, which this reader cannot turn into {desc.logical_shape}"
    )
