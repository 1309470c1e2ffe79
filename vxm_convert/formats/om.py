# SPDX-License-Identifier: Apache-2.0
"""The `.om` container: 256-byte header, partition table, partitions. One table drives writing, reading and checking.

Layout as the open GE sources and files of the real ATC agree (docs/formats.md). Reads both widths of the partition
table: 32-bit (CANN up to 6.x) and 64-bit (newer). Offsets in the table count from its end; partitions follow each other
without gaps.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.artifacts.files import write_bytes
from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.formats import ge_ir, tasks
from vxm_convert.formats.gears import Gears, profiles_text, read_gears

log = logging.getLogger(__name__)

MAGIC = b"IMOD"
HEADER_SIZE = 256
#: first bytes of files that are taken for a model
_OTHER_KINDS = (
    (b"\n", "a frozen TensorFlow graph (pb)"),
    (b"PK\x03\x04", "a zip archive, such as a PyTorch file or an .npz"),
    (b"\x89HDF", "an HDF5 file, such as Keras weights"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x80", "a pickle, such as an old PyTorch file"),
    (b"\x08", "an ONNX model"),
)
HEADER_VERSION = 0x20000000
SIMULATED_PREFIX = "sim-"
MAX_NAME = 31
CHECKSUM_SIZE = 64

#: (field, dtype); offsets and meanings in docs/formats.md
HEADER = np.dtype(
    [
        ("magic", "S4"),
        ("headsize", "<u4"),
        ("version", "<u4"),
        ("checksum", "V64"),
        ("length", "<u4"),
        ("is_encrypt", "u1"),
        ("is_checksum", "u1"),
        ("modeltype", "u1"),
        ("genmode", "u1"),
        ("name", "S32"),
        ("ops", "<u4"),
        ("userdefineinfo", "V32"),
        ("om_ir_version", "<u4"),
        ("model_num", "<u4"),
        ("platform_version", "S20"),
        ("platform_type", "u1"),
        ("pad", "V3"),
        ("model_length", "<u8"),
        ("need_check_os_cpu_info", "u1"),
        ("is_unknow_model", "u1"),
        ("reserved", "V62"),
    ]
)

MODEL_DEF, WEIGHTS_DATA, TASK_INFO, TBE_KERNELS = 0, 1, 2, 3
PARTITION_NAMES = {
    0: "MODEL_DEF",
    1: "WEIGHTS_DATA",
    2: "TASK_INFO",
    3: "TBE_KERNELS",
    4: "CUST_AICPU_KERNELS",
    5: "SO_BINS",
    6: "FLOW_MODEL",
    7: "FLOW_SUBMODEL",
    8: "MODEL_INOUT_INFO",
    9: "STATIC_TASK_DESC",
    10: "DYNAMIC_TASK_DESC",
    11: "TASK_PARAM",
    12: "TILING_DATA",
    20: "PRE_MODEL_DESC",
    21: "PRE_MODEL_SQE",
    22: "PRE_KERNEL_ARGS",
    23: "PRE_MODEL_DESC_EXTEND",
    24: "BUNDLE_MODEL_VAR_INFO",
    25: "BUNDLE_MODEL_INFO",
    26: "CUSTOM_OPS",
}
MAX_PARTITIONS = 32
KERNEL_MAGIC = 0x5D776EFD
_KERNEL_HEAD = struct.Struct("<III")
WEIGHT_ALIGNMENT = 512
#: version field: models for servers, models for phones
_VERSIONS = (HEADER_VERSION, 0x10000000)
_MAX_MODEL_TYPE = 5


@dataclass(frozen=True)
class OmModel:
    """One offline model as read from a file or memory."""

    name: str
    model: ge_ir.Model
    weights: bytes
    partitions: Tuple[Tuple[str, int], ...]
    platform_version: str
    #: its gears; None: one shape (or, in a real file, gears in an unknown layout)
    gears: Optional[Gears] = None

    @property
    def graph(self) -> List[ge_ir.Op]:
        return self.model.ops

    @property
    def attrs(self) -> Dict[str, Any]:
        return self.model.attrs

    @property
    def simulated(self) -> bool:
        """Whether the simulated ATC made it, by the version attribute."""
        return _is_simulated(self.attrs)

    @property
    def soc_version(self) -> str:
        return str(self.attrs.get("soc_version", ""))


def _is_simulated(attrs: Dict[str, Any]) -> bool:
    return str(attrs.get("atc_version", "")).startswith(SIMULATED_PREFIX)


@dataclass(frozen=True)
class Overview:
    """Attributes, bytes per partition name and gears of a model, without reading its graph."""

    attrs: Dict[str, object]
    sizes: Dict[str, int]
    gears: str = ""


def write_om(path: Path, model: ge_ir.Model, kernels: Dict[str, bytes], platform_version: str) -> None:
    """Write a model with the four partitions of an offline model, in the order real files have.

    Constants go to WEIGHTS_DATA at 512-byte boundaries, in node order; constants that gears share are written once.
    Writing is atomic.
    """
    weights, offsets = _lay_out_weights(model.all_ops(), share=bool(model.branches))
    task_info = tasks.encode_tasks(model, len(weights))
    kernel_bytes = b"".join(_encode_kernel(name.encode(), binary) for name, binary in sorted(kernels.items()))
    model.attrs["weight_size"] = len(weights)
    model.attrs["om_info_list"] = [len(weights), len(kernel_bytes), 0, len(task_info)]
    body = ge_ir.encode_model(model, offsets)
    _write(
        path,
        model.name,
        platform_version,
        [(MODEL_DEF, body), (WEIGHTS_DATA, weights), (TBE_KERNELS, kernel_bytes), (TASK_INFO, task_info)],
    )


def write_original(path: Path, model: ge_ir.Model, platform_version: str) -> None:
    """Write an "original" model: MODEL_DEF alone, with the constants inside; it cannot run on a device."""
    _write(path, model.name, platform_version, [(MODEL_DEF, ge_ir.encode_model(model, {}))])


def _write(path: Path, name: str, platform_version: str, partitions: List[Tuple[int, bytes]]) -> None:
    payload = _encode_table(partitions) + b"".join(data for _, data in partitions)
    write_bytes(path, _sealed(_encode_header(name, len(payload), platform_version), payload))


def _encode_kernel(name: bytes, binary: bytes) -> bytes:
    return _KERNEL_HEAD.pack(KERNEL_MAGIC, len(name), len(binary)) + name + binary


def _lay_out_weights(ops: List[ge_ir.Op], share: bool) -> Tuple[bytes, Dict[str, int]]:
    chunks: List[bytes] = []
    offsets: Dict[str, int] = {}
    known: Dict[bytes, int] = {}
    position = 0
    for op in ops:
        if op.data is None:
            continue
        data = np.ascontiguousarray(op.data).tobytes()
        offsets[op.name] = known.setdefault(hashlib.sha256(data).digest(), position) if share else position
        if offsets[op.name] != position:
            continue
        gap = -len(data) % WEIGHT_ALIGNMENT
        chunks.append(data + bytes(gap))
        position += len(data) + gap
    return b"".join(chunks), offsets


def _encode_table(partitions: List[Tuple[int, bytes]]) -> bytes:
    table = struct.pack("<I", len(partitions))
    offset = 0
    for kind, data in partitions:
        table += struct.pack("<III", kind, offset, len(data))
        offset += len(data)
    return table


def _encode_header(name: str, length: int, platform_version: str) -> bytes:
    header = np.zeros((), HEADER)
    values = {
        "magic": MAGIC,
        "headsize": HEADER_SIZE,
        "version": HEADER_VERSION,
        "length": length,
        "is_checksum": 1,
        "name": name.encode()[:MAX_NAME],
        "om_ir_version": 2,
        "model_num": 1,
        "platform_version": platform_version.encode()[:19],
        "platform_type": 1,
    }
    for key, value in values.items():
        header[key] = value
    return bytes(header.tobytes())


def _sealed(header: bytes, payload: bytes) -> bytes:
    """The file with the sha256 of everything but the checksum field in that field. Real files leave the field empty."""
    start = HEADER.fields["checksum"][1]
    return header[:start] + _digest(header + payload) + header[start + CHECKSUM_SIZE :] + payload


def _digest(data: bytes) -> bytes:
    start = HEADER.fields["checksum"][1]
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(view[start + CHECKSUM_SIZE :])
    return digest.digest() + bytes(CHECKSUM_SIZE - digest.digest_size)


def read_om(path: Path) -> OmModel:
    """Read and check an `.om` file.

    Raises
    ------
    ArtifactError
        The file cannot be read.
    FormatError
        It is not an `.om`, is truncated or padded, or its partitions disagree with each other.
    """
    return parse_om(_read(path), str(path))


def read_model_def(path: Path) -> bytes:
    """Bytes of the MODEL_DEF partition of a file whose container is intact; raises as `read_om` does."""
    data = _read(path)
    _, table = _open(data, str(path))
    return _partition(data, table, MODEL_DEF)


def read_overview(path: Path) -> Overview:
    """Attributes and partition sizes, without checking the graph; raises as `read_om` does."""
    data = _read(path)
    _, table = _open(data, str(path))
    message = ge_ir.parse_message(_partition(data, table, MODEL_DEF), str(path))
    choosing = [op for graph in message.graph[:1] for op in graph.op if op.type == "Case"]
    gears = [profiles_text(ge_ir.message_attrs(op, str(path))) for op in choosing]
    sizes = {_partition_name(kind): size for kind, (_, size) in table.items()}
    return Overview(ge_ir.message_attrs(message, str(path)), sizes, "".join(gears[:1]))


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ArtifactError(
            f"{path}: cannot read the offline model ({exc.strerror}); make it with `python -m export`"
        ) from exc


def parse_om(data: bytes, where: str = "model in memory") -> OmModel:
    """`read_om` for bytes that are already in memory."""
    header, table = _open(data, where)
    weights, body = _partition(data, table, WEIGHTS_DATA), _partition(data, table, MODEL_DEF)
    # The model itself says who made it: the header may be damaged.
    ours = _is_simulated(ge_ir.message_attrs(ge_ir.parse_message(body, where), where)) or _claims_ours(header)
    _check_sum(data, header, ours, where)
    model = ge_ir.decode_model(body, weights, where, strict=ours)
    _check_kernels(_partition(data, table, TBE_KERNELS), where)
    if ours and TASK_INFO in table:
        tasks.check_tasks(_partition(data, table, TASK_INFO), where)
    partitions = tuple((_partition_name(kind), length) for kind, (_, length) in table.items())
    parsed = OmModel(_header_text(header, "name", where), model, weights, partitions, _platform(header))
    try:
        return replace(parsed, gears=read_gears(model, where))
    except FormatError:
        if parsed.simulated:
            raise
        log.info("%s: the real ATC stored its gears in an unknown layout, so they are ignored", where)
        return parsed


def _open(data: bytes, where: str) -> Tuple[np.void, Dict[int, Tuple[int, int]]]:
    """Header and partitions of an intact container that holds a model."""
    header = _check_header(data, where)
    _check_sum(data, header, _claims_ours(header), where)
    _check_models(header, where)
    table = _parse_table(data, header, where)
    if MODEL_DEF not in table:
        found = ", ".join(map(_partition_name, table))
        raise FormatError(f"{where}: has no MODEL_DEF partition, only {found}; this is not an executable offline model")
    return header, table


def _partition_name(kind: int) -> str:
    """A newer CANN may write partitions that are not in the table."""
    return PARTITION_NAMES.get(kind, f"PARTITION_{kind}")


def _partition(data: bytes, table: Dict[int, Tuple[int, int]], kind: int) -> bytes:
    """Bytes of a partition; empty if the file does not have it."""
    start, size = table.get(kind, (0, 0))
    return data[start : start + size]


def _check_kernels(data: bytes, where: str) -> None:
    """The kernels' partition is a row of (magic, name length, code length, name, code) that fills it exactly."""
    position = 0
    while position < len(data):
        if len(data) - position < _KERNEL_HEAD.size:
            raise FormatError(f"{where}: {len(data) - position} bytes after the last kernel, expected none")
        magic, name_length, code_length = _KERNEL_HEAD.unpack_from(data, position)
        if magic != KERNEL_MAGIC:
            raise FormatError(f"{where}: the kernel at {position} starts with {magic:#x}, expected {KERNEL_MAGIC:#x}")
        position += _KERNEL_HEAD.size + name_length + code_length
        if position > len(data):
            raise FormatError(f"{where}: a kernel ends at {position}, but its partition has {len(data)} bytes")


def _check_header(data: bytes, where: str) -> np.void:
    if data[:4] != MAGIC:
        kind = next((what for start, what in _OTHER_KINDS if data.startswith(start)), "another kind of file")
        raise FormatError(
            f"{where}: starts with {data[:4]!r}, expected {MAGIC!r}: this is {kind}, not an offline model; compile it "
            "with `python -m export`"
        )
    if len(data) < HEADER_SIZE + 4:
        raise FormatError(f"{where}: {len(data)} bytes, at least {HEADER_SIZE + 4} expected; copy or compile it again")
    header = np.frombuffer(data, HEADER, 1)[0]
    if int(header["headsize"]) != HEADER_SIZE:
        raise FormatError(f"{where}: header size {int(header['headsize'])}, expected {HEADER_SIZE}")
    length = int(header["model_length"]) or int(header["length"])
    if length + HEADER_SIZE != len(data):
        raise FormatError(
            f"{where}: the header announces {length + HEADER_SIZE} bytes, the file has {len(data)}; "
            "it is truncated or padded, copy or compile it again"
        )
    _check_kind(header, where)
    _header_text(header, "name", where)
    return header


def _check_kind(header: np.void, where: str) -> None:
    """Check the header's fields for the kind of model."""
    if int(header["version"]) not in _VERSIONS:
        raise FormatError(f"{where}: format version {int(header['version']):#x}, expected {HEADER_VERSION:#x}")
    if int(header["is_encrypt"]):
        raise FormatError(
            f"{where}: the model is encrypted, which this tool cannot open; compile it without encryption"
        )
    if int(header["modeltype"]) > _MAX_MODEL_TYPE:
        raise FormatError(f"{where}: model type {int(header['modeltype'])}, expected 0 to {_MAX_MODEL_TYPE}")


def _check_models(header: np.void, where: str) -> None:
    """One model per file; real files of CANN 20.2 do not count them."""
    count = int(header["model_num"])
    uncounted = count == 0 and not _claims_ours(header)
    if (count != 1 and not uncounted) or int(header["is_unknow_model"]):
        raise FormatError(f"{where}: holds {count} models (dynamic shapes), expected 1; compile with static shapes")


def _header_text(header: np.void, field: str, where: str) -> str:
    """A text of the header: UTF-8, terminated by a zero byte."""
    raw = bytes(header[field])
    if len(raw) == HEADER.fields[field][0].itemsize:
        raise FormatError(f"{where}: the header's {field} is not terminated by a zero byte")
    try:
        return raw.split(b"\0")[0].decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FormatError(f"{where}: the header's {field} is not UTF-8") from exc


def _platform(header: np.void) -> str:
    return bytes(header["platform_version"]).split(b"\0")[0].decode("ascii", "replace")


def _claims_ours(header: np.void) -> bool:
    return _platform(header).startswith(SIMULATED_PREFIX)


def _check_sum(data: bytes, header: np.void, ours: bool, where: str) -> None:
    """Files of the simulated ATC carry a checksum; in a real file, flag and field are zero, or the field holds a
    signature.
    """
    stored = bytes(header["checksum"])
    flagged = int(header["is_checksum"])
    if flagged not in (0, 1) or (ours and not flagged) or (not flagged and any(stored)):
        raise FormatError(
            f"{where}: checksum flag {flagged} and field disagree; the file is damaged, copy or compile it again"
        )
    if ours and stored != _digest(data):
        raise FormatError(
            f"{where}: its checksum differs from the one in its header; the file is damaged, copy or compile it again"
        )


def _parse_table(data: bytes, header: np.void, where: str) -> Dict[int, Tuple[int, int]]:
    """Partition type → (absolute start, size); the partitions must tile the rest of the file exactly."""
    wide = int(header["model_length"]) != 0
    head, entry = ("<II", "<IIQQ") if wide else ("<I", "<III")
    count = struct.unpack_from("<I", data, HEADER_SIZE)[0]
    start = HEADER_SIZE + struct.calcsize(head)
    if not 1 <= count <= MAX_PARTITIONS or start + count * struct.calcsize(entry) > len(data):
        raise FormatError(
            f"{where}: the table announces {count} partitions, expected 1 to {MAX_PARTITIONS} inside the file"
        )
    base = start + count * struct.calcsize(entry)
    table: Dict[int, Tuple[int, int]] = {}
    expected = 0
    for number in range(count):
        fields = struct.unpack_from(entry, data, start + number * struct.calcsize(entry))
        kind, offset, size = (fields[0], fields[2], fields[3]) if wide else fields
        if kind in table or (kind not in PARTITION_NAMES and _claims_ours(header)):
            raise FormatError(
                f"{where}: partition {number} has type {kind}, which is {'repeated' if kind in table else 'unknown'}"
            )
        if offset != expected or base + offset + size > len(data):
            raise FormatError(
                f"{where}: partition {_partition_name(kind)} is at {offset} with {size} bytes, expected offset "
                f"{expected} inside {len(data) - base} bytes"
            )
        table[kind] = (base + offset, size)
        expected = offset + size
    if base + expected != len(data):
        raise FormatError(f"{where}: {len(data) - base - expected} bytes follow the last partition, expected none")
    return table
