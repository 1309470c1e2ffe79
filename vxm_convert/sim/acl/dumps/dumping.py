# SPDX-License-Identifier: Apache-2.0
"""Dumping on request of the running program: models that are loaded between `set_dump` and `finalize_dump` are dumped."""

from __future__ import annotations

from vxm_convert.sim.acl.base.args import INIT, call
from vxm_convert.sim.acl.base.state import SIM, AclFailure
from vxm_convert.sim.acl.dumps.config import read_dump


@call("mdl.init_dump", needs=INIT)
def init_dump() -> None:
    if SIM.dump_ready:
        raise AclFailure(100000, "acl.mdl.init_dump has been called already")
    if SIM.dump is not None:
        raise AclFailure(100000, "acl.init was given a dump configuration already")
    SIM.dump_ready = True


@call("mdl.set_dump", "s", needs=INIT)
def set_dump(path: str) -> None:
    if not SIM.dump_ready:
        raise AclFailure(100000, "call acl.mdl.init_dump first")
    SIM.dump = read_dump(path)


@call("mdl.finalize_dump", needs=INIT)
def finalize_dump() -> None:
    if not SIM.dump_ready:
        raise AclFailure(100000, "acl.mdl.init_dump has not been called")
    SIM.dump, SIM.dump_ready = None, False
    for model in list(SIM.models.values()):
        model.dumper = None
