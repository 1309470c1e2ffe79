# SPDX-License-Identifier: Apache-2.0
"""The search for a Python that runs: shims that fail, versions that are wrong, machines without any."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Dict

import pytest

pytestmark = [
    pytest.mark.skipif(shutil.which("sh") is None, reason="no POSIX shell here"),
    pytest.mark.any_python("tests a shell script"),
]

#: A stand-in that answers the two questions the search asks: does the version fit, and where are you.
_WORKS = '#!/bin/sh\ncase "$2" in *sys.executable*) echo "$0" ;; esac\nexit 0\n'
_WRONG_VERSION = '#!/bin/sh\ncase "$2" in *version_info*) exit 1 ;; esac\necho "$0"\n'
_BROKEN_SHIM = "#!/bin/sh\necho 'pyenv: python3.7: command not found' >&2\nexit 127\n"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, project_root: Path):
    """A machine with nothing but a shell: returns a function that runs the search on it."""
    (tmp_path / "home").mkdir()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat"):
        os.symlink(shutil.which(name), str(tools / name))

    def search(want: str = "3.7", **more: str) -> subprocess.CompletedProcess:
        env: Dict[str, str] = {"PATH": f"{tmp_path / 'bin'}:{tools}", "HOME": str(tmp_path / "home"), **more}
        return subprocess.run(
            ["sh", str(project_root / "scripts" / "find_python.sh"), want], env=env, capture_output=True, timeout=30
        )

    return search


def found(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_nothing_there_says_what_to_do(machine) -> None:
    done = machine()
    assert done.returncode == 1 and done.stdout == b""
    for advice in (b"pyenv install 3.7", b"uv python install 3.7", b"conda create", b"PYTHON37="):
        assert advice in done.stderr
    assert b"3.11 or newer" in machine("current").stderr


def test_path_is_used(machine, tmp_path: Path) -> None:
    expected = put(tmp_path / "bin" / "python3.7", _WORKS)
    assert found(machine()) == str(expected)


@pytest.mark.parametrize("bad", [_BROKEN_SHIM, _WRONG_VERSION])
def test_a_shim_that_fails_is_passed_over_for_pyenv_s_version(machine, tmp_path: Path, bad: str) -> None:
    put(tmp_path / "bin" / "python3.7", bad)
    expected = put(tmp_path / "home" / ".pyenv" / "versions" / "3.7.16" / "bin" / "python3.7", _WORKS)
    assert found(machine()) == str(expected)


def test_pyenv_root_comes_before_home(machine, tmp_path: Path) -> None:
    put(tmp_path / "home" / ".pyenv" / "versions" / "3.7.16" / "bin" / "python3.7", _WORKS)
    expected = put(tmp_path / "env" / "versions" / "3.7.9" / "bin" / "python3.7", _WORKS)
    assert found(machine(PYENV_ROOT=str(tmp_path / "env"))) == str(expected)


def test_the_override_comes_first_and_is_not_replaced_silently(machine, tmp_path: Path) -> None:
    put(tmp_path / "bin" / "python3.7", _WORKS)
    mine = put(tmp_path / "mine" / "python", _WORKS)
    assert found(machine(PYTHON37=str(mine))) == str(mine)
    put(mine, _WRONG_VERSION)
    done = machine(PYTHON37=str(mine))
    assert done.returncode == 1 and b"PYTHON37=" in done.stderr and str(mine).encode() in done.stderr


def test_conda_environments_are_searched(machine, tmp_path: Path) -> None:
    put(tmp_path / "bin" / "conda", f"#!/bin/sh\necho '{tmp_path / 'conda'}'\n")
    expected = put(tmp_path / "conda" / "envs" / "old" / "bin" / "python3.7", _WORKS)
    assert found(machine()) == str(expected)


def test_uv_is_asked_last(machine, tmp_path: Path) -> None:
    expected = put(tmp_path / "uv-made" / "python3.7", _WORKS)
    put(
        tmp_path / "bin" / "uv",
        f"#!/bin/sh\ncase \"$2\" in find) echo '{expected}' ;; install) : > '{tmp_path / 'asked'}' ;; esac\n",
    )
    assert found(machine()) == str(expected)
    assert (tmp_path / "asked").exists()
    (tmp_path / "asked").unlink()
    put(tmp_path / "bin" / "python3.7", _WORKS)
    found(machine())
    assert not (tmp_path / "asked").exists()


def test_current_takes_a_new_python(machine, tmp_path: Path) -> None:
    put(tmp_path / "bin" / "python3.7", _WORKS)
    expected = put(tmp_path / "bin" / "python3.12", _WORKS)
    assert found(machine("current")) == str(expected)


def test_an_unknown_wish_is_a_usage_error(machine) -> None:
    assert machine("2.7").returncode == 2
