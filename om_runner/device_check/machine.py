# SPDX-License-Identifier: Apache-2.0
"""The rung of facts: CANN, driver, ATC's Python, pyACL, chip and memory; what the other rungs need."""

from __future__ import annotations

import os
import platform
from typing import Any, Dict, Optional

from om_runner.device.measured import facts_of
from om_runner.device_check.climb import Climb
from vxm_convert.ascend.chips import DEFAULT_SOC, canonical, chip_of, is_first_910
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, FAILED, MEASURED, NOT_DONE, Point
from vxm_convert.errors import VxmError
from vxm_convert.toolchain import devices
from vxm_convert.toolchain.atc_python import NEEDED, find_atc_python
from vxm_convert.toolchain.doctor import installed_version
from vxm_convert.toolchain.find import Toolchain

_GIB = 1 << 30
#: the driver keeps some of the memory for itself
_MEMORY_SHARE = 0.85
_PACKAGES = ("numpy", "protobuf", "onnx", "openvino", "onnxruntime", "tensorflow")


def versions(toolchain: Optional[Toolchain]) -> Dict[str, Any]:
    """Versions that shape the results; no names of the machine."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": os.cpu_count(),
        "packages": {name: installed_version(name) for name in _PACKAGES},
        "driver": devices.driver_version(),
        "toolchain": None if toolchain is None else f"{toolchain.kind} {toolchain.version}",
    }


def facts(climb: Climb) -> None:
    """Every point is reported, also where an earlier one failed."""
    simulated = climb.simulated
    climb.emit(_driver_point(simulated))
    if climb.reason:
        climb.emit(Point("pyACL and device", FAILED, "a device that can be opened", climb.reason))
        return
    climb.emit(atc_python_point(climb.device.toolchain))
    device = climb.device
    found = facts_of(device.acl, device.number)
    climb.emit(Point("pyACL", MEASURED, "", f"started; devices: {found['count']}, this is number {device.number}"))
    climb.emit(chip_point(str(found["soc"]), climb.request.soc_version))
    climb.emit(_memory_point(found["memory"], str(found["soc"])))


def chip_of_device(acl: Any, number: int, wanted: Optional[str]) -> str:
    """The chip to compile for: the option, else the device's own name, where it is a known one."""
    if wanted:
        return wanted
    soc = str(facts_of(acl, number)["soc"])
    return soc if chip_of(soc) is not None else DEFAULT_SOC


def chip_point(soc: str, wanted: Optional[str]) -> Point:
    """The device's name against the chip that was asked for, and against the first 910."""
    name = "chip"
    if wanted and canonical(wanted) != canonical(soc) and not (is_first_910(wanted) and is_first_910(soc)):
        advice = (
            f"pass --soc-version {soc}, or another --device; a model runs only on the chip that it was compiled for"
        )
        return Point(name, FAILED, wanted, soc, "", advice)
    if not is_first_910(soc):
        advice = "operators, arithmetic and speeds of this chip were not predicted: send the archive"
        return Point(name, DIFFERS, "a first-generation 910", soc, "", advice)
    return Point(name, AS_PREDICTED, "a first-generation 910", soc)


def _memory_point(memory: Optional[Dict[str, int]], soc: str) -> Point:
    name, chip = "device memory", chip_of(soc)
    if memory is None:
        return Point(name, NOT_DONE, "", "acl.rt.get_mem_info gives no answer for this device")
    found = f"{memory['total'] / _GIB:.1f} GiB, {memory['free'] / _GIB:.1f} GiB free"
    if chip is None or chip.memory is None:
        return Point(name, MEASURED, "", found)
    most = chip.most_memory or chip.memory
    state = AS_PREDICTED if _MEMORY_SHARE * chip.memory <= memory["total"] <= most else DIFFERS
    return Point(name, state, f"up to {most / _GIB:.0f} GiB", found, "memory")


def _driver_point(simulated: bool) -> Point:
    version = devices.driver_version()
    if version is not None:
        return Point("driver", MEASURED, "", version)
    if simulated:
        return Point("driver", NOT_DONE, "", "SIMULATED: no driver is needed")
    return Point(
        "driver",
        FAILED,
        "driver/version.info",
        "no driver is installed, or the container does not see it",
        "",
        "install the driver; in a container mount /usr/local/Ascend/driver and /etc/ascend_install.info",
    )


def atc_python_point(toolchain: Toolchain) -> Point:
    """The Python in which ATC's operator compiler will run, and what it lacks."""
    name = "Python of ATC"
    if toolchain.simulated:
        return Point(name, NOT_DONE, "", "SIMULATED: the simulated ATC compiles no kernels")
    expected = f"python3 with {', '.join(NEEDED.values())}"
    python = find_atc_python(toolchain.environment)
    if python.problem:
        return Point(name, FAILED, expected, python.problem, "", "repair it, or put another python3 first on PATH")
    ours = " (this environment, which ATC takes when it is activated)" if python.ours else ""
    found = f"Python {python.version}{ours}"
    if python.faults:
        install = f"{python.path} -m pip install {' '.join(python.missing)}, or " if python.missing else ""
        advice = f"{install}make a Python for ATC with `make setup-atc` and put it first on PATH"
        return Point(name, FAILED, expected, f"{found}: {python.faults}", "", advice)
    return Point(name, AS_PREDICTED, expected, f"{found} has all of them")


def acl_of(toolchain: Toolchain) -> Any:
    """pyACL, or a ToolchainError that says why not and what to do."""
    try:
        return toolchain.load_acl()
    except VxmError:
        raise
    except Exception as exc:  # a library that the loader does not find shows as any kind of error
        raise VxmError(f"pyACL: {type(exc).__name__}: {exc}; source CANN's set_env.sh and start again") from exc
