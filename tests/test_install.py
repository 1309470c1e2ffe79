# SPDX-License-Identifier: Apache-2.0
"""The wheel, without a checkout: what is in it, and the transcript of docs/install.md in an empty folder.

Nothing is downloaded: the wheel is installed without dependencies into an empty environment, which finds those of the
tests' own environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import List

import pytest

import vxm_convert
from tests.support.graphs import identity_model
from vxm_convert.synthetic.heads import PhantomSettings, write_cohort

pytestmark = pytest.mark.slow

PARTS = ("vxm_convert", "train", "export", "om_runner", "models")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
COMMANDS = ("vxm", "vxm-train", "vxm-export", "vxm-register")


def call(cwd: Path, *argv: object, **more: str) -> str:
    """Standard output of a command that must succeed."""
    environ = {**{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}, **more}
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=str(cwd),
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


@pytest.fixture(scope="module")
def wheel(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because building writes into the tree; or the file that $VXM_TEST_WHEEL names."""
    if "VXM_TEST_WHEEL" in os.environ:
        return Path(os.environ["VXM_TEST_WHEEL"]).resolve()
    if find_spec("wheel") is None and find_spec("setuptools.command.bdist_wheel") is None:
        pytest.skip("this Python has no package wheel to build one with; $VXM_TEST_WHEEL may name one that is built")
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for part in PARTS:
        shutil.copytree(str(project_root / part), str(source / part), ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(str(project_root / name), str(source / name))
    call(source, sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})")
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that has the wheel, and sees the tests' packages behind it."""
    home = tmp_path_factory.mktemp("environment") / "env"
    call(home.parent, sys.executable, "-m", "venv", "--without-pip", home)
    bin_folder = home / "bin"
    call(
        home,
        sys.executable,
        "-m",
        "pip",
        "--python",
        bin_folder / "python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
    )
    place = call(home, bin_folder / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
    (Path(place) / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return bin_folder


def transcript(project_root: Path) -> List[str]:
    text = (project_root / "docs" / "install.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return block.splitlines()


def test_what_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(str(wheel)).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"vxm_convert", "train", "export", "om_runner"}
    for needed in (
        "vxm_convert/models/vm2/model.index",
        "vxm_convert/models/vm2/model.data-00000-of-00001",
        "vxm_convert/models/vm2/spec.json",
        "vxm_convert/sim/shims/bin/atc",
        "vxm_convert/py.typed",
        "om_runner/qc/static/qc.css",
        "om_runner/precision/page/templates/report.html",
        "train/settings/data/fusion_off.cfg",
        "vxm_convert/profiles/research.yaml",
    ):
        assert needed in names
    assert vxm_convert.__version__ in wheel.name


def test_commands_are_there_and_say_what_they_do(installed: Path, tmp_path: Path) -> None:
    for command in COMMANDS:
        assert call(tmp_path, installed / command, "--help").startswith("usage: ")
    assert "om_runner" in call(tmp_path, installed / "vxm", "doctor")
    where = call(tmp_path, installed / "python", "-c", "import om_runner, vxm_convert; print(vxm_convert.__file__)")
    assert str(installed.parent) in where
    assert list(tmp_path.iterdir()) == []


def test_the_transcript_of_the_page(installed: Path, project_root: Path, tmp_path: Path) -> None:
    lines = transcript(project_root)
    shell = [line[2:] for line in lines if line.startswith("$ ")]
    assert (
        re.fullmatch(r'pip install "vxm_convert-[\d.]+-py3-none-any.whl\[train\]"', shell[0]) and shell[-1] == "python"
    )
    for line in shell[1:-1]:
        words = line.split()
        if words[0] == "vxm-export" and find_spec("tensorflow") is None:
            identity_model(tmp_path / "vxm", (32, 48, 48))
            continue
        call(tmp_path, installed / words[0], *words[1:])
    typed = [line[4:] for line in lines if line[:4] in (">>> ", "... ")]
    expected = [line for line in lines[lines.index("$ python") + 1 :] if line[:3] not in (">>>", "...")]
    program = "import code, sys\nconsole = code.InteractiveConsole()\nsys.ps1 = sys.ps2 = ''\n"
    program += f"for line in {[*typed[:3], '', *typed[3:]]!r}: console.push(line)\n"
    said = call(tmp_path, installed / "python", "-c", program).splitlines()
    assert said == expected and len(said) == 2
    assert (tmp_path / "warp.nii.gz").is_file() and (tmp_path / "registered" / "sub-01" / "moved.nii.gz").is_file()


def test_the_box_starts_a_training(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    write_cohort(tmp_path / "cohort", PhantomSettings((32, 32, 32), 1))
    words = "--data cohort/scans --atlas cohort/atlas.npz --init box --epochs 1 --steps-per-epoch 1 --out trained -q"
    assert "checkpoint: " in call(tmp_path, installed / "vxm-train", *words.split())
