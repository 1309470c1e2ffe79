# SPDX-License-Identifier: Apache-2.0
"""``python -m …`` without its start-up: a process that has loaded the large packages forks for every command.

TensorFlow alone takes two seconds of every start. The child runs a module or a text as ``python -m`` and ``python -c``
do and ends as any interpreter does, with its own folder, environment, standard streams and exit code; of the project
itself nothing is loaded before. Run as a program, this module is the process that forks: it reads one JSON object per
line.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 900
#: what is loaded before the first fork, where it is installed; none of them starts threads when it is imported
PACKAGES = ("tensorflow", "numpy", "scipy.ndimage", "nibabel", "google.protobuf.message", "h5py", "yaml")


class _Server:
    """The process that forks, as its user sees it."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            universal_newlines=True,
            start_new_session=True,
        )
        atexit.register(self.close)

    def run(self, argv: Sequence[str], cwd: str, environment: Dict[str, str]) -> subprocess.CompletedProcess:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.getpid()
            order = {
                "argv": list(argv),
                "cwd": cwd,
                "environment": environment,
                "out": f"/proc/{pid}/fd/{out.fileno()}",
                "err": f"/proc/{pid}/fd/{err.fileno()}",
            }
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], TIMEOUT_SECONDS)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(argv), TIMEOUT_SECONDS)
            code = int(self._process.stdout.readline())
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode("utf-8", "replace"))
        return subprocess.CompletedProcess(["python", *argv], code, *texts)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


_server: Optional[_Server] = None


def run_python(argv: Sequence[Any], cwd: Path, environment: Dict[str, str]) -> subprocess.CompletedProcess:
    """What ``python argv…`` gives in that folder and environment; the first word is ``-m`` or ``-c``."""
    global _server
    words = [str(word) for word in argv]
    if not Path("/proc/self/fd").is_dir():
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=str(cwd), env=environment, capture_output=True, text=True)
    if _server is None:
        _server = _Server()
    return _server.run(words, str(cwd), environment)


def _become(order: Dict[str, Any]) -> None:
    """Turn this process into the one that was asked for, up to its first line of Python."""
    for number, stream in ((1, "out"), (2, "err")):
        handle = os.open(order[stream], os.O_WRONLY | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    # The script's own folder gives way to the working folder, as with `python -m`; PYTHONPATH comes behind it.
    paths = order["environment"].get("PYTHONPATH", "")
    sys.path[:1] = [order["cwd"], *filter(None, paths.split(os.pathsep))]


def _serve() -> List[str]:
    """Fork for every order; returns in the child only, with its arguments."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    answers = os.fdopen(os.dup(1), "w")
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _become(order)
            return order["argv"]
        status = os.waitpid(child, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        answers.write(f"{code}\n")
        answers.flush()
    sys.exit(0)


def _run(way: str, what: str, words: List[str]) -> None:
    if way == "-m":
        sys.argv = [what, *words]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.argv = ["-c", *words]
    program = types.ModuleType("__main__")
    sys.modules["__main__"] = program
    exec(compile(what, "<string>", "exec"), program.__dict__)


if __name__ == "__main__":
    _way, _what, *_words = _serve()
    _run(_way, _what, _words)
