# SPDX-License-Identifier: Apache-2.0
"""Numbers of the ACL interface that both the runner and the simulated device need: return codes and enumerations.

pyACL exports no constants, so each client must define them; this is the only place. Makes no calls. Sources: the public
pyACL reference (aclError, aclDataType, aclFormat) and the samples published with CANN.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional

import numpy as np

SUCCESS = 0


class Code(NamedTuple):
    """A return code: its name in the vendor's reference, and advice."""

    meaning: str
    do_this: str


_BUG = "this is a programming error in the caller; report it with the log"
_REEXPORT = "export the model again for this device with this CANN version"
_FREE_MEMORY = "close other programs on the device (npu-smi info shows them), use a smaller batch, or another device"
_DEVICE_LOG = (
    "check the device log (ascend/log/plog); if it happens again, reset the device (npu-smi set -t reset) or use "
    "another one"
)
_OPEN_ORDER = "open the runtime before using it, and use it from a thread that has set its context"
_UPGRADE = "the installed CANN does not offer this; install a newer one"

CODES: Dict[int, Code] = {
    # acl, 1xxxxx: the caller's fault
    100000: Code("invalid parameter", _BUG),
    100001: Code("ACL is not initialised", _OPEN_ORDER),
    100002: Code("ACL is initialised already", "initialise once per process"),
    100003: Code("invalid file", "check that the file is a complete .om; copy or export it again"),
    100006: Code("file cannot be parsed", "check the JSON file given to acl.init"),
    100011: Code("invalid model id", _BUG),
    100013: Code("model cannot be parsed", _REEXPORT),
    100016: Code("the model lacks an attribute", _REEXPORT),
    100017: Code("inputs do not match the model", "check the model against its contract.json"),
    100018: Code("outputs do not match the model", "check the model against its contract.json"),
    100019: Code("the model is not dynamic", "use the model's static shape"),
    100033: Code("stream is subscribed already", _BUG),
    100034: Code("stream is not subscribed", _BUG),
    100035: Code("thread is not subscribed", _BUG),
    100036: Code("no callback arrived in time", "wait longer, or check that the callback was launched"),
    100037: Code("ACL is finalised already", "finalise once per process"),
    # acl, 2xxxxx and 3xxxxx: resources
    200000: Code("memory cannot be allocated", _FREE_MEMORY),
    200001: Code("the interface is not supported here", _UPGRADE),
    200002: Code("invalid device", "choose a device id that npu-smi info lists"),
    300000: Code("storage over its limit", "free space where CANN writes its logs and dumps"),
    # acl, 5xxxxx: internal
    500000: Code("unknown internal error", _DEVICE_LOG),
    500001: Code("internal failure of ACL", _DEVICE_LOG),
    500002: Code("internal failure of the graph engine", _DEVICE_LOG),
    500003: Code("internal failure of the runtime", _DEVICE_LOG),
    500004: Code(
        "internal failure of the driver", "check that the driver runs (npu-smi info) and matches this CANN version"
    ),
    # graph engine
    145000: Code(
        "invalid parameter for the model",
        "check buffer sizes against the model; .om and contract.json must be from the same export",
    ),
    145001: Code("the model executor is not initialised", _OPEN_ORDER),
    145002: Code("invalid model path", "check that the .om exists and can be read"),
    145003: Code("no model with that id is loaded", _BUG),
    145006: Code("wrong size of the model data", "the .om is truncated or damaged; copy or export it again"),
    145011: Code("invalid address of a dynamic input", _BUG),
    145012: Code("invalid length of a dynamic input", _BUG),
    145013: Code("invalid dynamic batch size", "use a batch the model was compiled for"),
    245000: Code("memory for the model cannot be allocated", _FREE_MEMORY),
    545000: Code("internal error of the graph engine", _DEVICE_LOG),
    545001: Code("the model cannot be loaded", _REEXPORT),
    545601: Code("execution of the model timed out", _DEVICE_LOG),
    # runtime
    107000: Code("invalid parameter for the runtime", _BUG),
    107001: Code("invalid device id", "choose a device id that npu-smi info lists; ids start at 0"),
    107002: Code("no context in this thread", _OPEN_ORDER),
    107003: Code("the stream belongs to another context", _BUG),
    107012: Code("no stream is subscribed for this thread", "call acl.rt.subscribe_report before process_report"),
    107017: Code("invalid handle", _BUG),
    107019: Code("waiting timed out", _DEVICE_LOG),
    207000: Code("the feature is not supported", _UPGRADE),
    207001: Code("out of device memory", _FREE_MEMORY),
    207018: Code("the device reports out of memory", _FREE_MEMORY),
    507000: Code("internal error of the runtime", _DEVICE_LOG),
    507011: Code("execution of the model failed", _DEVICE_LOG),
    507012: Code("no callback arrived in time", "wait longer, or check that the callback was launched"),
    507014: Code("an AI core timed out", _DEVICE_LOG),
    507015: Code("an AI core raised an exception", _DEVICE_LOG),
    507018: Code("an AI CPU raised an exception", _DEVICE_LOG),
    507033: Code(
        "the device cannot be opened",
        "check with npu-smi info that the driver runs and the device is free, and that you may read /dev/davinci*",
    ),
    507046: Code("the stream did not finish in time", _DEVICE_LOG),
    507899: Code(
        "internal error of the driver", "check that the driver runs (npu-smi info) and matches this CANN version"
    ),
}

#: aclDataType number → NumPy dtype (if NumPy has it)
DTYPES: Dict[int, np.dtype] = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float16),
    2: np.dtype(np.int8),
    3: np.dtype(np.int32),
    4: np.dtype(np.uint8),
    6: np.dtype(np.int16),
    7: np.dtype(np.uint16),
    8: np.dtype(np.uint32),
    9: np.dtype(np.int64),
    10: np.dtype(np.uint64),
    11: np.dtype(np.float64),
    12: np.dtype(np.bool_),
}
DTYPE_UNDEFINED = -1

#: aclFormat name → number
FORMATS: Dict[str, int] = {
    "NCHW": 0,
    "NHWC": 1,
    "ND": 2,
    "NC1HWC0": 3,
    "FRACTAL_Z": 4,
    "HWCN": 16,
    "NDHWC": 27,
    "FRACTAL_NZ": 29,
    "NCDHW": 30,
    "NDC1HWC0": 32,
    "FRACTAL_Z_3D": 33,
}
FORMAT_UNDEFINED = -1

# aclrtMemcpyKind
HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = range(4)
# aclrtMemMallocPolicy
MALLOC_HUGE_FIRST = 0


def describe_code(code: int) -> Code:
    """Meaning and advice for a return code, also for an unknown one."""
    return CODES.get(code, Code("an unknown return code", "look it up in the aclError page of your CANN version"))


def acl_dtype(dtype: np.dtype) -> int:
    """aclDataType number of a NumPy dtype, -1 if ACL has none."""
    wanted = np.dtype(dtype)
    return next((number for number, known in DTYPES.items() if known == wanted), DTYPE_UNDEFINED)


def numpy_dtype(number: int) -> Optional[np.dtype]:
    """NumPy dtype of an aclDataType number, None if NumPy has none."""
    return DTYPES.get(number)


def format_name(number: int) -> str:
    """Name of an aclFormat number."""
    return next((name for name, known in FORMATS.items() if known == number), f"format {number}")
