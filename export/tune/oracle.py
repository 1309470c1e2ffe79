# SPDX-License-Identifier: Apache-2.0
"""Judges a candidate as a user would: compile it with ATC, register the scans with ``om_runner``, read the precision
report.

Files and processes only; the runner is never imported. The reference is the original network in fp32 for every
candidate, also for those whose weights are split: their folder holds the original frozen graph, and the contract names
its hash.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from export.atc import compile_om
from export.tune.cost import keep_of, results_of, splits_of
from export.tune.margins import smallest_margin
from export.tune.trials import Atoms, Verdict
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.artifacts.names import CONTRACT_NAME, FROZEN_PB_NAME, OM_NAME, PRECISION_FOLDER, REPORT_JSON
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, AtcError, ContractError, ToolchainError
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PrecisionPlan
from vxm_convert.toolchain.find import Toolchain

_LOG = logging.getLogger(__name__)

PLAN_NAME = "tuned"
REPORT = Path(PRECISION_FOLDER) / REPORT_JSON
_ROOT = Path(__file__).resolve().parents[2]
_MAX_REPORT_BYTES = 1 << 28
_WORDS = 600


@dataclass(frozen=True)
class Setup:
    """What all candidates have in common.

    Parameters
    ----------
    contract : GraphContract — of the network without split weights; its plan gives the mode.
    pb : Path — the frozen graph of that network.
    toolchain : Toolchain
    scans, atlas : Path — folder and fixed image.
    profile : str — name or file, as ``om_runner --profile`` takes it.
    count : int — scans in the folder; all of them are compared.
    work : Path — folder for candidates, one at a time, and the cache of references.
    device : int
    reference_python : str or None
    """

    contract: GraphContract
    pb: Path
    toolchain: Toolchain
    scans: Path
    atlas: Path
    profile: str
    count: int
    work: Path
    device: int = 0
    reference_python: Optional[str] = None


def plan_of(atoms: Atoms, mode: str) -> PrecisionPlan:
    """The plan that a set of decisions is."""
    return PrecisionPlan(PLAN_NAME, mode, keep_of(atoms), splits_of(atoms), results_of(atoms))


class FileOracle:
    """Callable: atoms → Verdict.

    Raises
    ------
    ToolchainError
        When called, if the first candidate cannot be judged at all: that is no fault of a candidate.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._proven = False
        self._pb_sha256 = sha256_of(setup.pb)

    def __call__(self, atoms: Atoms) -> Verdict:
        folder = self._setup.work / "candidate"
        shutil.rmtree(str(folder), ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            verdict, judged = self._judge(atoms, folder)
        finally:
            shutil.rmtree(str(folder), ignore_errors=True)
        if not judged and not self._proven:
            raise ToolchainError(f"tune: the first candidate cannot be judged, so no other will be: {verdict.reason}")
        self._proven = True
        return verdict

    def _judge(self, atoms: Atoms, folder: Path) -> Tuple[Verdict, bool]:
        """Verdict, and whether there was a report to judge by."""
        try:
            self._compile(atoms, folder)
        except (AtcError, ContractError) as exc:
            return _invalid(str(exc)), False
        code, words = self._register(folder)
        report = _read_report(folder / "out" / REPORT)
        if report is None or code not in (EXIT_OK, EXIT_TOLERANCE):
            return _invalid(f"om_runner ended with exit code {code}: {words}"), False
        return judge_report(report, code, self._setup.count), True

    def _compile(self, atoms: Atoms, folder: Path) -> None:
        contract = replace(self._setup.contract, precision=plan_of(atoms, self._setup.contract.precision.mode))
        if contract.precision.split_weights:
            _write_split(self._setup.pb, contract, folder / FROZEN_PB_NAME)
        else:
            shutil.copyfile(str(self._setup.pb), str(folder / FROZEN_PB_NAME))
        om = compile_om(folder, contract, self._setup.toolchain)
        shutil.copyfile(str(self._setup.pb), str(folder / FROZEN_PB_NAME))
        hashes = {"frozen_pb": self._pb_sha256, "om": sha256_of(om)}
        replace(contract, hashes=hashes, tools={"atc": self._setup.toolchain.version}).save(folder / CONTRACT_NAME)

    def _register(self, folder: Path) -> Tuple[int, str]:
        setup = self._setup
        command = [
            sys.executable,
            "-m",
            "om_runner",
            "--input",
            str(setup.scans),
            "--atlas",
            str(setup.atlas),
            "--model",
            str(folder / OM_NAME),
            "--out",
            str(folder / "out"),
            "--compare",
            "all",
            "--profile",
            setup.profile,
            "--device",
            str(setup.device),
            "--toolchain",
            "sim" if setup.toolchain.simulated else "cann",
            "--reference-cache",
            str(setup.work / "reference"),
            "--quiet",
        ]
        if setup.reference_python:
            command += ["--reference-python", setup.reference_python]
        paths = [str(_ROOT)] + [entry for entry in (os.environ.get("PYTHONPATH"),) if entry]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
        except OSError as exc:
            raise ToolchainError(f"tune: cannot start {sys.executable} ({exc.strerror})") from exc
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
        return done.returncode, "; ".join(errors)[-_WORDS:] or "it said nothing"


def judge_report(report: Dict[str, Any], code: int, count: int) -> Verdict:
    """The verdict that a precision report gives.

    Parameters
    ----------
    code : int — exit code of the runner: 0 within the profile, 3 outside.
    count : int — scans that must have been compared.
    """
    rows: List[Dict[str, Any]] = [row for row in report.get("rows") or [] if isinstance(row, dict)]
    if len(rows) != count:
        return _invalid(f"{len(rows)} of {count} scans compared")
    margin, words, finite = smallest_margin(rows, (report.get("profile") or {}).get("limits") or [])
    if not finite:
        return _invalid(words)
    accepted = code == EXIT_OK and report.get("verdict") == "ok"
    # A limit that cannot be expressed as a share must not turn a failure into headroom.
    return Verdict(accepted, margin if accepted else min(margin, -1e-9), words)


def _invalid(reason: str) -> Verdict:
    return Verdict(False, float("-inf"), reason[:_WORDS], True)


def _write_split(pb: Path, contract: GraphContract, path: Path) -> None:
    """The original network with the contract's layers split, by the export's own pass."""
    from export import freeze
    from export.passes.apply import apply_passes
    from vxm_convert.network.tf1 import tf

    graph_def = tf.GraphDef()
    graph_def.ParseFromString(pb.read_bytes())
    apply_passes(graph_def, contract)
    freeze.check_frozen(graph_def, contract)
    freeze.write_pb(graph_def, path)


def _read_report(path: Path) -> Optional[Dict[str, Any]]:
    try:
        if path.stat().st_size > _MAX_REPORT_BYTES:
            return None
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None
