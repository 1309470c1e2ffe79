# SPDX-License-Identifier: Apache-2.0
"""Finding CANN in every layout, and never mistaking the simulator for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vxm_convert
from tests.support.cann_releases import ARCH, RELEASES, build_release, put_atc
from vxm_convert.errors import ToolchainError
from vxm_convert.toolchain.cann_versions import REQUIREMENTS, newest_first, read_version, too_old_for, version_key
from vxm_convert.toolchain.find import Toolchain, find_toolchain

PACKAGE = Path(vxm_convert.__file__).resolve().parent


def found(environ, choice="cann") -> Toolchain:
    return find_toolchain(choice, {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", **environ})


@pytest.mark.parametrize("place", ["bin/atc", "compiler/bin/atc", "atc/bin/atc", ARCH + "/bin/atc"])
@pytest.mark.parametrize("variable", ["ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"])
def test_layouts_below_a_named_root(tmp_path, place, variable):
    atc = put_atc(tmp_path / place)
    toolchain = found({variable: str(tmp_path)})
    assert toolchain.kind == "cann" and not toolchain.simulated
    assert toolchain.atc_command == (str(atc),)
    assert toolchain.describe()["root"] == str(tmp_path)
    assert toolchain.sentence().startswith("REAL toolchain, CANN ") and str(tmp_path) in toolchain.sentence()


@pytest.mark.parametrize(
    "root", ["Ascend/cann", "Ascend/ascend-toolkit/latest", "Ascend/ascend-toolkit/5.0.4", "Ascend"]
)
def test_roots_below_home(tmp_path, root):
    put_atc(tmp_path / root / "atc/bin/atc")
    assert found({"HOME": str(tmp_path)}).root == tmp_path / root


@pytest.mark.parametrize(
    "versions, newest",
    [
        (("5.0.4", "5.1.RC1"), "5.1.RC1"),
        (("20.2.rc1", "5.0.2"), "5.0.2"),
        (("8.1.RC1", "8.0.0"), "8.1.RC1"),
        (("9.0.0", "10.0.0"), "10.0.0"),
        (("8.0.RC3.alpha003", "8.0.RC3"), "8.0.RC3"),
        (("21.0.2", "20.1"), "21.0.2"),
    ],
)
def test_the_newer_of_two_versions_is_taken(tmp_path, versions, newest):
    for version in versions:
        put_atc(tmp_path / "Ascend/ascend-toolkit" / version / "atc/bin/atc")
    assert found({"HOME": str(tmp_path)}).root.name == newest


@pytest.mark.parametrize("name", sorted(RELEASES))
def test_every_layout_of_every_release(tmp_path, name):
    root, atc, acl, version = build_release(tmp_path, name)
    toolchain = found({"HOME": str(tmp_path)})
    assert toolchain.root == root and toolchain.version == version
    assert toolchain.atc_command == ((atc,) if atc else ())
    assert acl in toolchain.python_paths
    environment = toolchain.environment
    for folder in root.rglob("*"):
        if folder.name in ("lib64", "te", "tbe", "auto_tune") and folder.is_dir():
            assert str(folder) in environment["LD_LIBRARY_PATH"] + ":" + environment["PYTHONPATH"], folder
    assert not atc or str(Path(atc).parent) in environment["PATH"].split(":")


def test_a_cann_and_an_older_toolkit_side_by_side(tmp_path):
    build_release(tmp_path, "5.0.4")
    root = build_release(tmp_path, "8.5")[0]
    assert found({"HOME": str(tmp_path)}).root == root


def test_stubs_of_the_driver_are_used_without_a_device(tmp_path, monkeypatch):
    import vxm_convert.toolchain.find as module

    root = build_release(tmp_path, "8.1")[0]
    monkeypatch.setattr(module, "_SYSTEM", tmp_path)
    assert str(root / ARCH / "devlib") in found({"HOME": str(tmp_path)}).environment["LD_LIBRARY_PATH"]
    library = tmp_path / "usr/local/Ascend/driver/lib64/driver/libascend_hal.so"
    library.parent.mkdir(parents=True)
    library.write_text("")
    assert "devlib" not in found({"HOME": str(tmp_path)}).environment["LD_LIBRARY_PATH"]


IN_ORDER = [
    "20.0.RC1",
    "20.2.rc1",
    "20.2",
    "21.0.2",
    "5.0.2.alpha005",
    "5.0.4",
    "5.1.RC1.alpha001",
    "5.1.RC1",
    "5.1.RC2",
    "6.0.1",
    "6.3.RC2",
    "7.0.RC1",
    "7.0.0",
    "8.0.RC3.alpha003",
    "8.0.RC3",
    "8.0.0",
    "8.1.RC1",
    "8.5.0",
    "9.0.0-beta.1",
    "9.0.0",
    "10.0.0",
]


def test_versions_sort_as_they_came_out():
    assert sorted(reversed(IN_ORDER), key=version_key) == IN_ORDER
    folders = [Path(name) for name in ("5.0.4", "latest", "cann-8.5.0", "20.2")]
    assert [path.name for path in newest_first(folders)] == ["cann-8.5.0", "5.0.4", "20.2"]


@pytest.mark.parametrize("text", ["1.76.22.3.220", "7.7.0.1.238", "latest", "", "V100R001C84", "unknown"])
def test_component_numbers_are_no_versions(text):
    assert version_key(text) is None and too_old_for(text, (3, 7)) == []


@pytest.mark.parametrize(
    "version, python, needs",
    [
        ("8.1.RC1", (3, 11), []),
        ("5.0.4", (3, 7), []),
        ("5.0.3", (3, 7), ["export", "om_runner"]),
        ("20.2", (3, 7), ["export", "om_runner"]),
        ("5.1.RC2", (3, 9), ["om_runner on a Python newer than 3.7"]),
    ],
)
def test_minimum_versions(version, python, needs):
    assert [need.what for need in too_old_for(version, python)] == needs
    assert all(version_key(need.minimum) and need.why for need in REQUIREMENTS)


def test_atc_on_path_tells_the_root(tmp_path):
    put_atc(tmp_path / "toolkit/compiler/bin/atc")
    (tmp_path / "toolkit/opp").mkdir()
    assert found({"PATH": str(tmp_path / "toolkit/compiler/bin")}).root == tmp_path / "toolkit"


def test_another_program_called_atc_is_not_cann(tmp_path):
    put_atc(tmp_path / "bin/atc")
    assert found({"PATH": str(tmp_path / "bin")}, "auto").kind == "simulator"


@pytest.mark.parametrize(
    "name,text,version",
    [
        (ARCH + "/ascend_toolkit_install.info", "package_name=x\nversion=8.1.RC1\ninnerversion=V100\n", "8.1.RC1"),
        ("version.cfg", "# version: 1.0\ntoolkit_running_version=[7.7.0.1.238:8.1.RC1]\n", "8.1.RC1"),
        ("compiler/version.info", "Version=7.7.0.1.238\nversion_dir=8.1.RC1\n", "8.1.RC1"),
        ("atc/version.info", "Version=1.76.22.3.220\n", "1.76.22.3.220"),
        (ARCH + "_gcc7.3.0/opp/version.info", "Version=1.72.4.1.0\n", "1.72.4.1.0"),
        ("ascend_nnae_install.info", "version=5.1.RC2\n", "5.1.RC2"),
        ("share/info/compiler/version.info", "version_dir=9.0.0\n", "9.0.0"),
        ("version.cfg", "# nothing of use\n", "unknown"),
        ("elsewhere", "", "unknown"),
    ],
)
def test_version_files(tmp_path, name, text, version):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    assert read_version(tmp_path) == version


def test_environment_holds_what_exists_in_front_of_what_was_set(tmp_path):
    put_atc(tmp_path / "bin/atc")
    for folder in ("lib64", "python/site-packages", "opp/built-in/op_impl/ai_core/tbe"):
        (tmp_path / folder).mkdir(parents=True)
    environment = found(
        {"ASCEND_TOOLKIT_HOME": str(tmp_path), "LD_LIBRARY_PATH": "/mine", "PYTHONPATH": "/py", "KEEP": "1"}
    ).environment
    assert environment["LD_LIBRARY_PATH"].split(":")[0] == str(tmp_path / "lib64") and environment[
        "LD_LIBRARY_PATH"
    ].endswith("/mine")
    assert str(tmp_path / "atc/lib64") not in environment["LD_LIBRARY_PATH"]
    assert environment["PYTHONPATH"].split(":")[0] == str(tmp_path / "python/site-packages") and environment[
        "PYTHONPATH"
    ].endswith("/py")
    assert environment["PATH"].startswith(str(tmp_path / "bin"))
    assert environment["ASCEND_OPP_PATH"] == str(tmp_path / "opp")
    assert environment["KEEP"] == "1"


def test_asking_for_cann_in_vain_says_where_it_looked(tmp_path):
    with pytest.raises(ToolchainError) as caught:
        found({"ASCEND_HOME_PATH": str(tmp_path / "gone")})
    for text in (str(tmp_path / "gone"), "/usr/local/Ascend", "PATH", "--toolchain sim"):
        assert text in str(caught.value)


def test_choice_comes_from_argument_then_variable_then_auto(tmp_path):
    put_atc(tmp_path / "bin/atc")
    here = {"ASCEND_HOME_PATH": str(tmp_path)}
    assert found(here, "auto").kind == "cann"
    assert found(here, "sim").kind == "simulator"
    assert found({**here, "VXM_TOOLCHAIN": "sim"}, None).kind == "simulator"
    assert found({**here, "VXM_TOOLCHAIN": "sim"}, "cann").kind == "cann"
    assert found({}, "auto").kind == "simulator"
    with pytest.raises(ToolchainError, match="gpu"):
        found({"VXM_TOOLCHAIN": "gpu"}, None)


def test_the_simulator_on_path_is_not_cann(tmp_path):
    (tmp_path / "opp").mkdir()
    put_atc(tmp_path / "bin/atc", f'#!/bin/sh\nexec {sys.executable} -m vxm_convert.sim.atc "$@"\n')
    (tmp_path / "link").symlink_to(PACKAGE / "sim/shims")
    for environ in (
        {"PATH": str(tmp_path / "bin")},
        {"ASCEND_HOME_PATH": str(tmp_path)},
        {"ASCEND_HOME_PATH": str(tmp_path / "link")},
        {"PATH": str(PACKAGE / "sim/shims/bin")},
    ):
        assert found(environ, "auto").kind == "simulator"


def test_simulator_runs_from_any_folder(tmp_path):
    toolchain = find_toolchain("sim")
    assert toolchain.simulated and toolchain.version.startswith("sim-")
    command = [toolchain.atc_command[0], "-c", "import vxm_convert; print(vxm_convert.__file__)"]
    shown = subprocess.run(
        command, cwd=str(tmp_path), env=toolchain.environment, stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    assert Path(shown.strip()).resolve().parent == PACKAGE


def test_a_runtime_without_compiler_is_cann_too(tmp_path):
    module = tmp_path / "python/site-packages/acl"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("MARK = 'the real one'\n")
    toolchain = found({"ASCEND_HOME_PATH": str(tmp_path)})
    assert toolchain.atc_command == () and toolchain.python_paths == (str(tmp_path / "python/site-packages"),)


def run_load_acl(root: Path, **more: str):
    code = "from vxm_convert.toolchain.find import find_toolchain; print(find_toolchain('cann').load_acl().MARK)"
    environment = {**os.environ, "ASCEND_HOME_PATH": str(root), "PYTHONPATH": str(PACKAGE.parent), **more}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)


def test_load_acl_imports_from_cann_or_says_why_not(tmp_path):
    module = tmp_path / "pyACL/python/site-packages/acl"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("MARK = 'the real one'\n")
    assert run_load_acl(tmp_path).stdout.strip() == b"the real one"
    (module / "__init__.py").write_text("raise SystemError('built for another Python')\n")
    failed = run_load_acl(tmp_path)
    assert (
        b"ToolchainError" in failed.stderr
        and b"set_env.sh" in failed.stderr
        and b"built for another Python" in failed.stderr
    )


def test_the_simulator_says_in_a_sentence_that_no_device_takes_part() -> None:
    toolchain = find_toolchain("sim", {})
    assert toolchain.sentence() == (
        f"SIMULATED toolchain {toolchain.version}: no Ascend device takes part in these results"
    )
