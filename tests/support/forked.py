# SPDX-License-Identifier: Apache-2.0
"""``python -m …`` without its start-up: a process that has loaded the large packages and the project forks for every
command, and for the workers of a test run.

TensorFlow alone takes two seconds of every start, Matplotlib one, the project a half. `run_python` runs a module or a
text as ``python -m`` and ``python -c`` do; it ends as any interpreter does, with its own folder, environment, standard
streams and exit code. What such a command starts with the same interpreter (the reference, the conversion to ONNX, the
simulator's compiler) is forked as well, by the ``sitecustomize`` in ``forking/start``.

For new tests: take ``run_stage`` of ``tests.support.stages``, or `run_python` where the environment matters: it costs
a twentieth of a second before the command does anything. Where the code under test starts the processes itself, ask
for the fixture ``forked_commands``: ``pytestmark = pytest.mark.usefixtures("forked_commands")``. Take ``subprocess``
where the start or the end itself is tested: what is imported, a variable that the interpreter or a package reads when
it is loaded, processes that are killed or end without giving back what they hold. Every package and every kind of
process keeps a test with a start of its own.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, Dict, Iterator, Optional, Sequence

from tests.support.forking.start.sitecustomize import STARTED, VARIABLE, fits, order_of, settings_of

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 900
_START_SECONDS = 60
#: between its first two calls a server that starts refuses connections, and so does one that has ended
_REFUSED_SECONDS = 3
_STACK_SECONDS = 5
_FORKING = Path(__file__).resolve().parent / "forking"
#: variable with the name of the test run and the process that ends last in it
RUN = "VXM_TEST_RUN"
#: hashes of texts are those of the conversion to ONNX, which asks for them
HASH_SEED = "0"


class Server:
    """The process that forks, as its user sees it; the workers of a run share one."""

    def __init__(self, path: str, settings: Dict[str, str]) -> None:
        self._socket, self._settings = path, settings
        self._gone = False

    @classmethod
    def of_run(cls, run: str, owner: int) -> Server:
        """The one of a test run, which ends with its process `owner`; its first user starts it."""
        folder = os.path.join(tempfile.gettempdir(), f"vxm-fork-{run}")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["PYTHONHASHSEED"] = HASH_SEED
        server = cls(os.path.join(folder, "s"), settings_of(environment))
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            return server  # another worker has started it
        subprocess.Popen(
            [sys.executable, str(_FORKING / "server.py"), server._socket, str(owner)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        return server

    def environment(self, asked: Dict[str, str], **more: str) -> Dict[str, str]:
        """The asked one, with what lets the command's own commands be forked."""
        place = {"socket": self._socket, "python": sys.executable, "settings": self._settings, **more}
        paths = [str(_FORKING / "start"), asked.get("PYTHONPATH", "")]
        return {**asked, "PYTHONPATH": os.pathsep.join(filter(None, paths)), VARIABLE: json.dumps(place)}

    def wait_for_it(self) -> None:
        """Until it listens: interpreters that are to be forked start as always while nobody does."""
        self._connected().close()

    def run(self, argv: Sequence[str], cwd: str, asked: Dict[str, str]) -> subprocess.CompletedProcess:
        order = order_of(list(argv))
        environment = self.environment(asked)
        if order is None or not fits(self._settings, environment):
            return _start(argv, cwd, asked)
        order.update(cwd=cwd, environment=environment)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
            try:
                code = self._ask(order, [stream.fileno() for stream in (nothing, out, err)])
            except BaseException:
                print(_text_of(err), file=sys.stderr)  # noqa: T201
                raise
            if code is None:
                return _start(argv, cwd, asked)
            return subprocess.CompletedProcess(["python", *argv], code, _text_of(out), _text_of(err))

    def _ask(self, order: Dict[str, Any], streams: Sequence[int]) -> Optional[int]:
        """The exit code; None if nothing was started."""
        text = json.dumps(order).encode()
        size = len(text).to_bytes(8, "big")
        with contextlib.closing(self._connected()) as connection:
            try:
                connection.sendmsg([size[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))])
                connection.sendall(size[1:] + text)
                connection.settimeout(_START_SECONDS)
                if connection.recv(1) != STARTED:
                    return None
                connection.settimeout(None)
            except OSError:
                return None
            try:
                return self._answer(connection, [order["what"], *order["words"]])
            except BaseException:  # the time of the test may be over
                _end_with_its_stack(connection)
                raise

    @staticmethod
    def _answer(connection: socket.socket, command: Sequence[str]) -> int:
        if not select.select([connection], [], [], TIMEOUT_SECONDS)[0]:
            raise subprocess.TimeoutExpired(command, TIMEOUT_SECONDS)
        answer = connection.recv(16).decode()
        if not answer:
            raise RuntimeError(f"the process that forks ended while this ran: {command}")
        return int(answer)

    def _connected(self) -> socket.socket:
        """A connection, to nobody if the server is gone; it listens before it loads anything."""
        connection = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + _START_SECONDS
        while not self._gone:
            try:
                connection.connect(self._socket)
                return connection
            except OSError as exc:
                left = _START_SECONDS - _REFUSED_SECONDS if isinstance(exc, ConnectionRefusedError) else 0
                self._gone = time.monotonic() > end - left
                time.sleep(0.01)
        return connection


def _end_with_its_stack(connection: socket.socket) -> None:
    """End a command; where it hangs goes to its stream of errors."""
    with contextlib.suppress(OSError):
        connection.sendall(bytes([signal.SIGABRT]))
        select.select([connection], [], [], _STACK_SECONDS)


def _text_of(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")


_server: Optional[Server] = None


def _the_server() -> Server:
    global _server
    if _server is None:
        # Workers end at different times; the process that started them ends last, and its number is in what they know.
        run, owner = os.environ.get(RUN, f"alone {os.getpid()}").split()
        _server = Server.of_run(run, int(owner))
    return _server


@contextlib.contextmanager
def forked_workers(run: str) -> Iterator[None]:
    """While it lasts, interpreters that pytest-xdist starts are forked with everything loaded; what they start is not."""
    os.environ[RUN] = f"{run} {os.getpid()}"
    before = dict(os.environ)
    server = _the_server()
    server.wait_for_it()
    os.environ.update(server.environment(before, once=before.get("PYTHONPATH", "")))
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        os.environ["PYTHONPATH"] = before.get("PYTHONPATH", "")


def forking(environment: Dict[str, str]) -> Dict[str, str]:
    """That environment, changed so that every ``python -m …`` in it, or deeper, is forked where that is possible."""
    return _the_server().environment(environment) if sys.platform == "linux" else dict(environment)


def run_python(argv: Sequence[Any], cwd: Path, environment: Dict[str, str]) -> subprocess.CompletedProcess:
    """What ``python argv…`` gives in that folder and environment, without standard input."""
    words = [str(word) for word in argv]
    if sys.platform != "linux":
        return _start(words, str(cwd), environment)
    return _the_server().run(words, str(cwd), environment)


def _start(words: Sequence[str], cwd: str, environment: Dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
