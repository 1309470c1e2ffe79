# SPDX-License-Identifier: Apache-2.0
"""The TASK_INFO partition: domi.ModelTaskDef for the device's scheduler. We write a minimal one and check only the
encoding when reading.

Field numbers of `Ascend/metadef: proto/task.proto` (Apache-2.0).
"""

from __future__ import annotations

from vxm_convert.errors import FormatError
from vxm_convert.formats.ge_ir import Model
from vxm_convert.formats.protobuf import build_messages, parse

_MESSAGES = build_messages(
    "domi",
    {
        "ModelTaskDef": [
            (1, "version", "string"),
            (10, "task", "TaskDef*"),
            (11, "memory_size", "uint64"),
            (12, "stream_num", "uint32"),
            (13, "event_num", "uint32"),
            (14, "weight_size", "uint64"),
        ],
        "TaskDef": [(1, "id", "uint32"), (2, "type", "uint32"), (10, "stream_id", "uint32")],
    },
)
#: Nodes without a task: inputs, outputs, and nodes that the compiler resolves.
_NO_TASK = ("Data", "Const", "NetOutput", "Reshape", "Case")
#: A task that launches a kernel.
_KERNEL = 0


def encode_tasks(model: Model, weight_size: int) -> bytes:
    """One kernel task per operator, in order, on one stream."""
    message = _MESSAGES["ModelTaskDef"](
        memory_size=int(model.attrs.get("memory_size", 0)),
        stream_num=int(model.attrs.get("stream_num", 1)),
        event_num=int(model.attrs.get("event_num", 0)),
        weight_size=weight_size,
    )
    for number in range(sum(op.type not in _NO_TASK for op in model.all_ops())):
        message.task.add(id=number, type=_KERNEL, stream_id=0)
    return bytes(message.SerializeToString(deterministic=True))


def check_tasks(data: bytes, where: str) -> int:
    """Number of tasks; raises FormatError if the partition is not a ModelTaskDef or a task runs on a missing stream."""
    message = parse(_MESSAGES["ModelTaskDef"], data, where)
    streams = max(message.stream_num, 1)
    if message.HasField("stream_num") and any(task.stream_id >= streams for task in message.task):
        raise FormatError(f"{where}: TASK_INFO has a task on a stream above {streams - 1}")
    return len(message.task)
