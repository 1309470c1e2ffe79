# SPDX-License-Identifier: Apache-2.0
"""The process that climbs: it may hang or die with the device, so the check itself never touches one.

Started as ``python -m om_runner.device_check.worker --request FILE --rungs a,b``. stdout carries one JSON object per
line: ``{"toolchain": {…}, "soc_version": …}`` first, then ``{"begin": rung}``, ``{"point": {…}}`` and ``{"end": rung,
"seconds": s}``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from om_runner.device.acl_runtime import acl_started
from om_runner.device_check.climb import Climb, Request
from om_runner.device_check.ladder import BY_NAME
from om_runner.device_check.machine import acl_of, chip_of_device, versions
from om_runner.device_check.sides import Device, Predictor, next_step
from vxm_convert.ascend.chips import DEFAULT_SOC, is_first_910
from vxm_convert.device_check.points import FAILED, NOT_DONE, Point
from vxm_convert.errors import VxmError
from vxm_convert.toolchain.find import Toolchain, find_toolchain

LOG = logging.getLogger(__name__)
Event = Dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="om_runner.device_check.worker", description="Climb rungs of a device check; started by device-check."
    )
    parser.add_argument("--request", required=True, type=Path, metavar="FILE", help="the request (no default)")
    parser.add_argument("--rungs", required=True, metavar="NAMES", help="rungs with commas between them (no default)")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Climb; 0 unless the process is killed."""
    args = build_parser().parse_args(argv)
    # The protocol uses the real stdout; libraries of a driver print to theirs, which goes to the log.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(event: Event) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    request = Request.from_dict(json.loads(args.request.read_text(encoding="utf-8")))
    climb_all(request, args.rungs.split(","), send)
    return 0


def climb_all(
    request: Request,
    rungs: Sequence[str],
    send: Callable[[Event], None],
    open_device: Callable[[Toolchain, int, str, Any], Device] = Device,
) -> None:
    """Open the device and climb the rungs in order, whatever happens in one of them.

    Parameters
    ----------
    send : callable — takes the events of the protocol.
    open_device : callable — (toolchain, device, chip, acl) → Device; tests put other chips there.
    """
    with ExitStack() as stack:
        toolchain, device, reason = _opened(request, stack, open_device)
        soc = request.soc_version or DEFAULT_SOC if device is None else device.soc_version
        described = None if toolchain is None else toolchain.describe()
        send({"toolchain": described, "soc_version": soc, "versions": versions(toolchain)})
        predictor = Predictor(find_toolchain("sim"), soc if is_first_910(soc) else DEFAULT_SOC)
        climb = Climb(request, lambda point: send({"point": asdict(point)}), device, predictor, reason)
        for name in rungs:
            send({"begin": name})
            started = time.monotonic()
            _climb(climb, name)
            send({"end": name, "seconds": time.monotonic() - started})


def _opened(
    request: Request, stack: ExitStack, open_device: Callable[[Toolchain, int, str, Any], Device]
) -> Tuple[Optional[Toolchain], Optional[Device], str]:
    """(toolchain, device, "") or what is missing, in words."""
    toolchain: Optional[Toolchain] = None
    try:
        toolchain = find_toolchain(request.toolchain)
        acl = acl_of(toolchain)
        stack.enter_context(acl_started(acl, "device-check"))
        soc = chip_of_device(acl, request.device, request.soc_version)
    except VxmError as exc:
        return toolchain, None, str(exc)
    return toolchain, open_device(toolchain, request.device, soc, acl), ""


def _climb(climb: Climb, name: str) -> None:
    if climb.reason and name != "facts":
        climb.emit(Point(name, NOT_DONE, "", "there is no device to run on, see facts"))
        return
    try:
        BY_NAME[name].climb(climb)
    except VxmError as exc:
        climb.emit(Point(f"{name}: stopped", FAILED, "no error", str(exc), "", next_step(exc)))
    except Exception as exc:  # a fault of ours in one rung must not hide the others
        LOG.exception("rung %s", name)
        advice = "report this with the archive: it is a fault of vxm_convert"
        climb.emit(Point(f"{name}: stopped", FAILED, "no error", f"{type(exc).__name__}: {exc}", "", advice))


if __name__ == "__main__":
    sys.exit(main())
