# SPDX-License-Identifier: Apache-2.0
"""Commands that are forked end, speak and are stopped as those that an interpreter of their own runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from tests.support import forked
from tests.support.forked import ROOT, run_python
from tests.support.forking.start.sitecustomize import VARIABLE, order_of, settings_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are forked on Linux only")

_ENDS = {
    "nothing": "pass",
    "a number": "import sys; sys.exit(300)",
    "words": "import sys; sys.exit('why it ended')",
    "none": "raise SystemExit(None)",
    "an error": "print('said before'); raise ValueError('wrong')",
    "a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('later'))).start()",
    "an exit handler": "import atexit; atexit.register(print, 'at the end')",
    "a signal": "import os; os.kill(os.getpid(), 9)",
    "its surroundings": "import os, sys; print(sys.argv, os.getcwd(), os.environ['MINE'], sys.stdin.read(), __name__)",
}
#: starts another interpreter that says that it runs, and stops it
_STOPPER = """
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
)
child.stdout.readline()
child.send_signal(int(sys.argv[1]))
print(child.wait(timeout=30), len(child.stdout.read()))
"""
_STARTER = """
import subprocess, sys
done = subprocess.run(
    [sys.executable, *sys.argv[1:]], input=b"[1]", stdout=subprocess.PIPE, stderr=subprocess.PIPE
)
print(done.returncode, done.stdout.decode(), done.stderr.decode())
"""
#: a server that loads no packages
_SERVE = """
import sys
from tests.support.forking import server
server.load = lambda: None
server.main(sys.argv[1], int(sys.argv[2]))
"""
_OWN_LINE = "print(open('/proc/self/cmdline').read())"


def both(words: Any, folder: Path) -> Any:
    """The same command forked and in an interpreter of its own: exit code, output, last line of errors."""
    environment = dict(os.environ, MINE="1")
    real = subprocess.run(
        [sys.executable, *words],
        cwd=str(folder),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return [
        (done.returncode, done.stdout, done.stderr.splitlines()[-1:])
        for done in (run_python(words, folder, environment), real)
    ]


@pytest.mark.parametrize("code", _ENDS.values(), ids=list(_ENDS))
def test_it_ends_as_an_interpreter(code: str, tmp_path: Path) -> None:
    forked, real = both(["-c", code, "a", "b c"], tmp_path)
    assert forked == real


def test_a_module_of_the_folder_and_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text("import sys; print(sys.argv[1:], __name__, sys.path[0] != '')", encoding="utf-8")
    for words in (["-m", "here", "x"], ["-m", "nowhere_at_all"]):
        forked, real = both(words, tmp_path)
        assert forked[:2] == real[:2] and ("nowhere" in forked[2][0] if forked[2] else "here" in words)


@pytest.mark.parametrize("words", [["-m", "json.tool"], ["-W", "ignore", "-c", "import sys; sys.exit(3)"], ["f.py"]])
def test_commands_of_a_command_are_forked_too(words: Any, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("import sys; print(sys.path[0], sys.stdin.read()); 1 / 0", encoding="utf-8")
    (tmp_path / "starter.py").write_text(_STARTER, encoding="utf-8")
    forked, real = both(["-m", "starter", *words], tmp_path)
    assert forked[0] == real[0] == 0 and forked[1].split()[:2] == real[1].split()[:2]
    assert "server.py" in run_python(["-c", _STARTER, "-c", _OWN_LINE], tmp_path, dict(os.environ)).stdout
    with_options = run_python(["-c", _STARTER, "-I", "-c", _OWN_LINE], tmp_path, dict(os.environ)).stdout
    assert "server.py" not in with_options and with_options.startswith("0 ")


def test_a_module_of_the_project_is_a_program_too(tmp_path: Path) -> None:
    forked_one, real = both(["-W", "always", "-m", "vxm_convert.text"], ROOT)
    assert forked_one == real == (0, "", [])


def test_another_copy_of_the_project_is_the_one_that_runs(tmp_path: Path) -> None:
    (tmp_path / "vxm_convert").mkdir()
    (tmp_path / "vxm_convert" / "__init__.py").write_text("copy = 'the other'\n", encoding="utf-8")
    for words in (["-c", "import vxm_convert; print(vxm_convert.copy)"], ["-m", "vxm_convert.text"]):
        forked_one, real = both(words, tmp_path)
        assert forked_one[:2] == real[:2] and ("the other" in real[1] or real[0] == 1)


@pytest.mark.parametrize("flags", [["-u"], ["-u", "-X", "dev"]], ids=["forked", "started"])
def test_what_a_worker_starts_is_started(flags: List[str], tmp_path: Path) -> None:
    """A worker is forked where it can be; its own commands are those of users in any case."""
    code = f"{_OWN_LINE}; import os; print(os.environ.get('{VARIABLE}'), os.environ['PYTHONPATH'])"
    environment = forked._the_server().environment(dict(os.environ), once="mine")
    done = subprocess.run([sys.executable, *flags, "-c", code], env=environment, stdout=subprocess.PIPE, timeout=60)
    line, told = done.stdout.decode().rsplit("\n", 2)[:2]
    assert ("server.py" in line) == (flags == ["-u"]) and told == "None mine"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_of_a_command_can_be_stopped(number: int, tmp_path: Path) -> None:
    done = run_python(["-c", _STOPPER, int(number)], tmp_path, dict(os.environ))
    assert done.stdout.split() == [str(-number), "0"], done.stderr


def test_orders_that_a_fork_cannot_follow() -> None:
    assert order_of(["-u", "-m", "a", "-c"]) == {"way": "-m", "what": "a", "words": ["-c"], "warnings": []}
    for words in ([], ["-I", "-m", "a"], ["-c"], ["-m"], ["-X", "dev", "a.py"], ["-W", "error::Warning", "a.py"]):
        assert order_of(words) is None
    assert (
        order_of(["-c", "from multiprocessing.spawn import spawn_main; spawn_main()", "--multiprocessing-fork"]) is None
    )


@pytest.fixture
def server(project_root: Path, tmp_path: Path) -> Iterator[Path]:
    """The socket of a server that has loaded nothing."""
    place = tmp_path / "place"
    place.mkdir()
    words = [sys.executable, "-c", _SERVE, str(place / "s"), str(os.getpid())]
    with subprocess.Popen(words, cwd=str(project_root)) as process:
        while not (place / "s").exists():
            time.sleep(0.01)
        yield place / "s"
        process.kill()


def _connected(place: Path) -> socket.socket:
    for _ in range(500):
        connection = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(ConnectionRefusedError):
            connection.connect(str(place))
            return connection
        time.sleep(0.01)
    raise AssertionError("no server")


def _user(place: Path) -> forked.Server:
    return forked.Server(str(place), settings_of({**os.environ, "PYTHONHASHSEED": forked.HASH_SEED}))


@pytest.mark.parametrize("sent", [b"", b"\0\0\0", (2).to_bytes(8, "big") + b"{", (2).to_bytes(8, "big") + b"{}"])
def test_a_caller_that_goes_while_it_asks_stops_nobody_else(sent: bytes, server: Path, tmp_path: Path) -> None:
    with _connected(server) as connection:
        connection.sendall(sent)
    done = _user(server).run(["-c", _OWN_LINE], str(tmp_path), dict(os.environ))
    assert "server.main" in done.stdout, "started, not forked"


def test_without_a_server_commands_are_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_START_SECONDS", 0.1)
    done = _user(tmp_path / "s").run(["-c", _OWN_LINE], str(tmp_path), dict(os.environ))
    assert done.stdout.split("\0")[2] == _OWN_LINE


def test_a_command_that_hangs_shows_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(forked, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        run_python(["-c", "import time\ndef waits(): time.sleep(60)\nwaits()"], tmp_path, dict(os.environ))
    assert "in waits" in capsys.readouterr().err


def test_the_server_ends_with_the_run_that_uses_it(project_root: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        words = [sys.executable, "-c", _SERVE, str(place / "s"), str(owner.pid)]
        server = subprocess.Popen(words, cwd=str(project_root))
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(timeout=2)
        assert place.is_dir()
        owner.communicate(b"\n")
    assert server.wait(timeout=30) == 0 and not place.exists()
