# SPDX-License-Identifier: Apache-2.0
"""Read by every interpreter that has this folder in PYTHONPATH: a command that a test's command starts is forked too.

The interpreter hands its order to the process in VXM_TESTS_FORK and ends as the forked one does; signals are passed
on. What a fork cannot be (other options, variables or interpreters, inherited descriptors) starts as always. With
``once``, the PYTHONPATH from then on, what it starts itself is not forked.
"""

import os
import sys

VARIABLE = "VXM_TESTS_FORK"
#: variables that an interpreter reads before its first line; PYTHONPATH is the exception
READ_AT_START = ("PYTHON", "LC_", "LANG")
_FLAGS = ("-u", "-B")
#: what the server says once it has forked
STARTED = b"+"


def settings_of(environment):
    """What of the environment a forked process cannot change."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_START) and name not in ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
    }


def fits(settings, environment):
    """Whether a process with these settings may do what is asked in that environment; any order of hashes will do."""
    return settings == {"PYTHONHASHSEED": settings["PYTHONHASHSEED"], **settings_of(environment)}


def order_of(words):
    """What an interpreter with these arguments runs; None if a fork cannot do the same."""
    actions = []
    while words and words[0].startswith("-") and words[0] not in ("-m", "-c"):
        flag = words.pop(0)
        if flag == "-W" and words and words[0] in ("ignore", "error", "default", "always"):
            actions.append(words.pop(0))
        elif flag not in _FLAGS:
            return None
    way = words.pop(0) if words and words[0] in ("-m", "-c") else "file"
    if not words or "--multiprocessing-fork" in words or words[0].startswith("from multiprocessing"):
        return None
    return {"way": way, "what": words[0], "words": words[1:], "warnings": actions}


def _hand_over(place, settings, environment):
    import array
    import json
    import signal
    import socket

    with open("/proc/self/cmdline", "rb") as stream:
        words = [os.fsdecode(word) for word in stream.read().split(b"\0")[1:-1]]
    order = order_of(words)
    inherited = [int(name) for name in os.listdir("/proc/self/fd")]
    if order is None or not fits(settings, os.environ) or not {0, 1, 2} <= set(inherited) or len(inherited) > 4:
        return
    order.update(cwd=os.getcwd(), environment=environment)
    connection = socket.socket(socket.AF_UNIX)
    text = json.dumps(order).encode()
    streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    size = len(text).to_bytes(8, "big")
    try:
        connection.settimeout(60)
        connection.connect(place)
        connection.sendmsg([size[:1]], streams)
        connection.sendall(size[1:] + text)
        if connection.recv(1) != STARTED:
            return
        connection.settimeout(None)
    except OSError:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: connection.send(bytes([number])))
    for number in (0, 1):
        os.close(number)
    code = int(connection.recv(16).decode() or signal.SIGABRT + 128)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


if VARIABLE in os.environ and sys.platform == "linux":
    import json as _json

    _place = _json.loads(os.environ[VARIABLE])
    if _place["python"] == sys.executable:
        if "once" in _place:
            del os.environ[VARIABLE]
            os.environ["PYTHONPATH"] = _place["once"]
        _hand_over(_place["socket"], _place["settings"], dict(os.environ))
