# SPDX-License-Identifier: Apache-2.0
"""The JSON files of ``acl.init`` and ``acl.mdl.set_dump``: limits of the format, and the sections that change
behaviour.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, NamedTuple, Optional

from vxm_convert.sim.acl.base.state import AclFailure
from vxm_convert.sim.acl.dumps.dump_files import DumpPlan, plan_from_section

_MAX_BYTES = 10 << 20
#: Levels of ``{`` and of ``[``, counted separately (vendor reference of aclInit).
_MAX_DEPTH = 10
_THREAD, _PROCESS = "0", "1"


class Configuration(NamedTuple):
    """The content of a configuration file.

    Parameters
    ----------
    errors_of_process : bool — ``err_msg_mode`` 1: acl.get_recent_err_msg gives messages of all threads.
    dump : DumpPlan or None — which tensors to write while models execute.
    """

    errors_of_process: bool = False
    dump: Optional[DumpPlan] = None


def read_configuration(path: str) -> Configuration:
    """Read and check a configuration file.

    Raises
    ------
    AclFailure
        100003 for a file that cannot be read or is too large, 100006 if it is not a JSON object or is nested too deep,
        100000 for a section with illegal values.
    """
    config = _read_object(path)
    mode = config.get("err_msg_mode", _THREAD)
    if mode not in (_THREAD, _PROCESS):
        raise AclFailure(
            100000, f'{path}: err_msg_mode is {mode!r}, expected "{_THREAD}" (thread) or "{_PROCESS}" (process)'
        )
    return Configuration(mode == _PROCESS, _dump_of(config, path))


def read_dump(path: str) -> Optional[DumpPlan]:
    """The dump section of a file; raises AclFailure as `read_configuration` does, also if there is no such section."""
    config = _read_object(path)
    if "dump" not in config:
        raise AclFailure(100000, f"{path}: has no section dump")
    return _dump_of(config, path)


def _dump_of(config: Dict[str, Any], path: str) -> Optional[DumpPlan]:
    if not config.get("dump"):
        return None
    try:
        return plan_from_section(config["dump"])
    except ValueError as exc:
        raise AclFailure(100000, f"{path}: dump: {exc}") from exc


def _read_object(path: str) -> Dict[str, Any]:
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise AclFailure(100003, f"{path}: more than {_MAX_BYTES} bytes")
        with open(path, encoding="utf-8") as handle:
            config = json.load(handle)
        depth = max(_depth(config, dict), _depth(config, list))
    except OSError as exc:
        raise AclFailure(100003, f"{path}: cannot read the configuration ({exc.strerror})") from exc
    except (ValueError, RecursionError) as exc:
        raise AclFailure(100006, f"{path}: not JSON ({exc})") from exc
    if depth > _MAX_DEPTH:
        raise AclFailure(100006, f"{path}: nested deeper than {_MAX_DEPTH} levels")
    if not isinstance(config, dict):
        raise AclFailure(100006, f"{path}: holds a {type(config).__name__}, expected an object")
    return config


def _depth(value: object, kind: type) -> int:
    """Depth of nesting of one kind of container."""
    if not isinstance(value, (dict, list)):
        return 0
    below = max([_depth(v, kind) for v in (value.values() if isinstance(value, dict) else value)] or [0])
    return below + isinstance(value, kind)
