# SPDX-License-Identifier: Apache-2.0
"""``export --tune-kernels``: CANN's tuner AOE on the frozen graph, first its subgraphs, then its operators.

AOE measures kernels on the device and keeps the best in a repository, from which ATC takes them. Names of flags and
variables come from CANN's documentation; nothing was run with a real AOE.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from vxm_convert.artifacts.files import read_json, sha256_of, write_json, write_text
from vxm_convert.artifacts.names import CUSTOM_DTYPES_NAME, FROZEN_PB_NAME, KEEP_DTYPE_NAME
from vxm_convert.errors import ArtifactError, ToolchainError
from vxm_convert.model.contract import GraphContract
from vxm_convert.toolchain.find import Toolchain

_LOG = logging.getLogger(__name__)

#: AOE's job types, in the order in which they are to run
JOBS = {1: "subgraphs", 2: "operators"}
#: where AOE writes its repository and ATC looks for one
BANK_VARIABLE = "TUNE_BANK_PATH"
BANK_FOLDER = "kernels"
_PLACES = ("bin/aoe", "tools/aoe/bin/aoe", "aoe/bin/aoe", "compiler/bin/aoe")
_LOG_NAME = "aoe.log"
_TAIL = 1200


@dataclass(frozen=True)
class KernelBank:
    """A repository of tuned kernels.

    Parameters
    ----------
    folder : Path
    files : dict — relative path → sha256.
    sha256 : str — of the list of all files with their hashes.
    seconds : float — of tuning.
    """

    folder: Path
    files: Dict[str, str]
    sha256: str
    seconds: float

    def to_dict(self) -> Dict[str, Any]:
        """For the manifest."""
        return {
            "tuner": "aoe",
            "jobs": list(JOBS.values()),
            "sha256": self.sha256,
            "files": self.files,
            "seconds": round(self.seconds, 3),
        }

    def record(self, manifest: Path) -> None:
        """Add the repository to the manifest of a compilation."""
        write_json(manifest, {**read_json(manifest), "kernels": self.to_dict()})

    def used_by(self, toolchain: Toolchain) -> Toolchain:
        """The toolchain whose compiler takes its kernels from here."""
        return replace(toolchain, environment={**toolchain.environment, BANK_VARIABLE: str(self.folder)})


def find_aoe(toolchain: Toolchain) -> Optional[str]:
    """Path of the tuner, of the toolchain first; None without one, and for the simulator, which has no kernels."""
    if toolchain.simulated:
        return None
    places = [toolchain.root / place for place in _PLACES] if toolchain.root is not None else []
    found = next((str(place) for place in places if place.is_file() and os.access(str(place), os.X_OK)), None)
    return found or shutil.which("aoe", path=toolchain.environment.get("PATH", ""))


def tune_kernels(stage: Path, out: Path, contract: GraphContract, toolchain: Toolchain) -> Optional[KernelBank]:
    """Tune ``stage/frozen.pb``; without AOE one warning and None.

    Parameters
    ----------
    stage : Path — folder of the export in progress.
    out : Path — folder of the export; its repository in ``kernels`` is kept and grows from export to export.

    Raises
    ------
    ToolchainError
        If AOE fails.
    ArtifactError
        If the repository cannot be made.
    """
    program = find_aoe(toolchain)
    if program is None:
        why = "the simulated toolchain has no kernels" if toolchain.simulated else f"no aoe below {toolchain.root}"
        _LOG.warning("--tune-kernels: %s; the model is compiled with the kernels of the compiler", why)
        return None
    bank = Path(out).resolve() / BANK_FOLDER
    try:
        bank.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ArtifactError(f"{bank}: cannot be made ({exc.strerror}); AOE keeps its kernels there") from exc
    started = time.monotonic()
    for job, what in JOBS.items():
        _LOG.info("AOE: tuning %s of %s, which can take hours", what, FROZEN_PB_NAME)
        _run([program, f"--job_type={job}", *_arguments(contract)], contract, stage, bank, toolchain)
    return read_bank(bank, time.monotonic() - started)


def read_bank(folder: Path, seconds: float) -> KernelBank:
    """The files of a repository with their hashes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}
    if not files:
        _LOG.warning("AOE: found no kernel that is faster than the compiler's own")
    listed = "".join(f"{digest}  {name}\n" for name, digest in files.items())
    return KernelBank(folder, files, hashlib.sha256(listed.encode("utf-8")).hexdigest(), seconds)


def _arguments(contract: GraphContract) -> List[str]:
    """Those of ATC that change the graph; AOE takes the chip from the device."""
    arguments = [
        f"--model={FROZEN_PB_NAME}",
        "--framework=3",
        "--output=tuned",
        "--input_shape=" + ";".join(f"{t.node}:{','.join(str(n) for n in t.shape)}" for t in contract.inputs),
        "--out_nodes=" + ";".join(t.tensor_name for t in contract.outputs),
        "--precision_mode=" + contract.precision.mode,
    ]
    flags = {KEEP_DTYPE_NAME: "keep_dtype", CUSTOM_DTYPES_NAME: "customize_dtypes"}
    return arguments + [f"--{flags[name]}={name}" for name, lines in _dtype_files(contract) if lines]


def _dtype_files(contract: GraphContract) -> List[Tuple[str, Sequence[str]]]:
    """Files of the plan, as ATC gets them: a kernel is tuned for the dtypes that it will have."""
    plan = contract.precision
    return [(KEEP_DTYPE_NAME, plan.keep_dtype), (CUSTOM_DTYPES_NAME, plan.custom_dtypes)]


def _run(command: List[str], contract: GraphContract, stage: Path, bank: Path, toolchain: Toolchain) -> None:
    """In a folder of its own, because AOE writes into its working folder; its log is kept beside the repository."""
    work, out = stage / ".aoe", bank.parent
    shutil.rmtree(str(work), ignore_errors=True)
    work.mkdir()
    shutil.copyfile(str(stage / FROZEN_PB_NAME), str(work / FROZEN_PB_NAME))
    for name, lines in _dtype_files(contract):
        if lines:
            write_text(work / name, "\n".join(lines) + "\n")
    environment = {**toolchain.environment, BANK_VARIABLE: str(bank)}
    try:
        with open(str(out / _LOG_NAME), "ab") as log:
            log.write((" ".join(command) + "\n").encode("utf-8"))
            log.flush()
            done = subprocess.run(
                command, cwd=str(work), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
    except OSError as exc:
        raise ToolchainError(f"AOE: cannot start {command[0]} ({exc.strerror}); omit --tune-kernels") from exc
    finally:
        shutil.rmtree(str(work), ignore_errors=True)
    if done.returncode:
        said = (out / _LOG_NAME).read_text(encoding="utf-8", errors="replace")[-_TAIL:]
        raise ToolchainError(
            f"AOE ended with exit code {done.returncode}; it needs the device that the model is for, see npu-smi info; "
            f"omit --tune-kernels to compile without it; its last output ({out / _LOG_NAME}):\n{said}"
        )
