# SPDX-License-Identifier: Apache-2.0
"""What is installed here, what is missing, what to do. Looks and never installs; imports none of the packages it looks for."""
from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from vxm_convert.errors import ToolchainError

FOUND = "found"
MISSING = "missing"
TENSORFLOW_VERSION = "1.15"

#: package → (module, what it is for); the ones that every run of om_runner needs come first
_NEEDED: Dict[str, Tuple[str, str]] = {
    "numpy": ("numpy", "arrays"), "scipy": ("scipy", "interpolation"), "nibabel": ("nibabel", "NIfTI and MGH volumes"),
    "protobuf": ("google.protobuf", "graph files"), "tqdm": ("tqdm", "progress"), "matplotlib": ("matplotlib", "pictures of the report"),
}
_ENGINES: Dict[str, Tuple[str, str]] = {
    "openvino": ("openvino", "engine of the simulated device"), "onnxruntime": ("onnxruntime", "runs vxm.onnx to check it"),
}
_EXPORT_ONLY: Dict[str, Tuple[str, str]] = {
    "onnx": ("onnx", "vxm.onnx"), "tf2onnx": ("tf2onnx", "vxm.onnx"), "h5py": ("h5py", "published Keras weights"),
}


@dataclass(frozen=True)
class Finding:
    """One row: `needed` marks what no run can do without."""

    subject: str
    state: str
    detail: str
    needed: bool = False


def examine() -> List[Finding]:
    """All findings, in the order of the table."""
    rows = [_python()]
    rows += [_package(name, *entry, needed=True) for name, entry in _NEEDED.items()]
    rows += [_package(name, *entry) for name, entry in _ENGINES.items()]
    rows += [_tensorflow(), _npu_bridge()]
    rows += [_package(name, *entry) for name, entry in _EXPORT_ONLY.items()]
    return rows + _toolchains()


def summary(rows: List[Finding]) -> List[str]:
    """One line per stage: can it run here?"""
    state = {row.subject: row.state == FOUND for row in rows}
    basics = can_register(rows)
    setup = "no: needs TensorFlow 1.15; run `make setup`"
    tensorflow = state["tensorflow"] and basics
    train = "yes, CPU (the NPU path comes with a later version)" if state["npu_bridge"] else "yes, CPU"
    export = "yes, with CANN's atc" if state["CANN"] else "yes, with the simulated atc"
    if not basics:
        runner = "no: packages are missing; run `make setup`"
    elif state["CANN"] and state["acl"]:
        runner = "yes, through CANN's pyACL"
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
    """True if nothing that every run needs is missing."""
    return not any(row.needed and row.state == MISSING for row in rows)


def installed_version(package: str) -> Optional[str]:
    """Version of an installed distribution by its metadata folder's name; importing it could cost seconds or print."""
    stem = package.replace("-", "_").lower()
    for entry in sys.path:
        folder = Path(entry or ".")
        for found in folder.glob("*-*.dist-info") if folder.is_dir() else ():
            name, _, version = found.name[: -len(".dist-info")].partition("-")
            if name.lower() == stem:
                return version
    return None


def _module_path(module: str) -> Optional[str]:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin or "namespace package"


def _python() -> Finding:
    return Finding("python", FOUND, f"{platform.python_version()} on {platform.machine()}, {sys.executable}", needed=True)


def _package(name: str, module: str, purpose: str, needed: bool = False) -> Finding:
    if _module_path(module) is None:
        return Finding(name, MISSING, f"{purpose}; run `make setup`, or `pip install {name}`", needed)
    return Finding(name, FOUND, f"{installed_version(name) or 'version unknown'}: {purpose}", needed)


def _tensorflow() -> Finding:
    if _module_path("tensorflow") is None:
        return Finding("tensorflow", MISSING, "train, export and --compare need 1.15 on Python 3.7; run `make setup`")
    version = installed_version("tensorflow") or installed_version("tensorflow-cpu") or installed_version("intel-tensorflow")
    if version is None or not version.startswith(TENSORFLOW_VERSION + "."):
        return Finding("tensorflow", MISSING, f"got {version or 'an unknown version'}, expected {TENSORFLOW_VERSION}.x; run `make setup`")
    return Finding("tensorflow", FOUND, f"{version}: training, export, the reference of the precision report")


def _npu_bridge() -> Finding:
    where = _module_path("npu_bridge")
    if where is None:
        return Finding("npu_bridge", MISSING, "comes with CANN's tfplugin; without it training runs on the CPU")
    return Finding("npu_bridge", FOUND, where)


def _toolchains() -> List[Finding]:
    from vxm_convert.toolchain import find_toolchain

    rows = []
    for subject, choice in (("CANN", "cann"), ("simulator", "sim")):
        try:
            toolchain = find_toolchain(choice)
        except ToolchainError as exc:
            rows.append(Finding(subject, MISSING, str(exc)))
            if choice == "cann":
                rows += [Finding("atc", MISSING, "part of CANN; the simulated one stands in"), Finding("acl", MISSING, _ACL_ADVICE)]
            continue
        rows.append(Finding(subject, FOUND, toolchain.version))
        if choice == "cann":
            rows += [Finding("atc", FOUND, " ".join(toolchain.atc_command)), _acl(toolchain)]
    return rows


_ACL_ADVICE = "part of CANN (pyACL); source its set_env.sh, or let the simulated one stand in"


def _acl(toolchain: object) -> Finding:
    paths = toolchain.environment.get("PYTHONPATH", "").split(":") + sys.path
    places = [Path(p) / name for p in paths if p for name in ("acl.so", "acl.py", "acl/__init__.py")]
    found = next((p for p in places if p.is_file()), None)
    return Finding("acl", MISSING, _ACL_ADVICE) if found is None else Finding("acl", FOUND, str(found))
