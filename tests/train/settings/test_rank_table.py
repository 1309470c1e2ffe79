# SPDX-License-Identifier: Apache-2.0
"""HCCL's rank table from hosts and devices, and everything that makes no table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from train.__main__ import main
from train.settings.rank_table import environment_lines, parse_devices, parse_hosts, rank_table
from vxm_convert.errors import ArtifactError, SpecError


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "a.conf"
    path.write_text("address_0=192.168.100.101\nnetmask_0=255.255.255.0\naddress_1=192.168.101.101\n")
    return path


def test_one_host(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "table.json"
    assert main(["rank-table", "--hosts", f"10.0.0.1={conf}", "--devices", "1,0", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == {
        "server_count": "1",
        "server_list": [
            {
                "device": [
                    {"device_id": "1", "device_ip": "192.168.101.101", "rank_id": "0"},
                    {"device_id": "0", "device_ip": "192.168.100.101", "rank_id": "1"},
                ],
                "server_id": "10.0.0.1",
            }
        ],
        "status": "completed",
        "version": "1.0",
    }
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"on 10.0.0.1: RANK_TABLE_FILE={out} RANK_SIZE=2 RANK_ID=0 ASCEND_DEVICE_ID=1"


def test_ranks_go_on_over_the_hosts(conf: Path) -> None:
    table = rank_table([("10.0.0.1", conf), ("10.0.0.2", conf)], [0, 1])
    ranks = [row["rank_id"] for server in table["server_list"] for row in server["device"]]
    assert ranks == ["0", "1", "2", "3"] and table["server_count"] == "2"
    assert environment_lines(table, Path("t"), 2) == [
        "on 10.0.0.2: RANK_TABLE_FILE=t RANK_SIZE=4 RANK_ID=2 ASCEND_DEVICE_ID=0"
    ]


@pytest.mark.parametrize(
    "hosts, words",
    [
        ("", "one or more"),
        ("10.0.0.1,10.0.0.2", "copy /etc/hccn.conf"),
        ("10.0.0.1=a,10.0.0.1=b", "all different"),
        ("10.0.0.300=a", "expected an IP address"),
    ],
)
def test_wrong_hosts(hosts: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_hosts(hosts)


@pytest.mark.parametrize("devices", ["", "0,0", "1-0", "a", "0-9999", "-1"])
def test_wrong_devices(devices: str) -> None:
    with pytest.raises(SpecError, match="--devices"):
        parse_devices(devices)


def test_a_device_without_an_address(conf: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="has no address_7, only address_0, address_1"):
        rank_table([("10.0.0.1", conf)], [7])
    with pytest.raises(ArtifactError, match="IP=FILE"):
        rank_table([("10.0.0.1", tmp_path / "none.conf")], [0])
