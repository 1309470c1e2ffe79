# SPDX-License-Identifier: Apache-2.0
"""What a client acquired and never gave back, told at ``acl.finalize``: a line of the log, with VXM_SIM_STRICT=1 a
warning per kind.
"""

from __future__ import annotations

from collections import Counter
from typing import List, Sequence

from vxm_convert.sim.acl.base.state import SIM, DeviceContext, log
from vxm_convert.sim.acl.memory.blocks import DEVICE, HOST, MEMORY

#: class of a handle's object → what a client calls it; those that other objects own are not listed.
_KINDS = {
    "Stream": "streams",
    "Event": "events",
    "Dataset": "datasets",
    "DataBuffer": "data buffers",
    "Description": "model descriptions",
    "LoadConfig": "load configurations",
    "ProfileConfig": "profiling configurations",
}


def note_context(context: DeviceContext, is_default: bool = False) -> None:
    """Remember what is lost with a context that is being closed; one that nobody destroyed is lost itself."""
    if context.streams:
        SIM.leaks.append(f"{len(context.streams)} streams of a context on device {context.device_id}")
    if not is_default:
        SIM.leaks.append(f"a context on device {context.device_id}")


def find_leaks(contexts: Sequence[DeviceContext]) -> List[str]:
    """Everything left over, as texts; `contexts` are those that the client made and did not destroy."""
    leaks = SIM.leaks + [f"a context on device {context.device_id}" for context in contexts]
    for place in (DEVICE, HOST):
        blocks = MEMORY.live(place)
        if blocks:
            leaks.append(f"{len(blocks)} blocks of {place} memory, {sum(b.size for b in blocks)} bytes")
    leaks += [f"model {model.name} (id {model_id})" for model_id, model in SIM.models.items()]
    counted = Counter(_KINDS.get(type(thing).__name__) for thing in list(SIM.handles.values()))
    return leaks + [f"{count} {kind}" for kind, count in sorted((k, n) for k, n in counted.items() if k is not None)]


def report_leaks(contexts: Sequence[DeviceContext]) -> None:
    """Say it and forget it. A device gives everything back when the process ends, so finalize succeeds all the same."""
    leaks = find_leaks(contexts)
    SIM.leaks = []
    if not leaks:
        return
    if SIM.strict:
        for leak in leaks:
            SIM.note(f"not given back before acl.finalize: {leak}")
    else:
        log.info("simulated device: not given back before acl.finalize: %s", "; ".join(leaks))
