# SPDX-License-Identifier: Apache-2.0
"""ProfiledRuntime: an AclRuntime whose executions acl.prof records, and the export of what it recorded by msprof."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import List, Optional

from om_runner.device.acl_runtime import AclRuntime
from om_runner.device.offline_model import OfflineModel
from vxm_convert.errors import ArtifactError, ToolchainError
from vxm_convert.model.contract import GraphContract
from vxm_convert.toolchain.find import Toolchain

LOG = logging.getLogger(__name__)

#: data of a profile: calls of ACL, and times of tasks
_MASK = 1 | 2
#: no counters of the AI cores: they would need further executions
_NO_METRICS = 0xFF
_MSPROF_PLACES = ("tools/profiler/bin/msprof", "bin/msprof", "toolkit/tools/profiler/bin/msprof")
_EXPORT_SECONDS = 600
_SUMMARIES = "op_summary*.csv"


class ProfiledRuntime(AclRuntime):
    """See `AclRuntime`; the profile covers everything between open and close.

    Parameters
    ----------
    folder : Path — where acl.prof puts its ``PROF_…`` folder; made here.
    """

    def __init__(
        self, acl_module: ModuleType, om_path: Path, contract: GraphContract, device_id: int, folder: Path
    ) -> None:
        super().__init__(acl_module, om_path, contract, device_id)
        self._folder = Path(folder)

    def _open_model(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # acl.prof must be started before the model is loaded.
        self._call.do("prof.init", str(self._folder.resolve()))
        self._later("prof.finalize")
        config = self._call.make("prof.create_config", [self.device_id], _NO_METRICS, 0, _MASK)
        self._later("prof.destroy_config", config)
        super()._open_model()
        self._call.do("prof.start", config)
        self._later("prof.stop", config)


def open_profiled(model: OfflineModel, device: int, folder: Path) -> ProfiledRuntime:
    """The profiled runtime of the model's toolchain, as a context manager that is not yet open."""
    return ProfiledRuntime(model.toolchain.load_acl(), model.om_path, model.contract, device, folder)


def operator_summaries(folder: Path, toolchain: Toolchain) -> List[Path]:
    """The ``op_summary*.csv`` of the profile in `folder`, exported by msprof where that is still to do.

    Raises
    ------
    ToolchainError
        If msprof is missing or fails.
    ArtifactError
        If there is nothing to read afterwards.
    """
    profiles = sorted(path for path in Path(folder).glob("PROF_*") if path.is_dir())
    if not profiles:
        raise ArtifactError(f"{folder}: acl.prof left no PROF_ folder; look into the log of CANN, ~/ascend/log")
    for profile in profiles:
        if not toolchain.simulated and not list(profile.rglob(_SUMMARIES)):
            _export(profile, toolchain)
    found = [path for profile in profiles for path in sorted(profile.rglob(_SUMMARIES))]
    if not found:
        raise ArtifactError(f"{folder}: the profile has no {_SUMMARIES}; export it with msprof --export=on")
    return found


def _export(profile: Path, toolchain: Toolchain) -> None:
    program = find_msprof(toolchain)
    if program is None:
        raise ToolchainError(
            f"msprof: not found on PATH or below {toolchain.root}, and the profile in {profile} has to be exported by it; "
            "install the CANN toolkit"
        )
    command = [program, "--export=on", f"--output={profile}"]
    try:
        done = subprocess.run(
            command,
            env=toolchain.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_EXPORT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ToolchainError(f"msprof: {program} cannot export {profile} ({exc})") from exc
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").strip()[-600:]
        raise ToolchainError(f"msprof: ended with exit code {done.returncode} for {profile}: {said}")


def find_msprof(toolchain: Toolchain) -> Optional[str]:
    """Path of msprof, of the toolchain first; None without one."""
    places = [toolchain.root / place for place in _MSPROF_PLACES] if toolchain.root is not None else []
    found = next((str(place) for place in places if os.access(str(place), os.X_OK) and place.is_file()), None)
    return found or shutil.which("msprof", path=toolchain.environment.get("PATH", ""))
