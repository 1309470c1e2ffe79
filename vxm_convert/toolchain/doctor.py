# SPDX-License-Identifier: Apache-2.0
"""Shows what is installed, what is missing, and what to do. Never installs; imports none of the packages it looks for."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from vxm_convert.errors import ToolchainError
from vxm_convert.toolchain import devices
from vxm_convert.toolchain.atc_python import find_atc_python
from vxm_convert.toolchain.cann_versions import too_old_for
from vxm_convert.toolchain.find import Toolchain

FOUND = "found"
MISSING = "missing"
TENSORFLOW_VERSION = "1.15"
#: distributions with the module; two of them overwrite each other's files
TENSORFLOW_BUILDS = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "intel-tensorflow")
REPORT_SCHEMA = 1

#: package → (module, purpose); those that every run of om_runner needs come first
_NEEDED: Dict[str, Tuple[str, str]] = {
    "numpy": ("numpy", "arrays"),
    "scipy": ("scipy", "interpolation"),
    "nibabel": ("nibabel", "NIfTI and MGH volumes"),
    "protobuf": ("google.protobuf", "graph files"),
    "tqdm": ("tqdm", "progress"),
    "matplotlib": ("matplotlib", "charts on pages"),
    "Jinja2": ("jinja2", "pages"),
}
_ENGINES: Dict[str, Tuple[str, str]] = {
    "openvino": ("openvino", "engine of the simulated device"),
    "onnxruntime": ("onnxruntime", "runs vxm.onnx to check it"),
}
_EXPORT_ONLY: Dict[str, Tuple[str, str]] = {
    "onnx": ("onnx", "vxm.onnx"),
    "tf2onnx": ("tf2onnx", "vxm.onnx"),
    "h5py": ("h5py", "published Keras weights"),
}


@dataclass(frozen=True)
class Finding:
    """One row; `needed` marks what every run needs."""

    subject: str
    state: str
    detail: str
    needed: bool = False


def examine(environ: Optional[Mapping[str, str]] = None, system: Path = Path("/")) -> List[Finding]:
    """All findings, in the order of the table.

    Parameters
    ----------
    environ : mapping or None — environment to look at; None is this process's.
    system : Path — root of the file system, for driver and device files.
    """
    environ = os.environ if environ is None else environ
    rows = [_python()]
    rows += [_package(name, *entry, needed=True) for name, entry in _NEEDED.items()]
    rows += [_package(name, *entry) for name, entry in _ENGINES.items()]
    rows += [_tensorflow(), _npu_bridge()]
    rows += [_package(name, *entry) for name, entry in _EXPORT_ONLY.items()]
    return rows + _toolchains(environ) + _hardware(environ, system)


def to_dict(rows: List[Finding]) -> Dict[str, Any]:
    """The table and its conclusions for programs."""
    stages = {line.split()[0]: line.split(None, 1)[1] for line in summary(rows)}
    return {
        "schema": REPORT_SCHEMA,
        "kind": "doctor",
        "rows": [asdict(row) for row in rows],
        "stages": stages,
        "can_register": can_register(rows),
    }


def summary(rows: List[Finding]) -> List[str]:
    """One line per stage: can it run here?"""
    state = {row.subject: row.state == FOUND for row in rows}
    basics = can_register(rows)
    setup = "no: needs TensorFlow 1.15; run `make setup`"
    tensorflow = state["tensorflow"] and basics
    train = "yes, NPU (untested on a device) or CPU" if state["npu_bridge"] else "yes, CPU"
    export = "yes, with CANN's atc" if state["CANN"] else "yes, with the simulated atc"
    if not basics:
        runner = "no: packages are missing; run `make setup`"
    elif state["CANN"] and state["acl"]:
        runner = "yes, through CANN's pyACL" + ("" if state.get("devices", True) else ", once a device can be reached")
    elif state["simulator"] and any(state[engine] for engine in _ENGINES):
        runner = "yes, on the simulated device"
    else:
        runner = "no: neither CANN nor an engine for the simulated device; run `make setup`"
    return [
        f"train        {train if tensorflow else setup}",
        f"export       {export if tensorflow else setup}",
        f"om_runner    {runner}",
    ]


def can_register(rows: List[Finding]) -> bool:
    """Whether everything that every run needs is installed."""
    return not any(row.needed and row.state == MISSING for row in rows)


def installed_version(package: str) -> Optional[str]:
    """Version of an installed distribution from its metadata folder's name; importing it could take seconds or print."""
    stem = package.replace("-", "_").lower()
    for entry in sys.path:
        folder = Path(entry or ".")
        for found in folder.glob("*-*.dist-info") if folder.is_dir() else ():
            name, _, version = found.name[: -len(".dist-info")].partition("-")
            if name.lower() == stem:
                return version
    return None


def tensorflow_builds() -> List[Tuple[str, str]]:
    """(distribution, version) of every installed TensorFlow; more than one is an error."""
    found = [(name, installed_version(name)) for name in TENSORFLOW_BUILDS]
    return [(name, version) for name, version in found if version is not None]


def _module_path(module: str) -> Optional[str]:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin or "namespace package"


def _python() -> Finding:
    return Finding(
        "python", FOUND, f"{platform.python_version()} on {platform.machine()}, {sys.executable}", needed=True
    )


def _package(name: str, module: str, purpose: str, needed: bool = False) -> Finding:
    if _module_path(module) is None:
        return Finding(name, MISSING, f"{purpose}; run `make setup`, or `pip install {name}`", needed)
    return Finding(name, FOUND, f"{installed_version(name) or 'version unknown'}: {purpose}", needed)


def _tensorflow() -> Finding:
    if _module_path("tensorflow") is None:
        return Finding("tensorflow", MISSING, "train, export and --compare need 1.15 on Python 3.7; run `make setup`")
    builds = tensorflow_builds()
    named = " and ".join(f"{name} {version}" for name, version in builds)
    if not builds or not all(version.startswith(TENSORFLOW_VERSION + ".") for _, version in builds):
        return Finding(
            "tensorflow",
            MISSING,
            f"got {named or 'an unknown version'}, expected {TENSORFLOW_VERSION}.x; run `make setup`",
        )
    if len(builds) > 1:
        return Finding(
            "tensorflow", MISSING, f"{named} overwrite each other's files; build the environment again with one of them"
        )
    return Finding("tensorflow", FOUND, f"{named}: training, export, the reference of the precision report")


def _npu_bridge() -> Finding:
    where = _module_path("npu_bridge")
    if where is None:
        return Finding(
            "npu_bridge",
            MISSING,
            "comes with CANN's tfplugin (Python 3.7.5 to 3.7.11); without it training runs on the CPU",
        )
    problem = devices.npu_bridge_problem()
    return (
        Finding("npu_bridge", FOUND, where)
        if problem is None
        else Finding("npu_bridge", MISSING, f"{where}: {problem}")
    )


def _toolchains(environ: Mapping[str, str]) -> List[Finding]:
    from vxm_convert.toolchain.find import find_toolchain

    rows = []
    for subject, choice in (("CANN", "cann"), ("simulator", "sim")):
        try:
            toolchain = find_toolchain(choice, environ)
        except ToolchainError as exc:
            rows.append(Finding(subject, MISSING, str(exc)))
            if choice == "cann":
                rows += [
                    Finding("atc", MISSING, "part of CANN; the simulated one takes its place"),
                    Finding("acl", MISSING, _ACL_ADVICE),
                ]
            continue
        if choice == "cann":
            rows += [Finding("CANN", FOUND, _cann_detail(toolchain)), _atc(toolchain)]
            rows += [_atc_python(toolchain)] if toolchain.atc_command else []
            rows += [_acl(toolchain)]
        else:
            rows.append(Finding(subject, FOUND, toolchain.version))
    return rows


def _cann_detail(toolchain: Toolchain) -> str:
    needs = too_old_for(toolchain.version, sys.version_info[:2])
    old = "".join(f"; {need.what} needs {need.minimum} or newer ({need.why})" for need in needs)
    unsure = "; no version file names the release" if toolchain.version == "unknown" else ""
    return f"{toolchain.version} at {toolchain.root}{unsure}{old}"


def _atc(toolchain: Toolchain) -> Finding:
    if not toolchain.atc_command:
        return Finding(
            "atc",
            MISSING,
            f"{toolchain.root} contains only the runtime; export on a machine with the toolkit, or with --toolchain "
            "sim",
        )
    return Finding("atc", FOUND, " ".join(toolchain.atc_command))


def _atc_python(toolchain: Toolchain) -> Finding:
    """The Python in which ATC's operator compiler will run, with what it lacks."""
    python = find_atc_python(toolchain.environment)
    return Finding("ATC's Python", MISSING if python.faults else FOUND, python.sentence)


_ACL_ADVICE = "part of CANN (pyACL); source its set_env.sh, or use the simulated one"


def _acl(toolchain: Toolchain) -> Finding:
    paths = list(toolchain.python_paths) + toolchain.environment.get("PYTHONPATH", "").split(":") + sys.path
    folders = [Path(path) for path in paths if path]
    found = next(
        (
            p
            for folder in folders
            for p in [*folder.glob("acl*.so"), folder / "acl/__init__.py", folder / "acl.py"]
            if p.is_file() and "shims" not in p.parts
        ),
        None,
    )
    return Finding("acl", MISSING, _ACL_ADVICE) if found is None else Finding("acl", FOUND, str(found))


def _hardware(environ: Mapping[str, str], system: Path) -> List[Finding]:
    """Driver, then one row per device; without `npu-smi`, from the device nodes."""
    version = devices.driver_version(system)
    rows = [
        Finding(
            "driver",
            MISSING,
            "no driver/version.info; needed only for om_runner on a device: install it from the vendor's package",
        )
        if version is None
        else Finding("driver", FOUND, version)
    ]
    chips, absent = devices.device_nodes(system)
    program = devices.find_npu_smi(environ, system)
    if program is None:
        nodes = f"; device nodes: {', '.join(chips)}" if chips else ""
        advice = "it comes with the driver; in a container mount /usr/local/bin/npu-smi"
        return rows + [Finding("devices", MISSING, f"no npu-smi: {advice}{nodes}")]
    found, problem = devices.list_devices(program)
    if not found:
        return rows + [
            Finding(
                "devices",
                MISSING,
                f"{program}: {problem}; check driver and firmware, and that your user is in HwHiAiUser",
            )
        ]
    listed = [
        f"{d.number}: {d.name} ({d.health}, {d.memory_mb or '?'} MB), --soc-version "
        + (d.soc_version or f"not said; npu-smi info -t board -i {d.place[0]} -c {d.place[1]} gives it")
        for d in found
    ]
    if chips and absent:
        listed.append(f"/dev/{', /dev/'.join(absent)} missing: pass them to the container")
    return rows + [Finding("devices", FOUND, "; ".join(listed))]
