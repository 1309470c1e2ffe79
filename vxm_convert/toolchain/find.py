# SPDX-License-Identifier: Apache-2.0
"""The only place that decides between CANN and the simulated toolchain. Starts nothing, changes no environment.

CANN is found by its folders, in every layout since 20.x, and its environment is set up here, so that compiling works
without sourcing `set_env.sh`.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Mapping, Optional, Tuple

import vxm_convert
from vxm_convert.errors import ToolchainError
from vxm_convert.toolchain.cann_versions import arch_folders, newest_first, read_version
from vxm_convert.toolchain.driver import driver_libraries

CHOICES = ("auto", "cann", "sim")
CHOICE_VARIABLE = "VXM_TOOLCHAIN"

_ROOT_VARIABLES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH", "ASCEND_NNAE_HOME", "ASCEND_NNRT_HOME")
_ARCH_FOLDER = platform.machine() + "-linux"
# Newest layout first; below a root such as /usr/local/Ascend/ascend-toolkit/latest.
_ATC_PLACES = ("bin/atc", "compiler/bin/atc", "atc/bin/atc", _ARCH_FOLDER + "/bin/atc")
_PYTHON_PLACES = (
    "python/site-packages",
    "pyACL/python/site-packages",
    "pyACL/python/site-packages/acl",
    "fwkacllib/python/site-packages",
)
_LIBRARY_PLACES = (
    "lib64",
    "lib64/plugin/opskernel",
    "lib64/plugin/nnengine",
    "compiler/lib64",
    "atc/lib64",
    "fwkacllib/lib64",
    "acllib/lib64",
    "opp/built-in/op_impl/ai_core/tbe/op_tiling/lib/linux/" + platform.machine(),
)
_COMPILER_PYTHON_PLACES = (
    "python/site-packages",
    "compiler/python/site-packages",
    "atc/python/site-packages",
    "atc/python/site-packages/te",
    # up to 5.0: the tuners are separate packages
    "atc/python/site-packages/auto_tune.egg/auto_tune",
    "atc/python/site-packages/schedule_search.egg",
    "opp/built-in/op_impl/ai_core/tbe",
    "opp/op_impl/built-in/ai_core/tbe",
)
_BINARY_PLACES = (
    "bin",
    "compiler/bin",
    "compiler/ccec_compiler/bin",
    "atc/bin",
    "atc/ccec_compiler/bin",
    _ARCH_FOLDER + "/bin",
    _ARCH_FOLDER + "/ccec_compiler/bin",
)
#: root of the file system
_SYSTEM = Path("/")
_MAX_STARTER = 1 << 16


@dataclass(frozen=True)
class Toolchain:
    """A compiler and a device runtime that belong together.

    Parameters
    ----------
    kind : str — ``cann`` or ``simulator``.
    version : str — CANN's version, or ``sim-…``.
    atc_command : tuple of str — argv prefix; empty if only the runtime is installed.
    environment : dict — complete environment for the compiler's process.
    root : Path or None — CANN's folder.
    python_paths : tuple of str — folders with the `acl` module.
    """

    kind: str
    version: str
    atc_command: Tuple[str, ...]
    environment: Dict[str, str] = field(repr=False)
    root: Optional[Path] = None
    python_paths: Tuple[str, ...] = ()

    @property
    def simulated(self) -> bool:
        return self.kind == "simulator"

    def sentence(self) -> str:
        """One line for a person: which toolchain this is, and whether a device takes part."""
        if self.simulated:
            return f"SIMULATED toolchain {self.version}: no Ascend device takes part in these results"
        return f"REAL toolchain, CANN {self.version} in {self.root}: these results come from an Ascend device"

    def describe(self) -> Dict[str, Any]:
        """What side-cars and reports record."""
        return {
            "kind": self.kind,
            "version": self.version,
            "simulated": self.simulated,
            "root": str(self.root) if self.root else None,
        }

    def load_acl(self) -> ModuleType:
        """The `acl` module, real or simulated.

        Raises
        ------
        ToolchainError
            If CANN's module cannot be imported into this Python.
        """
        if self.simulated:
            return importlib.import_module("vxm_convert.sim.acl.module")
        for path in reversed(self.python_paths):
            if path not in sys.path:
                sys.path.insert(0, path)
        try:
            module = importlib.import_module("acl")
        except Exception as exc:  # a binary module may raise anything, including SystemError
            raise ToolchainError(
                f"pyACL: cannot import acl from {', '.join(self.python_paths) or 'PYTHONPATH'} into Python "
                f"{platform.python_version()} "
                f"({exc}); run `source {self.root}/set_env.sh` and start again, with a Python this CANN supports"
            ) from exc
        if _is_ours(str(getattr(module, "__file__", "") or "")):
            raise ToolchainError(
                "pyACL: the acl on PYTHONPATH is the simulated one, but CANN was requested; remove it from PYTHONPATH"
            )
        return module


def find_toolchain(choice: Optional[str] = None, environ: Optional[Mapping[str, str]] = None) -> Toolchain:
    """Find CANN, or the simulator.

    Parameters
    ----------
    choice : str or None — ``cann``, ``sim``, ``auto`` (CANN if it is found, else the simulator); None reads
        $VXM_TOOLCHAIN.
    environ : mapping or None — environment to look at; None is this process's.

    Raises
    ------
    ToolchainError
        For an unknown choice, or if CANN was requested and is not found (lists the searched folders).
    """
    environ = os.environ if environ is None else environ
    choice = choice or environ.get(CHOICE_VARIABLE) or "auto"
    if choice not in CHOICES:
        raise ToolchainError(
            f"toolchain: got {choice!r}, expected one of {', '.join(CHOICES)}; correct --toolchain or "
            f"${CHOICE_VARIABLE}"
        )
    if choice == "sim":
        return _simulator(environ)
    roots = _candidate_roots(environ)
    for root in roots:
        found = _cann_at(root, environ)
        if found is not None:
            return found
    if choice == "cann":
        looked = ", ".join(str(r) for r in roots)
        raise ToolchainError(
            f"CANN: not found; looked for {_ATC_PLACES[0]} (and older layouts) and for pyACL below {looked}, and for "
            "atc on PATH; "
            f"install the CANN toolkit, set ASCEND_TOOLKIT_HOME to it, or pass --toolchain sim"
        )
    return _simulator(environ)


def _simulator(environ: Mapping[str, str]) -> Toolchain:
    # Product code must not reach the package as a whole, so it is imported here and not above.
    version = importlib.import_module("vxm_convert.sim.engine.rewrites.settings").named(environ)
    environment = dict(environ)
    package_root = str(Path(vxm_convert.__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = _joined([package_root], environ.get("PYTHONPATH", ""))
    return Toolchain("simulator", version, (sys.executable, "-m", "vxm_convert.sim.atc"), environment)


def _candidate_roots(environ: Mapping[str, str]) -> List[Path]:
    """Folders that may contain CANN, most explicit first, each once."""
    roots = [Path(environ[name]) for name in _ROOT_VARIABLES if environ.get(name)]
    roots += _roots_from_path(environ)
    for home in [Path("/usr/local/Ascend")] + ([Path(environ["HOME"]) / "Ascend"] if environ.get("HOME") else []):
        roots.append(home / "cann")
        roots += newest_first(_listed(home, "cann-[0-9]*"))
        for product in ("ascend-toolkit", "nnae", "nnrt"):
            roots.append(home / product / "latest")
            roots += newest_first(_listed(home / product, "[0-9]*"))
        roots += [home / "latest", home]
    # Up to 20.x everything was in a folder per processor, not always with a link `latest`.
    deeper = [
        [root] + [folder for pattern in arch_folders() for folder in sorted(_listed(root, pattern))] for root in roots
    ]
    return list(dict.fromkeys(root for family in deeper for root in family))


def _listed(folder: Path, pattern: str) -> List[Path]:
    try:
        return [path for path in folder.glob(pattern) if path.is_dir()]
    except OSError:
        return []


def _roots_from_path(environ: Mapping[str, str]) -> List[Path]:
    atc = shutil.which("atc", path=environ.get("PATH", ""))
    if atc is None:
        return []
    roots = []
    for path in dict.fromkeys((str(Path(atc)), str(Path(atc).resolve()))):
        # bin/atc is also the end of compiler/bin/atc: the longest match determines the root.
        for place in sorted(_ATC_PLACES, key=len, reverse=True):
            if path.endswith("/" + place):
                roots.append(Path(path[: -len(place) - 1]))
                break
    # Another program may be called atc: check that the one on PATH looks like CANN.
    return [root for root in roots if os.path.isdir(str(root / "opp")) or read_version(root) != "unknown"]


def _cann_at(root: Path, environ: Mapping[str, str]) -> Optional[Toolchain]:
    atc = next((root / p for p in _ATC_PLACES if _is_real_atc(root / p)), None)
    python_paths = tuple(str(root / p) for p in _PYTHON_PLACES if _has_acl(root / p))
    if atc is None and not python_paths:
        return None
    return Toolchain(
        "cann", read_version(root), (str(atc),) if atc else (), _cann_environment(root, environ), root, python_paths
    )


def _is_real_atc(path: Path) -> bool:
    """Whether it is an executable that does not start our own simulator."""
    # os.path.isfile, unlike Path.is_file on 3.7, treats a folder it may not enter like one without the file.
    if not (os.path.isfile(str(path)) and os.access(str(path), os.X_OK)):
        return False
    try:
        with open(str(path), "rb") as handle:
            return b"vxm_convert" not in handle.read(_MAX_STARTER)
    except OSError:
        return True


def _has_acl(folder: Path) -> bool:
    return any(not _is_ours(str(p)) for p in list(folder.glob("acl*.so")) + list(folder.glob("acl/__init__.py")))


def _is_ours(path: str) -> bool:
    return bool(path) and str(Path(vxm_convert.__file__).resolve().parent) in str(Path(path).resolve())


def _cann_environment(root: Path, environ: Mapping[str, str]) -> Dict[str, str]:
    """The exports of CANN's own `set_env.sh` for folders that exist at this root, before existing values."""
    environment = dict(environ)
    environment.update(
        {"ASCEND_TOOLKIT_HOME": str(root), "ASCEND_HOME_PATH": str(root), "ASCEND_AICPU_PATH": str(root)}
    )
    if os.path.isdir(str(root / "opp")):
        environment["ASCEND_OPP_PATH"] = str(root / "opp")
    if os.path.isdir(str(root / "toolkit")):
        environment["TOOLCHAIN_HOME"] = str(root / "toolkit")
    libraries, driver = _existing(root, _LIBRARY_PLACES), driver_libraries(environ, _SYSTEM)
    libraries += driver["driver"]
    if not driver["hal"]:
        # On a host without a driver, stubs take its place.
        libraries += _existing(root, (_ARCH_FOLDER + "/devlib", "devlib"))
    environment["LD_LIBRARY_PATH"] = _joined(libraries, environ.get("LD_LIBRARY_PATH", ""))
    environment["PYTHONPATH"] = _joined(_existing(root, _COMPILER_PYTHON_PLACES), environ.get("PYTHONPATH", ""))
    environment["PATH"] = _joined(_existing(root, _BINARY_PLACES), environ.get("PATH", ""))
    return environment


def _existing(root: Path, places: Tuple[str, ...]) -> List[str]:
    return [str(root / place) for place in places if os.path.isdir(str(root / place))]


def _joined(first: List[str], rest: str) -> str:
    return os.pathsep.join(list(dict.fromkeys(first + [p for p in rest.split(os.pathsep) if p])))
