# SPDX-License-Identifier: Apache-2.0
"""The process that forks. Run as a program: ``python server.py SOCKET OWNER``.

It ends soon after the process OWNER does, and removes the folder of its socket.

Every connection is one command. Its first message holds the three standard streams as descriptors, then the order as
JSON; later bytes are numbers of signals for the command. The answer is ``+`` once the command is forked, then its exit
code as text; a connection that closes without ``+`` has started nothing. A caller that closes its connection early
kills its command. Whatever one caller does, the server goes on for the others.
"""

from __future__ import annotations

import array
import atexit
import compileall
import contextlib
import faulthandler
import gc
import importlib
import json
import multiprocessing.process
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any, Dict, Iterable, List

ROOT = Path(__file__).resolve().parents[3]
#: what is loaded before the first fork, where it is installed; none of them starts threads of its own when imported
PACKAGES = (
    "tensorflow",
    "numpy",
    "scipy.ndimage",
    "scipy.stats",
    "nibabel",
    "google.protobuf.message",
    "h5py",
    "yaml",
    "jinja2",
    "SimpleITK",
    "numba",
    "onnx",
    "tf2onnx",
    "openvino.runtime" if sys.version_info < (3, 8) else "openvino",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
    "matplotlib.backends.backend_agg",
)
#: our own, of which every module is loaded but those that are programs only
OURS = ("vxm_convert", "train", "export", "om_runner")
HEADER_BYTES = 8
_STREAMS = 3
_LOOK_SECONDS = 1.0
#: a caller that is stopped or killed while it sends its order holds up the others no longer than that
_ORDER_SECONDS = 10.0


def receive_order(connection: socket.socket, streams: List[int]) -> Dict[str, Any]:
    """The order at the start of a connection; the descriptors of the command's standard streams go into `streams`."""
    numbers = array.array("i")
    first, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(_STREAMS * numbers.itemsize))
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(content)
    streams.extend(numbers)
    with connection.makefile("rb") as stream:
        size = int.from_bytes(first + stream.read(HEADER_BYTES - 1), "big")
        order = json.loads(stream.read(size).decode())
    if len(streams) != _STREAMS:
        raise ValueError(f"{len(streams)} descriptors came with an order, {_STREAMS} belong to it")
    return order


class Server:
    """Forks for every order; `serve` returns in the children only, with the order."""

    def __init__(self, path: str, owner: int) -> None:
        self._path, self._owner = path, owner
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._running: Dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._wakeup = socket.socketpair()
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (self._listener, self._wakeup[0]):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> Dict[str, Any]:
        while True:
            if not _runs(self._owner):
                self._end()
            for key, _ in self._selector.select(_LOOK_SECONDS):
                if key.fileobj is self._wakeup[0]:
                    self._wakeup[0].recv(4096)
                    self._reap()
                elif key.fileobj is self._listener:
                    order = self._start(self._listener.accept()[0])
                    if order is not None:
                        return order
                elif key.data in self._running:
                    self._forward(key.data)

    def _start(self, connection: socket.socket) -> Any:
        """Fork; the order in the child, None in the server."""
        streams: List[int] = []
        connection.settimeout(_ORDER_SECONDS)
        try:
            order = receive_order(connection, streams)
            child = os.fork()
        except (OSError, ValueError):  # its caller has gone, or there is no room for one process more
            connection.close()
            child = None
        if child == 0:
            self._forget(connection)
            become(order, streams)
            return order
        for number in streams:
            os.close(number)
        if child is not None:
            with contextlib.suppress(OSError):  # it has done so itself, and may run another program by now
                os.setpgid(child, child)
            self._running[child] = connection
            self._selector.register(connection, selectors.EVENT_READ, child)
            self._answer(connection, b"+")
        return None

    def _forget(self, connection: socket.socket) -> None:
        """In the child: the server's sockets and handlers are not its own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        for source in (self._selector, self._listener, connection, *self._wakeup, *self._running.values()):
            source.close()

    def _forward(self, child: int) -> None:
        """Signals for a command; without any more of them its caller has gone."""
        connection = self._running[child]
        numbers = b""
        with contextlib.suppress(OSError):
            numbers = connection.recv(64)
        for number in numbers or bytes([signal.SIGKILL]):
            with contextlib.suppress(ProcessLookupError):  # it has ended, and is reaped next
                (os.killpg if number == signal.SIGKILL else os.kill)(child, number)
        if not numbers or signal.SIGKILL in numbers:
            self._selector.unregister(connection)

    @staticmethod
    def _answer(connection: socket.socket, text: bytes) -> None:
        with contextlib.suppress(OSError):  # its caller has gone
            connection.sendall(text)

    def _reap(self) -> None:
        while self._running:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            connection = self._running.pop(child)
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            with contextlib.suppress(KeyError):  # it was killed, and nothing more is read
                self._selector.unregister(connection)
            self._answer(connection, str(code).encode())
            connection.close()

    def _end(self) -> None:
        for child in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        shutil.rmtree(os.path.dirname(self._path), ignore_errors=True)
        sys.exit(0)


def _runs(process: int) -> bool:
    """Whether that process is there, whosever child it is."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def become(order: Dict[str, Any], streams: List[int]) -> None:
    """Turn this process into the one that was asked for, up to its first line of Python."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    # The script's own folder gives way to that of the command, as with `python -m`; PYTHONPATH comes behind it.
    folder = os.path.dirname(os.path.realpath(order["what"])) if order["way"] == "file" else order["cwd"]
    paths = order["environment"].get("PYTHONPATH", "")
    sys.path[:1] = [folder, *filter(None, paths.split(os.pathsep))]
    homes = [path for path in sys.path if os.path.isdir(os.path.join(path, OURS[0]))]
    if not homes or os.path.realpath(homes[0]) != str(ROOT):
        _keep_only_packages()
    multiprocessing.process.ORIGINAL_DIR = order["cwd"]  # type: ignore[attr-defined]
    for action in order["warnings"]:
        warnings.simplefilter(action)
        sys.warnoptions.append(action)


def run(way: str, what: str, words: List[str]) -> None:
    """As ``python -m what words…``, ``python -c what words…`` or ``python what words…``."""
    sys.argv = [what, *words]
    if way == "-m":
        if not hasattr(sys.modules.get(what), "__path__"):
            sys.modules.pop(what, None)  # a module that is run as a program is loaded anew
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    program = types.ModuleType("__main__")
    sys.modules["__main__"] = program
    if way == "-c":
        sys.argv[0] = "-c"
        source, name = what, "<string>"
    else:
        with open(what, "rb") as stream:
            source, name = stream.read(), what
        program.__file__ = what
    exec(compile(source, name, "exec"), program.__dict__)


def load() -> None:
    """Import everything that commands share; of the project all but what is a program, or needs a package that is not
    here.
    """
    sys.path.insert(0, str(ROOT))
    compiling = _compile_ours()
    from vxm_convert.lazy import silence_openvino

    silence_openvino()
    names = []
    for ours in OURS:
        for path in sorted((ROOT / ours).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] != "__main__" and "shims" not in parts:
                names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=rf"({'|'.join(OURS)})(\.|$)")
        _import_all(PACKAGES)
        os.waitpid(compiling, 0)
        _import_all(names)
    del sys.path[0]


def _import_all(names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(Exception):  # the command that needs it says what is wrong
            importlib.import_module(name)


def _compile_ours() -> int:
    """A process that writes the bytecode of the project, on a fresh checkout seconds of work, while packages load."""
    child = os.fork()
    if child == 0:
        if not sys.dont_write_bytecode:
            for ours in OURS:
                compileall.compile_dir(str(ROOT / ours), quiet=2)
        os._exit(0)
    return child


def _keep_only_packages() -> None:
    """For a command of another copy of the project: what was loaded of this one is forgotten."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]


def end(code: Any) -> None:
    """End as an interpreter does that leaves its memory to the system; taking 2,000 modules apart takes a second."""
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))


def main(path: str, owner: int) -> None:
    server = Server(path, owner)
    gc.disable()
    load()
    gc.collect()
    gc.freeze()  # what the children never collect stays shared with them
    gc.set_threshold(20000, 10, 10)
    gc.enable()
    order = server.serve()
    faulthandler.enable(sys.stderr)  # one that hangs says where, on SIGABRT
    try:
        run(order["way"], order["what"], order["words"])
    except SystemExit as exc:
        end(exc.code)
    except BaseException as exc:
        sys.excepthook(type(exc), exc, exc.__traceback__.tb_next)
        if isinstance(exc, KeyboardInterrupt) and sys.version_info >= (3, 8):
            sys.stderr.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        end(1)
    end(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
