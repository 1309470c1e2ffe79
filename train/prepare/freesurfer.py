# SPDX-License-Identifier: Apache-2.0
"""FreeSurfer's ``mri_robust_register``: is it there and usable, and how it is called. Programs are started by lists of
arguments.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from vxm_convert.errors import ToolchainError

PROGRAM = "mri_robust_register"
_LICENCES = ("license.txt", ".license")
_VERSION_SECONDS = 60
_MOST_LINES, _MOST_BYTES = 6, 1 << 16


def find_program() -> Optional[Path]:
    """The program on PATH, or None."""
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


def environment_problem() -> Optional[str]:
    """What is missing from FreeSurfer's environment, or None."""
    home = os.environ.get("FREESURFER_HOME")
    if not home:
        return "FREESURFER_HOME is not set; source $FREESURFER_HOME/SetUpFreeSurfer.sh first"
    if not Path(home).is_dir():
        return f"FREESURFER_HOME is {home}, which is no folder; source SetUpFreeSurfer.sh of the installation"
    licences = (
        [Path(os.environ["FS_LICENSE"])] if os.environ.get("FS_LICENSE") else [Path(home) / name for name in _LICENCES]
    )
    if not any(path.is_file() for path in licences):
        return (
            f"no licence file ({' or '.join(str(p) for p in licences)}); get one from FreeSurfer's site, or set "
            "FS_LICENSE"
        )
    return None


def version_of(program: Path) -> str:
    """The first line of what it says about itself.

    Raises
    ------
    ToolchainError
        When it cannot be started.
    """
    try:
        done = subprocess.run(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ToolchainError(
            f"{program}: cannot be started ({exc}); repair FreeSurfer, or pass --tool simpleitk"
        ) from exc
    lines = done.stdout.decode("utf-8", "replace").split("\n")
    return lines[0].strip()[:200] or "unknown version"


def commands(program: Path, moving: Path, fixed: Path, folder: Path, kind: str) -> Tuple[List[List[str]], Path]:
    """The calls that register `moving` to `fixed`, and the LTA that the last of them writes.

    A rigid transform, then an affine one that starts from it, as the tool's own help advises. ``--satit`` lets it find
    how much it must distrust outliers, ``--iscale`` lets it scale one scan's intensities.
    """
    rigid, affine = folder / "rigid.lta", folder / "affine.lta"

    def call(lta: Path) -> List[str]:
        return [str(program), "--mov", str(moving), "--dst", str(fixed), "--lta", str(lta), "--satit", "--iscale"]

    if kind == "rigid":
        return [call(rigid)], rigid
    return [call(rigid), call(affine) + ["--ixform", str(rigid), "--affine"]], affine


def run(command: List[str], folder: Path, threads: int) -> None:
    """One call, its messages into a file of `folder`.

    Raises
    ------
    ToolchainError
        It cannot be started, or ends with an error; with its last lines.
    """
    log = folder / "messages.log"
    environment: Dict[str, str] = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        with open(str(log), "wb") as handle:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                cwd=str(folder),
                env=environment,
            ).returncode
    except OSError as exc:
        raise ToolchainError(
            f"{command[0]}: cannot be started ({exc.strerror}); repair FreeSurfer, or pass --tool simpleitk"
        ) from exc
    if code:
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        raise ToolchainError(f"{Path(command[0]).name} {ended}: {_last_lines(log)}")


def _last_lines(log: Path) -> str:
    with open(str(log), "rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(0, handle.tell() - _MOST_BYTES))
        text = handle.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-_MOST_LINES:]) or "it said nothing"
