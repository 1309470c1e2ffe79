# SPDX-License-Identifier: Apache-2.0
"""The doctor's table on machines of every kind: made-up driver files, a fake npu-smi, an npu_bridge that aborts."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest

import vxm_convert.toolchain.doctor as doctor_module
from tests.support.cann_releases import build_release, put_atc
from vxm_convert.__main__ import main
from vxm_convert.toolchain.devices import (
    Device,
    device_nodes,
    driver_version,
    find_npu_smi,
    list_devices,
    parse_board,
    parse_npu_smi,
)
from vxm_convert.toolchain.doctor import FOUND, MISSING, Finding, examine, to_dict

ONE_910A = """\
+------------------------------------------------------------------------------------+
| npu-smi 22.0.4                       Version: 22.0.4                               |
+----------------------+---------------+---------------------------------------------+
| NPU   Name           | Health        | Power(W)   Temp(C)    Hugepages-Usage(page) |
| Chip                 | Bus-Id        | AICore(%)  Memory-Usage(MB)  HBM-Usage(MB)  |
+======================+===============+=============================================+
| 0     910A           | OK            | 70.0       40         0    / 0              |
| 0                    | 0000:C1:00.0  | 0          2621 / 15171      0  / 32768     |
+======================+===============+=============================================+
"""
OLD_TWO = """\
+------------------------------------------------------------------------------+
| npu-smi 20.2.0                          Version: 20.2.0                       |
+-------------------+-----------------+-----------------------------------------+
| NPU     Name      | Health          | Power(W)          Temp(C)               |
| Chip              | Bus-Id          | AICore(%)         Memory-Usage(MB)      |
+===================+=================+=========================================+
| 0       910A      | OK              | 66.9              49                    |
| 0                 | 0000:C1:00.0    | 0                 591  / 15307          |
+===================+=================+=========================================+
| 1       910ProB   | Alarm           | 63.6              51                    |
| 0                 | 0000:01:00.0    | 0                 2703 / 15689          |
+===================+=================+=========================================+
"""
WITH_PROCESSES = (
    ONE_910A
    + """\
+----------------------+---------------+---------------------------------------------+
| NPU     Chip         | Process id    | Process name             | Process memory(MB) |
+======================+===============+=============================================+
| 0       0            | 4711          | python                   | 1811               |
+======================+===============+=============================================+
"""
)


def test_tables_of_npu_smi() -> None:
    assert parse_npu_smi(ONE_910A) == parse_npu_smi(WITH_PROCESSES) == [Device(0, "910A", "OK", 32768)]
    assert parse_npu_smi(OLD_TWO) == [Device(0, "910A", "OK", 15307), Device(1, "910ProB", "Alarm", 15689)]
    assert parse_npu_smi("DrvMngGetConsoleLogLevel failed.\ndcmi model initialized failed.\n") == []
    assert Device(0, "910A", "OK").soc_version == Device(0, "Ascend910A", "OK").soc_version == "Ascend910A"


def machine(tmp_path: Path, smi: str = ONE_910A, exit_code: int = 0) -> Dict[str, str]:
    """A root with driver, device nodes and an npu-smi that prints `smi`; returns the environment."""
    for name in ("dev/davinci0", "dev/davinci_manager", "dev/devmm_svm", "dev/hisi_hdc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "opt/driver").mkdir(parents=True)
    (tmp_path / "opt/driver/version.info").write_text("Version=22.0.4\nascendhal_version=6.2.12\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ascend_install.info").write_text("UserName=HwHiAiUser\nDriver_Install_Path_Param=/opt\n")
    put_atc(tmp_path / "usr/local/sbin/npu-smi", f"#!/bin/sh\ncat <<'EOF'\n{smi}EOF\nexit {exit_code}\n")
    return {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}


def rows_of(tmp_path: Path, environ: Dict[str, str]) -> Dict[str, Finding]:
    return {row.subject: row for row in examine(environ, tmp_path)}


def test_a_machine_with_a_device(tmp_path: Path) -> None:
    environ = machine(tmp_path)
    rows = rows_of(tmp_path, environ)
    assert rows["driver"] == Finding("driver", FOUND, "22.0.4")
    assert rows["devices"] == Finding("devices", FOUND, "0: 910A (OK, 32768 MB), --soc-version Ascend910A")
    (tmp_path / "dev/hisi_hdc").unlink()
    assert "/dev/hisi_hdc missing" in rows_of(tmp_path, environ)["devices"].detail
    assert device_nodes(tmp_path) == (["davinci0"], ["hisi_hdc"])


def test_a_machine_without_anything(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"PATH": "", "HOME": str(tmp_path)})
    assert [rows[name].state for name in ("CANN", "atc", "acl", "driver", "devices")] == [MISSING] * 5
    assert "vendor's package" in rows["driver"].detail and "container" in rows["devices"].detail
    assert driver_version(tmp_path) is None and find_npu_smi({"PATH": ""}, tmp_path) is None


@pytest.mark.parametrize(
    "smi, exit_code, said",
    [
        ("dcmi model initialized failed, because the device is used. ret is -8020\n", 1, "exit code 1: dcmi model"),
        ("", 0, "printed nothing"),
    ],
)
def test_an_npu_smi_that_finds_nothing(tmp_path: Path, smi: str, exit_code: int, said: str) -> None:
    row = rows_of(tmp_path, machine(tmp_path, smi, exit_code))["devices"]
    assert row.state == MISSING and said in row.detail and "HwHiAiUser" in row.detail


def test_an_npu_smi_that_cannot_run(tmp_path: Path) -> None:
    path = put_atc(tmp_path / "npu-smi", "no program")
    devices, problem = list_devices(str(path))
    assert devices == [] and "cannot run" in problem


@pytest.mark.parametrize("name, acl", [("8.1", "acl.cpython-39"), ("20.2", "acl.so"), ("9.0", "acl/__init__.py")])
def test_cann_atc_and_acl_have_rows_of_their_own(tmp_path: Path, name: str, acl: str) -> None:
    root, atc, _, version = build_release(tmp_path, name)
    rows = rows_of(tmp_path, {"PATH": "", "HOME": str(tmp_path)})
    assert rows["CANN"].state == rows["atc"].state == rows["acl"].state == FOUND
    assert (
        rows["CANN"].detail.startswith(f"{version} at {root}")
        and rows["atc"].detail == atc
        and acl in rows["acl"].detail
    )
    assert ("needs 5.0.4 or newer" in rows["CANN"].detail) == (name == "20.2")


def test_a_runtime_has_no_atc(tmp_path: Path) -> None:
    build_release(tmp_path, "runtime only")
    rows = rows_of(tmp_path, {"PATH": "", "HOME": str(tmp_path)})
    assert rows["CANN"].state == rows["acl"].state == FOUND
    assert rows["atc"].state == MISSING and "contains only the runtime" in rows["atc"].detail


@pytest.mark.parametrize(
    "text, state, said",
    [
        ("import os; os.abort()", MISSING, "cannot be imported (exit code -6"),
        ("raise ImportError('libge_runner.so: cannot open')", MISSING, "libge_runner.so"),
        ("", FOUND, "npu_bridge"),
    ],
)
def test_npu_bridge_is_tried_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, state: str, said: str
) -> None:
    package = tmp_path / "npu_bridge"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "npu_init.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor_module, "_module_path", lambda name: str(package / "__init__.py"))
    finding = doctor_module._npu_bridge()
    assert finding.state == state and said in finding.detail and "npu_bridge.npu_init" not in sys.modules


@pytest.mark.parametrize(
    "builds, state, said",
    [
        ({"tensorflow": "1.15.0"}, FOUND, "tensorflow 1.15.0: training"),
        ({"intel-tensorflow": "1.15.2"}, FOUND, "intel-tensorflow 1.15.2: "),
        (
            {"tensorflow": "1.15.0", "intel-tensorflow": "1.15.2"},
            MISSING,
            "tensorflow 1.15.0 and intel-tensorflow 1.15.2 overwrite each other",
        ),
        ({"tensorflow": "2.11.0"}, MISSING, "got tensorflow 2.11.0, expected 1.15"),
        ({}, MISSING, "unknown version"),
    ],
)
def test_it_says_which_tensorflow(monkeypatch: pytest.MonkeyPatch, builds: dict, state: str, said: str) -> None:
    monkeypatch.setattr(doctor_module, "_module_path", lambda name: "somewhere")
    monkeypatch.setattr(doctor_module, "installed_version", builds.get)
    finding = doctor_module._tensorflow()
    assert finding.state == state and said in finding.detail


def test_json_holds_the_table_and_the_conclusions(capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    named = {row["subject"] for row in report["rows"]}
    assert {"python", "tensorflow", "npu_bridge", "CANN", "atc", "acl", "driver", "devices", "simulator"} <= named
    assert set(report["stages"]) == {"train", "export", "om_runner"} and report["kind"] == "doctor"


def test_no_device_is_said_where_pyacl_is_there() -> None:
    rows = [
        Finding(name, FOUND, "")
        for name in ("tensorflow", "npu_bridge", "CANN", "acl", "simulator", "openvino", "onnxruntime")
    ]
    assert to_dict(rows + [Finding("devices", FOUND, "")])["stages"]["om_runner"] == "yes, through CANN's pyACL"
    assert "once a device" in to_dict(rows + [Finding("devices", MISSING, "")])["stages"]["om_runner"]


def test_doctor_works_where_the_path_is_empty() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vxm_convert", "doctor"],
        env={"HOME": "/nonexistent"},
        stdout=subprocess.PIPE,
        cwd=str(Path(__file__).resolve().parents[3]),
    )
    assert done.returncode == 0 and platform.python_version().encode() in done.stdout


DUO = """\
+--------------------------------------------------------------------------------------------------------+
| npu-smi 23.0.0                                   Version: 23.0.0                                       |
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 1       310P3                 | OK              | NA           45                0     / 0             |
| 0       0                     | 0000:01:00.0    | 0            1853 / 44280                            |
+-------------------------------+-----------------+------------------------------------------------------+
| 1       310P3                 | OK              | NA           43                0     / 0             |
| 1       1                     | 0000:01:00.0    | 0            1714 / 44280                            |
+===============================+=================+======================================================+
"""
A2 = """\
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 3     910B3               | OK            | 91.5        41                0    / 0             |
| 0                         | 0000:41:00.0  | 0           0    / 0          3332 / 65536         |
+===========================+===============+====================================================+
"""
A3 = """\
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     Ascend910           | OK            | 178.9       36                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 0           0    / 0          3158 / 65536         |
+---------------------------+---------------+----------------------------------------------------+
| 0     Ascend910           | OK            | -           36                0    / 0             |
| 1     1                   | 0000:9F:00.0  | 0           0    / 0          2888 / 65536         |
+===========================+===============+====================================================+
"""
BOARD = "        NPU ID                         : 0\n        Chip Name                      : Ascend910\n"
BOARD += "        NPU Name                       : 9392\n"


def test_tables_of_other_chips() -> None:
    duo = parse_npu_smi(DUO)
    assert [(d.number, d.soc_version, d.memory_mb) for d in duo] == [
        (0, "Ascend310P3", 44280),
        (1, "Ascend310P3", 44280),
    ]
    assert [d.place for d in duo] == [(1, 0), (1, 1)]
    assert [(d.number, d.soc_version) for d in parse_npu_smi(A2)] == [(3, "Ascend910B3")]
    a3 = parse_npu_smi(A3)
    assert [(d.number, d.place) for d in a3] == [(0, (0, 0)), (1, (0, 1))]
    assert [d.soc_version for d in a3] == ["", ""], "Ascend910 would be the 910A to ATC"
    assert parse_board(BOARD) == "Ascend910_9392" and parse_board("Chip Name : Ascend910") == ""


def test_the_board_names_an_a3(tmp_path: Path) -> None:
    smi = put_atc(
        tmp_path / "npu-smi",
        f"#!/bin/sh\nif [ \"$2\" = -t ]; then cat <<'EOF'\n{BOARD}EOF\nelse cat <<'EOF'\n{A3}EOF\nfi\n",
    )
    assert [d.soc_version for d in list_devices(str(smi))[0]] == ["Ascend910_9392"] * 2
    (tmp_path / "other").mkdir()
    environ = machine(tmp_path / "other", A3)
    said = rows_of(tmp_path / "other", environ)["devices"].detail
    assert "--soc-version not said; npu-smi info -t board -i 0 -c 1 gives it" in said
