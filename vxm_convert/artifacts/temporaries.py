# SPDX-License-Identifier: Apache-2.0
"""Names of temporary files: they say which process made them, so that those of dead processes can be cleared away while
other processes write into the same folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Callable, Optional, Tuple

#: every temporary file and folder of this project starts with it
MARK = ".tmp-"
_NAMED = re.compile(r"\.tmp-([0-9a-f]{8}\.[0-9]+\.[0-9]+)-.*", re.DOTALL)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_SPACE = "/proc/self/ns/pid"


@functools.lru_cache(maxsize=None)
def boot_id() -> str:
    """The running system's start, as the kernel names it; empty where it does not."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


@functools.lru_cache(maxsize=None)
def machine() -> str:
    """Eight hex digits for this host, its present boot and its process numbers (a container has its own)."""
    try:
        space = os.readlink(_PID_SPACE)
    except OSError:
        space = ""
    return hashlib.sha256("\0".join((socket.gethostname(), boot_id(), space)).encode()).hexdigest()[:8]


def process_token() -> str:
    """``<machine>.<process>.<start>``: no two processes have the same, even if a process number is used again."""
    return _token(os.getpid())


@functools.lru_cache(maxsize=8)
def _token(pid: int) -> str:
    # By process number, because a forked child is another process.
    return f"{machine()}.{pid}.{(_state_of(pid) or ('', 0))[1]}"


def temporary_prefix() -> str:
    """The start of this process's temporary names, for ``tempfile``."""
    return f"{MARK}{process_token()}-"


def token_of(name: str) -> Optional[str]:
    """The token in a temporary name; None in one of another kind or version."""
    match = _NAMED.fullmatch(name)
    return match.group(1) if match else None


def process_is_dead(token: str) -> Optional[bool]:
    """Whether the process of a token has ended; None if it runs on another machine, where nobody here can see it."""
    try:
        where, pid, start = token.split(".")
        number, begun = int(pid), int(start)
    except ValueError:
        return True
    if where != machine():
        return None
    state = _state_of(number)
    if state is None:
        return True
    kind, started = state
    # A zombie has ended; a later process may have the number of an earlier one.
    return kind == "Z" or started != begun


def _state_of(pid: int) -> Optional[Tuple[str, int]]:
    """State letter and start time (clock ticks since boot) of a process; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        words = text.rpartition(")")[2].split()
        return words[0], int(words[19])
    except FileNotFoundError:
        return _signalled(pid)
    except (OSError, ValueError, IndexError):
        return _signalled(pid)


def _signalled(pid: int) -> Optional[Tuple[str, int]]:
    """The answer of a system without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return "", 0
    return "", 0


def clear_temporaries(folder: Path, is_dead: Callable[[str], Optional[bool]] = process_is_dead) -> int:
    """Remove the temporary files and folders of ended processes directly in `folder`; returns their number.

    Names without a token are from earlier versions, which had the folder to themselves: they go as well.
    """
    removed = 0
    for path in Path(folder).glob(f"{MARK}*"):
        token = token_of(path.name)
        if token is None or is_dead(token):
            remove(path)
            removed += 1
    return removed


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link (never what it points to); gone already is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path), ignore_errors=True)
        return
    try:
        path.unlink()
    except FileNotFoundError:
        return
