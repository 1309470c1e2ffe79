# SPDX-License-Identifier: Apache-2.0
"""A replacement for the ``acl`` module of CANN: the same calls, on a device that this machine's CPU simulates.

``acl.rt``, ``acl.mdl``, ``acl.media``, ``acl.prof`` and ``acl.util`` are attributes, as in the C extension, and no constants are
exported. Settings come from the environment when ``acl.init`` is called: VXM_SIM_DEVICES (number of devices, default
1), VXM_SIM_MEMORY (bytes of memory per device, default 32 GiB), VXM_SIM_SOC (chip, default Ascend910A) and
VXM_SIM_STRICT=1 (refuse what a device may refuse and this one normally only warns about, report leaks), VXM_SIM_SPEED
(0.001 to 1: speed of executions, 1 is that of this CPU) and VXM_SIM_FAULT (see `vxm_convert.sim.faults`).
"""

from __future__ import annotations

import types as _types
from typing import List as _List
from typing import NoReturn as _NoReturn

from vxm_convert.sim.acl import runtime as _runtime
from vxm_convert.sim.acl.base import hostutil as _hostutil
from vxm_convert.sim.acl.base.args import functions_of as _functions_of
from vxm_convert.sim.acl.dumps import dumping as _dumping
from vxm_convert.sim.acl.memory import blocks as _memory
from vxm_convert.sim.acl.memory import dataset as _dataset
from vxm_convert.sim.acl.memory import tensordesc as _tensordesc
from vxm_convert.sim.acl.models import describe as _describe
from vxm_convert.sim.acl.models import execute as _execute
from vxm_convert.sim.acl.models import gears as _gears
from vxm_convert.sim.acl.models import loading as _model
from vxm_convert.sim.acl.models import prof as _prof
from vxm_convert.sim.acl.streams import callbacks as _callbacks
from vxm_convert.sim.acl.streams import events as _events
from vxm_convert.sim.acl.streams import stream as _streams

# Importing a module adds its calls to the table.
_SUBJECTS = (
    _runtime,
    _streams,
    _events,
    _callbacks,
    _memory,
    _model,
    _describe,
    _dataset,
    _tensordesc,
    _gears,
    _execute,
    _dumping,
    _prof,
    _hostutil,
)


def _namespace(prefix: str) -> _types.ModuleType:
    module = _types.ModuleType("acl." + prefix, f"Calls of acl.{prefix}, on a simulated device.")
    module.__dict__.update(_functions_of(prefix))
    return module


rt, mdl, prof, util = _namespace("rt"), _namespace("mdl"), _namespace("prof"), _namespace("util")
#: memory only
media = _namespace("media")
globals().update(_functions_of(""))
_API = sorted(_functions_of("")) + ["mdl", "media", "prof", "rt", "util"]


#: Parts of the real module that inference on volumes does not need: single operators, video, matrix libraries.
_ABSENT = ("op", "himpi", "blas", "fv")


def _no_pictures(name: str) -> _NoReturn:
    raise AttributeError(
        f"module 'acl.media' has no attribute {name!r}: it is not simulated, of acl.media only dvpp_malloc and dvpp_free are; run "
        "this program on an Ascend device"
    )


media.__dict__["__getattr__"] = _no_pictures


def __getattr__(name: str) -> _NoReturn:
    if name in _ABSENT:
        raise AttributeError(
            f"module 'acl' has no attribute {name!r}: acl.{name} is not simulated; run this program on an Ascend device"
        )
    raise AttributeError(f"module 'acl' has no attribute {name!r}")


def __dir__() -> _List[str]:
    return sorted(_API + [name for name in globals() if name.startswith("__")])
