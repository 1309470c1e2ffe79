# SPDX-License-Identifier: Apache-2.0
"""Names of hosts, users and folders are taken out of texts before they are archived."""

from __future__ import annotations

import getpass
import os
import platform
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

#: words that are names of users on many machines but also ordinary words of logs
_ORDINARY = {"root", "user", "admin", "test", "host", "localhost", "device", "ascend"}
_MIN_NAME = 3


class Scrubber:
    """Replaces what names this machine or its user.

    Parameters
    ----------
    folders : sequence of (Path, str) — more folders and the words that replace them, e.g. the output folder.
    names : sequence of str or None — names to remove; None: those of this host and user.
    """

    def __init__(self, folders: Sequence[Tuple[Path, str]] = (), names: Optional[Sequence[str]] = None) -> None:
        places = list(folders) + [
            (Path.cwd(), "FOLDER"),
            (Path(tempfile.gettempdir()), "TEMPORARY"),
            (Path(sys.prefix), "PYTHON"),
            (Path(__file__).resolve().parents[2], "PROJECT"),
            (Path(os.path.expanduser("~")), "~"),
        ]
        texts = {str(form): word for path, word in places for form in (path, path.resolve()) if len(str(form)) > 1}
        # The longest first: a folder inside another one has its own word.
        self._folders = sorted(texts.items(), key=lambda item: -len(item[0]))
        self._names = [
            re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])")
            for name in (_own_names() if names is None else names)
            if len(name) >= _MIN_NAME and name.lower() not in _ORDINARY
        ]

    def __call__(self, text: str) -> str:
        for folder, word in self._folders:
            text = text.replace(folder, word)
        for name in self._names:
            text = name.sub("NAME", text)
        return text


def _own_names() -> List[str]:
    host = socket.gethostname()
    names = {host, host.split(".")[0], platform.node()}
    try:
        names.add(getpass.getuser())
    except (KeyError, OSError):  # no entry for this number in the user table, as in many containers
        names.discard("")
    return sorted(names - {""}, key=len, reverse=True)
