# SPDX-License-Identifier: Apache-2.0
"""What a client acquired and never released, reported at ``acl.finalize``: one log line, or a warning per kind with
VXM_SIM_STRICT=1.
"""

from __future__ import annotations

from collections import Counter
from typing import List, Sequence

from vxm_convert.sim.acl.base.state import SIM, DeviceContext, log
from vxm_convert.sim.acl.memory.blocks import DEVICE, HOST, MEMORY

#: class of a handle's object → its name for a client; objects owned by others are not listed.
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
    """Record what is lost with a context that is closed; a context that was never destroyed is lost itself."""
    if context.streams:
        SIM.leaks.append(f"{len(context.streams)} streams of a context on device {context.device_id}")
    if not is_default:
        SIM.leaks.append(f"a context on device {context.device_id}")


def find_leaks(contexts: Sequence[DeviceContext]) -> List[str]:
    """Everything not released, as texts; `contexts` are those that the client created and did not destroy."""
    leaks = SIM.leaks + [f"a context on device {context.device_id}" for context in contexts]
    for place in (DEVICE, HOST):
        blocks = MEMORY.live(place)
        if blocks:
            leaks.append(f"{len(blocks)} blocks of {place} memory, {sum(b.size for b in blocks)} bytes")
    leaks += [f"model {model.name} (id {model_id})" for model_id, model in SIM.models.items()]
    counted = Counter(_KINDS.get(type(thing).__name__) for thing in list(SIM.handles.values()))
    return leaks + [f"{count} {kind}" for kind, count in sorted((k, n) for k, n in counted.items() if k is not None)]


def report_leaks(contexts: Sequence[DeviceContext]) -> None:
    """Report the leaks and clear them. A device releases everything when the process ends, so finalize succeeds anyway."""
    leaks = find_leaks(contexts)
    SIM.leaks = []
    if not leaks:
        return
    if SIM.strict:
        for leak in leaks:
            SIM.note(f"not released before acl.finalize: {leak}")
    else:
        log.info("simulated device: not released before acl.finalize: %s", "; ".join(leaks))
