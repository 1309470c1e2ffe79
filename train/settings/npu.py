# SPDX-License-Identifier: Apache-2.0
"""Settings of a run on an Ascend 910: precision, fusion, loop sinking, dumps, profiling; and the environment of its
process.

Imports neither TensorFlow nor npu_bridge; `train.devices.npu` applies them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from train.settings.npu_parameters import MIXED_MODES, PRECISION_MODES, Value, check_parameters
from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import ArtifactError, SpecError
from vxm_convert.text import whole_in

_DATA = Path(__file__).parent / "data"
#: Names that `--fusion-switch` accepts instead of a file. `default` is the setting of the published training on a 910.
FUSION_SWITCHES: Dict[str, Optional[Path]] = {
    "default": _DATA / "fusion_switch.cfg",
    "off": _DATA / "fusion_off.cfg",
    "none": None,
}
_MAX_BYTES = 1 << 20
_PROFILED = {
    "training_trace": "on",
    "task_trace": "on",
    "hccl": "on",
    "aicpu": "on",
    "aic_metrics": "PipeUtilization",
    "msproftx": "off",
}
#: The adapter needs a job number; this one is from the vendor's examples.
_JOB = "10087"
#: Variables of HCCL without a rank table, besides CM_WORKER_SIZE.
_CHIEF = ("CM_CHIEF_IP", "CM_CHIEF_PORT", "CM_CHIEF_DEVICE", "CM_WORKER_IP")
#: Seconds that a device waits for another: at the start, where the first one compiles (120 by default, published scripts
#: set 600), and in a collective, where the first one validates and writes checkpoints (1836 by default; a first-generation
#: 910 counts multiples of 68).
_WAITING = {"HCCL_CONNECT_TIMEOUT": "600", "HCCL_EXEC_TIMEOUT": str(68 * 80)}


@dataclass(frozen=True)
class NpuSettings:
    """One run's.

    Parameters
    ----------
    precision_mode : str — of the adapter. Conv3D of a 910 reads float16 in all of them.
    modify_mixlist : Path — operators that mixed precision treats differently, in the adapter's JSON form, or None.
    fusion_switch : str — ``default``, ``off``, ``none`` or the path of a file.
    iterations_per_loop : int — steps per call of the device.
    device_id : int — logical number of the device; None takes it from the environment.
    data_dump : bool — write inputs and outputs of all operators in the steps of `data_dump_step`, such as
        ``0|5|10-20``.
    over_dump : bool — write tensors of operators that overflowed.
    profiling : bool — write a profile.
    more : tuple of (name, value) — other parameters of the adapter; they have priority.
    """

    precision_mode: str = PRECISION_MODES[0]
    modify_mixlist: Optional[Path] = None
    fusion_switch: str = "default"
    iterations_per_loop: int = 1
    device_id: Optional[int] = None
    data_dump: bool = False
    data_dump_step: str = "0"
    over_dump: bool = False
    profiling: bool = False
    more: Tuple[Tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        if "iterations_per_loop" in dict(self.more):
            raise SpecError(
                "npu-parameter: iterations_per_loop is set by --iterations-per-loop, because the loop needs it too"
            )
        check_parameters(self.parameters(Path("out")))
        if self.modify_mixlist is not None:
            _json_object(self.modify_mixlist, "a list of operators for mixed precision")
        if self.fusion_file is not None:
            _check_fusion(self.fusion_file)

    @property
    def mixed(self) -> bool:
        """True if float16 may be chosen for any operator."""
        return self.precision_mode in MIXED_MODES

    @property
    def fusion_file(self) -> Optional[Path]:
        return (
            FUSION_SWITCHES[self.fusion_switch] if self.fusion_switch in FUSION_SWITCHES else Path(self.fusion_switch)
        )

    @property
    def diagnosing(self) -> bool:
        return self.data_dump or self.over_dump

    def folder(self, out: Path) -> Path:
        """Folder of dumps and profiles."""
        return Path(out).resolve() / "npu"

    def parameters(self, out: Path) -> Dict[str, Value]:
        """Name → value for the adapter."""
        folder = self.folder(out)
        values: Dict[str, Value] = {
            "use_off_line": True,
            "graph_run_mode": 1,
            "precision_mode": self.precision_mode,
            "iterations_per_loop": self.iterations_per_loop,
        }
        if self.iterations_per_loop > 1:
            # The device itself fetches the batches of a loop on the device.
            values["enable_data_pre_proc"] = True
        if self.modify_mixlist is not None:
            values["modify_mixlist"] = str(Path(self.modify_mixlist).resolve())
        if self.fusion_file is not None:
            values["fusion_switch_file"] = str(self.fusion_file.resolve())
        if self.device_id is not None:
            values["session_device_id"] = self.device_id
        if self.data_dump:
            values.update(
                enable_dump=True, dump_path=str(folder / "dump"), dump_step=self.data_dump_step, dump_mode="all"
            )
        if self.over_dump:
            values.update(enable_dump_debug=True, dump_path=str(folder / "overflow"), dump_debug_mode="all")
        if self.diagnosing:
            values.update(op_debug_level=4, debug_dir=str(folder / "debug"))
        if self.profiling:
            options = {"output": str(folder / "profiling"), **_PROFILED}
            values.update(profiling_mode=True, profiling_options=json.dumps(options, sort_keys=True))
        more = dict(self.more)
        if "precision_mode_v2" in more:
            values.pop("precision_mode")
        return {**values, **more}

    def folders(self, out: Path) -> Tuple[Path, ...]:
        """Folders that must exist before the session: the adapter refuses folders that do not exist."""
        folder = self.folder(out)
        wanted = {
            "dump": self.data_dump,
            "overflow": self.over_dump,
            "debug": self.diagnosing,
            "graphs": self.diagnosing,
            "profiling": self.profiling,
        }
        return tuple(folder / name for name, needed in wanted.items() if needed)

    def environment(self, out: Path, environ: Mapping[str, str], rank: int = 0) -> Dict[str, str]:
        """Variables to add to `environ`; existing ones are kept. `rank` is that of the command line.

        Raises
        ------
        SpecError
            For ranks that do not fit together; see `ranks_of`.
        """
        _, ranks = ranks_of(environ, rank)
        wanted = {"JOB_ID": _JOB, **(_WAITING if ranks > 1 else {})}
        if self.diagnosing:
            wanted.update(DUMP_GE_GRAPH="2", DUMP_GRAPH_LEVEL="3", DUMP_GRAPH_PATH=str(self.folder(out) / "graphs"))
        return {name: value for name, value in wanted.items() if name not in environ}


def ranks_of(environ: Mapping[str, str], rank: int = 0) -> Tuple[int, int]:
    """(rank, number of devices that train together): by ``RANK_ID``, ``RANK_SIZE`` and a rank table, or without a table by
    the variables ``CM_…``, with which the devices find each other (CANN 7 and newer).

    Parameters
    ----------
    rank : int — position of this process by ``--rank``, which the variables ``CM_…`` do not say.

    Raises
    ------
    SpecError
        Unless the environment is that of one device, or of several in one of the two ways.
    """
    if environ.get("RANK_TABLE_FILE") and environ.get("CM_CHIEF_IP"):
        raise SpecError("RANK_TABLE_FILE and CM_CHIEF_IP: both are set, the adapter refuses that; unset one")
    if environ.get("CM_WORKER_SIZE", "1") != "1":
        return _chief_ranks(environ, rank)
    if environ.get("RANK_TABLE_FILE") and not (environ.get("RANK_ID") or environ.get("POD_NAME")):
        raise SpecError(
            "RANK_TABLE_FILE: is set, but neither RANK_ID nor POD_NAME; the adapter needs one of them, or unset it"
        )
    given = [environ.get("RANK_SIZE", "1"), environ.get("RANK_ID", "0")]
    size, own = whole_in(given[0]), whole_in(given[1])
    if size is None or own is None or own >= size:
        raise SpecError(
            f"RANK_SIZE and RANK_ID: got {given[0]!r} and {given[1]!r}, expected a number of devices and one from 0 "
            "below it"
        )
    if size > 1 and not Path(environ.get("RANK_TABLE_FILE", "")).is_file():
        raise SpecError(
            f"RANK_TABLE_FILE: no such file ({environ.get('RANK_TABLE_FILE')}), RANK_SIZE {size} needs HCCL's "
            "rank table; `python -m train rank-table` makes one"
        )
    return own, size


def _chief_ranks(environ: Mapping[str, str], rank: int) -> Tuple[int, int]:
    """As `ranks_of`, without a rank table."""
    if environ.get("RANK_SIZE"):
        raise SpecError(
            "CM_WORKER_SIZE and RANK_SIZE: both are set, the adapter refuses that; unset RANK_SIZE, RANK_ID and "
            "RANK_TABLE_FILE, or the variables CM_…"
        )
    missing = [name for name in _CHIEF if not environ.get(name)]
    if missing:
        raise SpecError(f"CM_WORKER_SIZE: is set, but not {', '.join(missing)}; set all of {', '.join(_CHIEF)}")
    size = environ["CM_WORKER_SIZE"]
    if not size.isdigit() or not 0 <= rank < int(size):
        raise SpecError(
            f"CM_WORKER_SIZE and --rank: got {size!r} and {rank}, expected a number of devices and one from 0 below it"
        )
    return rank, int(size)


def _json_object(path: Path, what: str) -> Dict[str, Any]:
    try:
        found = json.loads(read_bounded(path, _MAX_BYTES, what, "check the path").decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise ArtifactError(f"{path}: not JSON ({exc}), expected {what}") from exc
    if not isinstance(found, dict) or not found:
        raise ArtifactError(f"{path}: expected {what}, a JSON object")
    return found


def _check_fusion(path: Path) -> None:
    """``{"Switch": {"GraphFusion" | "UBFusion": {pass: "on" | "off"}}}``."""
    switch = _json_object(path, "fusion switches").get("Switch")
    sound = (
        isinstance(switch, dict)
        and bool(switch)
        and set(switch) <= {"GraphFusion", "UBFusion"}
        and all(
            isinstance(passes, dict) and all(state in ("on", "off") for state in passes.values())
            for passes in switch.values()
        )
    )
    if not sound:
        raise ArtifactError(
            f'{path}: expected {{"Switch": {{"UBFusion": {{"NAME": "off"}}}}}}, with GraphFusion or UBFusion, on or off'
        )
