# SPDX-License-Identifier: Apache-2.0
"""The Ascend devices of this machine, from driver files, device nodes and ``npu-smi info``; whether npu_bridge can be
imported.

Opens no device, and imports nothing: npu_bridge can end the process that imports it (its C++ side aborts), so a child
process tries.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from vxm_convert.toolchain.cann_versions import read_text
from vxm_convert.toolchain.driver import install_paths

_SECONDS = 30
_PROBE_SECONDS = 120
_SMI_PLACES = ("usr/local/bin/npu-smi", "usr/local/sbin/npu-smi", "usr/local/Ascend/driver/tools/npu-smi")
#: device nodes that a process needs besides /dev/davinciN
MANAGER_NODES = ("davinci_manager", "devmm_svm", "hisi_hdc")
#: names of families in the column Name
_FAMILIES = ("Ascend910", "Ascend310", "Ascend")
_FIRST_ROW = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*(\S+)\s*\|")
# | Chip  Device | or | Chip  Phy-ID |; older tables have the chip alone.
_SECOND_HEADER = re.compile(r"^\|\s*Chip\s+(Device|Phy-ID)\s*\|", re.IGNORECASE)
_SECOND_ROW = re.compile(r"^\|\s*(\d+)(?:\s+(\d+))?\s*\|")
_BOARD = re.compile(r"^\s*(Chip Name|NPU Name)\s*:\s*(\S+)\s*$", re.MULTILINE)
_MEMORY = re.compile(r"(\d+)\s*/\s*(\d+)\s*\|\s*$")


@dataclass(frozen=True)
class Device:
    """One chip.

    Parameters
    ----------
    number : int — logical number of the device: the column Device or Phy-ID where there is one, else NPU.
    name : str — as npu-smi prints it, e.g. ``910A``; ATC's name for it is ``Ascend910A``.
    health : str — ``OK``, ``Warning``, ``Alarm``, ``Critical``, ``UNKNOWN``.
    memory_mb : int or None — of the HBM, the last column.
    place : (int, int) — columns NPU and Chip, by which npu-smi is asked for more.
    board : str — ``<Chip Name>_<NPU Name>`` of a chip whose table names only its family; empty if not asked.
    """

    number: int
    name: str
    health: str
    memory_mb: Optional[int] = None
    place: Tuple[int, int] = field(default=(0, 0), compare=False)
    board: str = ""

    @property
    def needs_board(self) -> bool:
        """Whether the table names a family instead of a chip: an A3 is ``Ascend910``, which to ATC is the 910A."""
        return self.name in _FAMILIES

    @property
    def soc_version(self) -> str:
        """ATC's name; empty if the table does not say it."""
        if self.needs_board:
            return self.board
        return self.name if self.name.startswith("Ascend") else "Ascend" + self.name

    def to_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "soc_version": self.soc_version}


def driver_version(system: Path = Path("/")) -> Optional[str]:
    """Version of the installed driver, None if there is none; `system` is the root of the file system."""
    for home in install_paths(system):
        text = read_text(home / "driver/version.info")
        match = re.search(r"^(?:Version|package_version)\s*=\s*(\S+)", text, re.MULTILINE | re.IGNORECASE)
        if match:
            return match.group(1)
    return None


def device_nodes(system: Path = Path("/")) -> Tuple[List[str], List[str]]:
    """(existing ``davinciN`` nodes, missing manager nodes)."""
    folder = system / "dev"
    chips = sorted(path.name for path in folder.glob("*davinci[0-9]*") if re.fullmatch(r"v?davinci\d+", path.name))
    return chips, [name for name in MANAGER_NODES if not (folder / name).exists()]


def find_npu_smi(environ: Mapping[str, str], system: Path = Path("/")) -> Optional[str]:
    """Path of the program; the driver installs it in a folder that is not on every PATH."""
    found = shutil.which("npu-smi", path=environ.get("PATH", ""))
    places = [str(system / place) for place in _SMI_PLACES]
    return found or next((place for place in places if shutil.which(place)), None)


def list_devices(npu_smi: str) -> Tuple[List[Device], str]:
    """(devices, error or ""): runs ``npu-smi info``, and asks again for chips of which it names only the family."""
    try:
        done = subprocess.run(
            [npu_smi, "info"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return [], f"cannot run it ({exc})"
    text = done.stdout.decode("utf-8", "replace")
    devices = [_with_board(npu_smi, device) for device in parse_npu_smi(text)]
    if done.returncode or not devices:
        words = next((line.strip() for line in text.splitlines() if line.strip(" +-=|")), "it printed nothing")
        return devices, f"exit code {done.returncode}: {words}" if done.returncode else f"it lists no chip: {words}"
    return devices, ""


def npu_bridge_problem() -> Optional[str]:
    """Why npu_bridge cannot be imported, with advice; None if it can."""
    command = [sys.executable, "-c", "import npu_bridge.npu_init"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"importing it does not end ({exc}); check the driver with npu-smi info"
    if not done.returncode:
        return None
    words = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
    said = words[-1].strip() if words else "it said nothing"
    advice = "source CANN's set_env.sh and the tfplugin's, and use the adapter that belongs to this CANN"
    return f"cannot be imported (exit code {done.returncode}: {said}); {advice}"


def parse_npu_smi(text: str) -> List[Device]:
    """Devices in the table of ``npu-smi info``: two rows per chip, name and health in the first, number and memory in the
    second.
    """
    devices: List[Device] = []
    pending: Optional[Device] = None
    numbered = False
    for line in text.splitlines():
        first = _FIRST_ROW.match(line)
        numbered = numbered or bool(_SECOND_HEADER.match(line))
        if pending is not None:
            memory, second = _MEMORY.search(line), _SECOND_ROW.match(line)
            chip = int(second.group(1)) if second else 0
            number = int(second.group(2)) if numbered and second and second.group(2) else pending.number
            total = int(memory.group(2)) if memory else None
            devices.append(Device(number, pending.name, pending.health, total, (pending.number, chip)))
            pending = None
        elif first and not first.group(2).isdigit() and re.search(r"[A-Za-z]|^\d{3}$", first.group(2)):
            pending = Device(int(first.group(1)), first.group(2), first.group(3))
        elif line.startswith("| NPU") and "Process" in line:
            # The second table lists processes; its rows look the same.
            break
    return devices


def parse_board(text: str) -> str:
    """ATC's name of a chip from ``npu-smi info -t board -i NPU -c CHIP``: ``<Chip Name>_<NPU Name>``, empty if it does
    not give both.
    """
    found = dict(_BOARD.findall(text))
    return f"{found['Chip Name']}_{found['NPU Name']}" if len(found) == 2 else ""


def _with_board(npu_smi: str, device: Device) -> Device:
    """The device with the names of its board, where its table names only a family."""
    if not device.needs_board:
        return device
    npu, chip = device.place
    try:
        done = subprocess.run(
            [npu_smi, "info", "-t", "board", "-i", str(npu), "-c", str(chip)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return device
    return replace(device, board=parse_board(done.stdout.decode("utf-8", "replace")))
