# SPDX-License-Identifier: Apache-2.0
"""The environment of the real ATC: the driver's libraries or their stubs, and the Python of its operator compiler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Dict

import pytest

import vxm_convert.toolchain.find as find_module
from tests.support.cann_releases import build_release, put_atc
from vxm_convert.toolchain.atc_python import NEEDED, AtcPython, find_atc_python, warning_of
from vxm_convert.toolchain.driver import driver_libraries
from vxm_convert.toolchain.find import find_toolchain


def hal(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "libascend_hal.so").write_text("")
    return folder


def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **environ: str) -> str:
    monkeypatch.setattr(find_module, "_SYSTEM", tmp_path)
    if not (tmp_path / "Ascend").exists():
        build_release(tmp_path, "8.1")
    return find_toolchain("cann", {"PATH": "", "HOME": str(tmp_path), **environ}).environment["LD_LIBRARY_PATH"]


def test_a_host_without_a_driver_gets_the_stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "devlib" in libraries(tmp_path, monkeypatch)
    # A folder of the driver without its interface library, as a container without the mount has it.
    (tmp_path / "usr/local/Ascend/driver/lib64").mkdir(parents=True)
    assert "devlib" in libraries(tmp_path, monkeypatch)


def test_the_drivers_three_folders_are_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "opt/Ascend/driver/lib64"
    for name in ("common", "driver"):
        (home / name).mkdir(parents=True)
    hal(home / "driver")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ascend_install.info").write_text("Driver_Install_Path_Param=/opt/Ascend\n")
    paths = libraries(tmp_path, monkeypatch).split(":")
    assert [str(home), str(home / "common"), str(home / "driver")] == [
        path for path in paths if "/driver/lib64" in path
    ]
    assert not any("devlib" in path for path in paths)


@pytest.mark.parametrize("where", ["loader", "ldconfig", "system"])
def test_an_interface_library_elsewhere_makes_stubs_needless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    environ: Dict[str, str] = {}
    if where == "loader":
        environ["LD_LIBRARY_PATH"] = str(hal(tmp_path / "mine"))
    elif where == "ldconfig":
        hal(tmp_path / "srv/lib")
        (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
        (tmp_path / "etc/ld.so.conf.d/ascend.conf").write_text("# the driver\n/srv/lib\n")
    else:
        hal(tmp_path / "usr/lib64")
    assert "devlib" not in libraries(tmp_path, monkeypatch, **environ)


def test_stubs_are_no_driver(tmp_path: Path) -> None:
    stubs = hal(tmp_path / "cann/devlib")
    assert driver_libraries({"LD_LIBRARY_PATH": str(stubs)}, tmp_path)["hal"] == []


def python3(folder: Path, said: str, code: int = 0) -> Dict[str, str]:
    put_atc(folder / "python3", f"#!/bin/sh\ncat <<'EOF'\n{said}\nEOF\nexit {code}\n")
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_a_python_without_the_packages_is_named(tmp_path: Path) -> None:
    said = '{"version": "3.9.2", "prefix": "/usr", "missing": ["decorator", "attr"], "numpy": "1.18.5"}'
    found = find_atc_python(python3(tmp_path, said))
    assert found.missing == ("decorator", "attrs") and not found.ours
    warning = warning_of(found)
    assert warning is not None and "it has no decorator, attrs" in warning and "numpy is 1.18.5" in warning


def test_our_own_environment_is_named_even_if_it_has_everything(tmp_path: Path) -> None:
    whole = AtcPython("/x/python3", "3.7.16", (), "1.19.5", ours=True)
    assert whole.faults == "" and "the environment of this program" in str(warning_of(whole))
    assert warning_of(AtcPython("/usr/bin/python3", "3.7.16", (), "1.21.6")) is None


@pytest.mark.parametrize(
    "said, code, words", [("no json", 0, "cannot be run"), ("{}", 1, "ended with 1"), ("[]", 0, "ended with 0")]
)
def test_a_python_that_cannot_be_asked(tmp_path: Path, said: str, code: int, words: str) -> None:
    assert words in find_atc_python(python3(tmp_path, said, code)).faults
    assert "no python3 on PATH" in str(warning_of(find_atc_python({"PATH": str(tmp_path / "empty")})))


def test_a_real_python_answers(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    found = find_atc_python({"PATH": str(tmp_path)})
    assert found.problem == "" and found.version.startswith("3.") and set(found.missing) <= set(NEEDED.values())
