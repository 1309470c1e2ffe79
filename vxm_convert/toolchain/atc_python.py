# SPDX-License-Identifier: Apache-2.0
"""The Python that ATC will use: its operator compiler is a Python package of CANN, and runs in whatever Python it finds.

Source: GE's `py_decouple.cc`: the process's own interpreter, else the `python3` on PATH; then that version's libpython. So
an activated environment of this project becomes ATC's Python. The packages are those of CANN's manual (instg_0045) and of
the imports of 8.1's `tbe`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Mapping, Optional, Tuple

#: module → package; those that 8.1's tbe imports at once come first
NEEDED = {
    "numpy": "numpy",
    "decorator": "decorator",
    "sympy": "sympy",
    "psutil": "psutil",
    "attr": "attrs",
    "cffi": "cffi",
    "scipy": "scipy",
    "pathlib2": "pathlib2",
}
#: oldest NumPy of CANN's manual
NUMPY = (1, 19, 2)
_SECONDS = 60
_PROBE = """
import importlib, importlib.util, json, sys
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
try:
    numpy = importlib.import_module("numpy").__version__
except Exception:
    numpy = ""
print(json.dumps({"version": sys.version.split()[0], "prefix": sys.prefix, "missing": missing, "numpy": numpy}))
"""


@dataclass(frozen=True)
class AtcPython:
    """What was found.

    Parameters
    ----------
    path : str — the interpreter; empty if there is no python3 on PATH.
    version : str
    missing : tuple of str — packages that it does not have.
    numpy : str — version of its NumPy; empty if it has none.
    ours : bool — it is the environment in which this program runs.
    problem : str — why it could not be asked; empty if it could.
    """

    path: str
    version: str = ""
    missing: Tuple[str, ...] = ()
    numpy: str = ""
    ours: bool = False
    problem: str = ""

    @property
    def faults(self) -> str:
        """What ATC will lack, in words; empty if nothing."""
        if self.problem:
            return self.problem
        words = [f"it has no {', '.join(self.missing)}"] if self.missing else []
        if self.numpy and _numbers(self.numpy) < NUMPY:
            words.append(f"its numpy is {self.numpy}, CANN wants {'.'.join(map(str, NUMPY))} or newer")
        return "; ".join(words)

    @property
    def sentence(self) -> str:
        """One line for a person."""
        if not self.path:
            return self.problem
        whose = ", the environment of this program" if self.ours else ""
        return f"{self.path}, Python {self.version or 'unknown'}{whose}" + (f": {self.faults}" if self.faults else "")


def find_atc_python(environ: Mapping[str, str]) -> AtcPython:
    """Ask the `python3` on PATH of ATC's environment for its version and packages; starts it once.

    Parameters
    ----------
    environ : mapping — the complete environment of the compiler's process.
    """
    path = shutil.which("python3", path=environ.get("PATH", ""))
    if path is None:
        return AtcPython("", problem="no python3 on PATH: ATC's operator compiler will not start")
    try:
        done = subprocess.run(
            [path, "-c", _PROBE, *NEEDED],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )
        found = json.loads(done.stdout.decode("utf-8", "replace") or "{}")
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        return AtcPython(path, problem=f"it cannot be run ({exc})")
    if not isinstance(found, dict) or "version" not in found:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return AtcPython(path, problem=f"it ended with {done.returncode}: {words[-1] if words else 'no words'}")
    return AtcPython(
        path,
        str(found["version"]),
        tuple(NEEDED[name] for name in found["missing"] if name in NEEDED),
        str(found["numpy"]),
        os.path.realpath(str(found["prefix"])) == os.path.realpath(sys.prefix) and sys.prefix != sys.base_prefix,
    )


def _numbers(version: str) -> Tuple[int, ...]:
    parts = version.split(".")[:3]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def warning_of(python: AtcPython) -> Optional[str]:
    """What to tell before ATC starts; None if there is nothing to say."""
    if python.faults:
        return (
            f"ATC's operator compiler will run in {python.sentence}; make a Python for it (`make setup-atc`) and put it "
            "first on PATH, or install the packages there"
        )
    if python.ours:
        return f"ATC's operator compiler will run in {python.sentence}"
    return None
