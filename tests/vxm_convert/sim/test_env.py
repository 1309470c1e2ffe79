# SPDX-License-Identifier: Apache-2.0
"""``eval "$(python -m vxm_convert sim env)"`` as a user types it: in two kinds of shell, from elsewhere, under a path
with a space.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

import vxm_convert
from tests.support.graphs import PbBuilder
from vxm_convert.formats.om import read_om

PACKAGE = Path(vxm_convert.__file__).resolve().parent


once = pytest.mark.any_python("the shell reads the same lines, whichever Python printed them")


@pytest.fixture(params=["bash", pytest.param("dash", marks=once), pytest.param("sh", marks=once)])
def shell(request: pytest.FixtureRequest) -> str:
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"this machine has no {request.param}")
    if request.param == "sh" and os.path.realpath(found) in map(os.path.realpath, filter(None, [shutil.which("dash")])):
        pytest.skip("sh is dash here")
    return found


@pytest.fixture(scope="module", params=["copied", "linked"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a space in its name that holds the package."""
    folder = tmp_path_factory.mktemp("a folder") / "with a space; and 'quotes'"
    folder.mkdir()
    if request.param == "copied":
        shutil.copytree(str(PACKAGE), str(folder / "vxm_convert"), ignore=shutil.ignore_patterns("__pycache__"))
    else:
        (folder / "vxm_convert").symlink_to(PACKAGE, target_is_directory=True)
    yield folder


#: PYTHONPATH serves `sim env` alone.
SIM_ENV = 'PYTHONPATH="$PACKAGE_ROOT" "$PY" -m vxm_convert sim env'


@functools.lru_cache(maxsize=None)
def lines_of_sim_env(root: Path) -> str:
    """What `sim env` prints; asked once for each folder, with the environment that the shells have."""
    done = subprocess.run(
        ["sh", "-c", SIM_ENV], cwd=str(root), env=_environment(root), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _environment(root: Path) -> Dict[str, str]:
    return {"PATH": os.environ["PATH"], "PACKAGE_ROOT": str(root), "PY": sys.executable}


def in_shell(
    shell: str, root: Path, cwd: Path, commands: List[str], again: bool = False
) -> subprocess.CompletedProcess:
    """The commands behind the lines of `sim env`, which is run `again` or not; the first failure ends the script."""
    lines = "" if again else lines_of_sim_env(root)
    script = ["set -eu", f"env_lines=$({SIM_ENV if again else 'cat'})", 'eval "$env_lines"', *commands]
    return subprocess.run(
        [shell, "-c", "\n".join(script)],
        cwd=str(cwd),
        env=_environment(root),
        input=lines,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "working folder"
    folder.mkdir()
    return folder


def test_atc_shows_its_help(shell: str, root: Path, elsewhere: Path) -> None:
    done = in_shell(shell, root, elsewhere, ["command -v atc", "atc --help"])
    assert done.returncode == 0, done.stderr
    found, said = done.stdout.split("\n", 1)
    assert found.endswith("sim/shims/bin/atc") and "usage: atc" in said and "SIMULATED" in said


def test_atc_compiles(shell: str, root: Path, elsewhere: Path) -> None:
    pb = PbBuilder()
    pb.node("Relu", "y", pb.placeholder("x", (1, 4)))
    pb.save(elsewhere / "tiny.pb")
    done = in_shell(
        shell, root, elsewhere, ["atc --model=tiny.pb --framework=3 --output=tiny --soc_version=Ascend910A"]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SIMULATED" in done.stdout and read_om(elsewhere / "tiny.om").simulated


def test_python_imports_acl(shell: str, root: Path, elsewhere: Path) -> None:
    program = "import acl; acl.init(); print(acl.get_soc_name()); print(acl.__name__); acl.finalize()"
    done = in_shell(shell, root, elsewhere, [f'"$VXM_SIM_PYTHON" -c "{program}"'])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Ascend910A", "vxm_convert.sim.acl.module"]
    assert "SIMULATED" in done.stderr


def test_the_chip_is_unknown_before_init_as_every_call_says(shell: str, root: Path, elsewhere: Path) -> None:
    done = in_shell(shell, root, elsewhere, ["\"$VXM_SIM_PYTHON\" -c 'import acl; print(acl.get_soc_name())'"])
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_failures_of_atc_reach_the_shell(shell: str, root: Path, elsewhere: Path) -> None:
    done = in_shell(
        shell,
        root,
        elsewhere,
        ["atc --model=none.pb --framework=3 --output=none --soc_version=Ascend910A || echo code $?"],
    )
    assert done.stdout.splitlines()[-1] == "code 255"


def test_what_was_on_the_paths_stays_behind_the_shims(shell: str, root: Path, elsewhere: Path) -> None:
    commands = ['printf "%s\\n" "$PATH" "$PYTHONPATH" "$VXM_TOOLCHAIN"']
    done = in_shell(shell, root, elsewhere, commands, again=True)
    path, python_path, toolchain = done.stdout.splitlines()
    first, _, rest = path.partition(":")
    assert first.endswith("sim/shims/bin") and rest == os.environ["PATH"] and toolchain == "sim"
    shims, package = python_path.split(":")
    assert shims.endswith("sim/shims/python") and (Path(package) / "vxm_convert").samefile(root / "vxm_convert")
