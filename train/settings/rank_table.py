# SPDX-License-Identifier: Apache-2.0
"""``python -m train rank-table``: HCCL's rank table from addresses of hosts and numbers of devices. Starts nothing.

Form 1.0 of the table, as published trainings have it. The addresses of the devices come from ``/etc/hccn.conf`` of each
host (``address_0=192.168.100.101``), which `hccn_tool` writes.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from vxm_convert import cliargs
from vxm_convert.artifacts.files import read_bounded, write_json
from vxm_convert.errors import EXIT_OK, SpecError
from vxm_convert.parser import Parser

_PROG = "train rank-table"
_HCCN = Path("/etc/hccn.conf")
_MAX_BYTES = 1 << 16
_MAX_DEVICES = 1024
_ADDRESS = re.compile(r"^address_(\d+)\s*=\s*(\S+)\s*$", re.MULTILINE)


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m train rank-table``."""
    parser = Parser(
        prog="python -m train rank-table",
        **cliargs.help_texts(
            "Write the rank table that HCCL needs for training on several NPUs, and print the environment of each process.",
            [
                "python -m train rank-table --hosts 10.0.0.1 --devices 0-7 --out rank_table.json",
                "python -m train rank-table --hosts 10.0.0.1=a.conf,10.0.0.2=b.conf --devices 0,1 --out rank_table.json",
            ],
            {0: "written"},
        ),
    )
    parser.add_argument(
        "--hosts",
        required=True,
        metavar="IP[=FILE],...",
        help="address of each host, with its hccn.conf; without a file the one of this machine, for a single host "
        "(required)",
    )
    parser.add_argument(
        "--devices",
        required=True,
        metavar="N,N|N-N",
        help="numbers of the devices on each host, such as 0,1 or 0-7 (required)",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE",
        help="rank table, for RANK_TABLE_FILE on every host (required)",
    )
    cliargs.add_common_group(parser)
    return parser


def main(argv: List[str]) -> int:
    """Exit code of ``python -m train rank-table``."""
    args = build_parser().parse_args(argv)
    cliargs.set_up_logging(args)
    return cliargs.run_main(lambda: _run(args), _PROG)


def _run(args: argparse.Namespace) -> int:
    table = rank_table(parse_hosts(args.hosts), parse_devices(args.devices))
    write_json(args.out, table)
    sys.stdout.write("\n".join(environment_lines(table, args.out)) + "\n")
    return EXIT_OK


def parse_hosts(text: str) -> List[Tuple[str, Path]]:
    """(address, its hccn.conf) of every host, in order; raises SpecError for anything else."""
    hosts: List[Tuple[str, Path]] = []
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    for entry in entries:
        address, given, path = entry.partition("=")
        if not given and len(entries) > 1:
            raise SpecError(
                f"--hosts: got {entry!r} among several, expected IP=FILE; copy /etc/hccn.conf of each host here"
            )
        hosts.append((_ip("--hosts", address), Path(path) if given else _HCCN))
    if not hosts or len({address for address, _ in hosts}) < len(hosts):
        raise SpecError(f"--hosts: got {text!r}, expected one or more addresses, all different")
    return hosts


def parse_devices(text: str) -> List[int]:
    """``0,1`` or ``0-7`` → numbers in order; raises SpecError for anything else, and for a number twice."""
    found: List[int] = []
    for entry in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", entry)
        if match is None:
            raise SpecError(f"--devices: got {text!r}, expected numbers such as 0,1 or 0-7")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        found += range(first, last + 1)
    if not found or len(set(found)) < len(found) or len(found) > _MAX_DEVICES:
        raise SpecError(f"--devices: got {text!r}, expected 1 to {_MAX_DEVICES} numbers, each once")
    return found


def rank_table(hosts: Sequence[Tuple[str, Path]], devices: Sequence[int]) -> Dict[str, Any]:
    """The table; ranks count devices of the first host, then those of the next.

    Raises
    ------
    SpecError
        If a host's file has no address of a device.
    ArtifactError
        If it cannot be read.
    """
    servers = []
    for position, (address, path) in enumerate(hosts):
        known = read_hccn(path)
        missing = [number for number in devices if number not in known]
        if missing:
            raise SpecError(
                f"{path}: has no address_{missing[0]}, only {', '.join(f'address_{n}' for n in sorted(known)) or 'none'}; "
                "give the devices addresses with hccn_tool, or pass other --devices"
            )
        first = position * len(devices)
        rows = [
            {"device_id": str(number), "device_ip": known[number], "rank_id": str(first + place)}
            for place, number in enumerate(devices)
        ]
        servers.append({"device": rows, "server_id": address})
    return {"server_count": str(len(servers)), "server_list": servers, "status": "completed", "version": "1.0"}


def read_hccn(path: Path) -> Dict[int, str]:
    """Device → address, from an hccn.conf."""
    text = read_bounded(path, _MAX_BYTES, "hccn.conf", "pass the file of the host with --hosts IP=FILE").decode(
        "utf-8", "replace"
    )
    return {int(number): _ip(str(path), address) for number, address in _ADDRESS.findall(text)}


def environment_lines(table: Dict[str, Any], path: Path, rank: Optional[int] = None) -> List[str]:
    """A line per process: where it runs and what its environment needs; of one `rank`, or of all."""
    size = sum(len(server["device"]) for server in table["server_list"])
    lines = []
    for server in table["server_list"]:
        for row in server["device"]:
            if rank in (None, int(row["rank_id"])):
                lines.append(
                    f"on {server['server_id']}: RANK_TABLE_FILE={path} RANK_SIZE={size} RANK_ID={row['rank_id']} "
                    f"ASCEND_DEVICE_ID={row['device_id']}"
                )
    return lines


def _ip(where: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError as exc:
        raise SpecError(f"{where}: got {text!r}, expected an IP address ({exc})") from exc
