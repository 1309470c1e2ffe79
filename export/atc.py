# SPDX-License-Identifier: Apache-2.0
"""Runs ATC on a frozen graph. Owns the command line, the check of shapes before and the check of the model after.

ATC replaces the graph's shapes by those of the command line without comparing them, and writes files into its working
folder; so the comparison happens here, and ATC always runs in a separate folder with relative names.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence, Tuple, cast

from vxm_convert.artifacts.files import sha256_of, write_json, write_text
from vxm_convert.artifacts.names import (
    ATC_LOG_NAME,
    ATC_MANIFEST_NAME,
    CUSTOM_DTYPES_NAME,
    FROZEN_PB_NAME,
    KEEP_DTYPE_NAME,
    OM_NAME,
)
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.ascend.atc_flags import ALLOWED, KEPT_NAMES
from vxm_convert.ascend.chips import canonical
from vxm_convert.errors import ArtifactError, AtcError, ContractError, FormatError, ToolchainError
from vxm_convert.formats.tf_graph import placeholders, read_graph
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.toolchain.atc_errors import diagnose, name_operators, tail
from vxm_convert.toolchain.atc_python import find_atc_python, warning_of
from vxm_convert.toolchain.find import Toolchain

_LOG = logging.getLogger(__name__)

_STEM = "vxm"
_TENSORFLOW = 3
_FAILED_LINE = "ATC run failed"
_HEARTBEAT_SECONDS = 30.0
_MAX_LOG_CHARS = 8 << 20
#: folder for what a failed compilation left
EVIDENCE_NAME = "atc-failed"
_MAX_EVIDENCE = 256 << 20
#: inputs of the compiler; it gets copies
_READ_BY_ATC = (FROZEN_PB_NAME, KEEP_DTYPE_NAME, CUSTOM_DTYPES_NAME) + KEPT_NAMES
#: flags that name a folder of AOE's results
_BANKS = tuple(name for name, flag in ALLOWED.items() if flag.folder)
#: only these environment variables are recorded; the others may be private
_RECORDED = (
    "ASCEND",
    "TE_PARALLEL_COMPILER",
    "TOOLCHAIN_HOME",
    "DUMP_GE_GRAPH",
    "DUMP_GRAPH",
    "DDK_",
    "LD_LIBRARY_PATH",
    "VXM_TOOLCHAIN",
)


def build_arguments(contract: GraphContract) -> List[str]:
    """ATC's arguments, derived from the contract alone; file names are relative to the working folder."""
    arguments = [
        "--model=" + FROZEN_PB_NAME,
        f"--framework={_TENSORFLOW}",
        "--output=" + _STEM,
        "--soc_version=" + contract.soc_version,
        "--input_shape=" + ";".join(f"{t.node}:{','.join(str(n) for n in t.shape)}" for t in contract.inputs),
        "--out_nodes=" + ";".join(t.tensor_name for t in contract.outputs),
        "--precision_mode=" + contract.precision.mode,
    ]
    if "precision_mode_v2" in contract.atc_flags:
        # The same mode by its newer name; ATC refuses both together.
        arguments.pop()
    if contract.precision.keep_dtype:
        arguments.append("--keep_dtype=" + KEEP_DTYPE_NAME)
    if contract.precision.fp32_results:
        arguments.append("--customize_dtypes=" + CUSTOM_DTYPES_NAME)
    return arguments + [f"--{name}={value}" for name, value in sorted(contract.atc_flags.items())]


def compile_om(folder: Path, contract: GraphContract, toolchain: Toolchain) -> Path:
    """Compile ``folder/frozen.pb`` to ``folder/vxm.om``, with ``atc.log`` and ``atc_manifest.json`` beside it.

    Raises
    ------
    ContractError
        If contract and pb, or contract and the finished model, disagree.
    AtcError
        If ATC fails; with its code and output. No ``vxm.om`` is left in that case.
    ToolchainError
        If there is no ATC to run.
    """
    folder = Path(folder)
    if not toolchain.atc_command:
        raise ToolchainError(
            f"ATC: {toolchain.root} contains only the runtime, no compiler; install the CANN toolkit or pass "
            "--toolchain sim"
        )
    check_pb(folder / FROZEN_PB_NAME, contract)
    for name, lines in (
        (KEEP_DTYPE_NAME, contract.precision.keep_dtype),
        (CUSTOM_DTYPES_NAME, contract.precision.custom_dtypes),
    ):
        if lines:
            write_text(folder / name, "\n".join(lines) + "\n")
    if not toolchain.simulated:
        warning = warning_of(find_atc_python(toolchain.environment))
        if warning:
            _LOG.warning("%s", warning)
    command = list(toolchain.atc_command) + build_arguments(contract)
    om_path = folder / OM_NAME
    with _work_folder(folder) as work:
        for name in _READ_BY_ATC:
            if (folder / name).exists():
                shutil.copyfile(str(folder / name), str(work / name))
        started = time.monotonic()
        code, log = _run(command, work, toolchain.environment, folder / ATC_LOG_NAME)
        seconds = time.monotonic() - started
        try:
            made = _check_run(code, log, work)
            _check_model(made, contract, log)
        except AtcError:
            keep_evidence(work, folder / EVIDENCE_NAME)
            raise
        os.replace(str(made), str(om_path))
    write_json(folder / ATC_MANIFEST_NAME, _manifest(command, contract, toolchain, folder, seconds))
    return om_path


def keep_evidence(work: Path, kept: Path) -> None:
    """Copy what a failed compiler left (``check_result.json``, ``kernel_meta`` …), without its inputs: the vendor's
    support asks for it. Links are not followed, and at most `_MAX_EVIDENCE` bytes are kept, small files first.
    """
    files = [
        path
        for path in work.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name not in _READ_BY_ATC and path.suffix != ".om"
    ]
    left = _MAX_EVIDENCE
    for size, path in sorted((path.stat().st_size, path) for path in files):
        left -= size
        if left < 0:
            _LOG.warning("ATC: %s and larger files of the failed compilation are not kept", path.name)
            break
        target = kept / path.relative_to(work)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(path), str(target))
        except OSError as exc:
            _LOG.warning("ATC: cannot keep %s of the failed compilation (%s)", path.name, exc.strerror)
            break


def check_pb(path: Path, contract: GraphContract) -> None:
    """Raise ContractError unless the pb has exactly the contract's inputs, its output nodes, and every node that the
    precision plan names: the real ATC ignores unknown names and says so in its own log only.
    """
    nodes = read_graph(path)
    plan = contract.precision
    unknown = sorted(set(plan.keep_dtype + plan.fp32_results) - {node.name for node in nodes})
    if unknown:
        raise ContractError(
            f"{path}: has no node {', '.join(unknown)}, which precision plan {plan.name} names; ATC would ignore it; "
            "correct the plan: names as `inspect --ops` shows them"
        )
    found = placeholders(nodes)
    expected = {t.node: (t.dtype, t.shape) for t in contract.inputs}
    for name, (dtype, shape) in expected.items():
        if name not in found:
            raise ContractError(
                f"{path}: has no placeholder {name!r}, only {', '.join(found) or 'none'}; export the model again"
            )
        if found[name] != (dtype, shape):
            got = f"{found[name][0]} {_shape_text(found[name][1])}"
            raise ContractError(
                f"{path}: placeholder {name!r} is {got}, the contract says {dtype} {_shape_text(shape)}; "
                f"export the model again with the shape you want"
            )
    extra = sorted(set(found) - set(expected))
    missing = [t.node for t in contract.outputs if t.node not in {n.name for n in nodes}]
    if extra or missing:
        raise ContractError(
            f"{path}: placeholders beyond the contract: {extra}, output nodes missing: {missing}; export the model "
            "again"
        )


def _shape_text(shape: Optional[Sequence[int]]) -> str:
    return "of unknown rank" if shape is None else "(" + ",".join("?" if n < 0 else str(n) for n in shape) + ")"


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    work = folder / ".atc"
    shutil.rmtree(str(work), ignore_errors=True)
    try:
        work.mkdir()
        yield work
    except OSError as exc:
        raise ArtifactError(f"{folder}: cannot prepare a folder for ATC: {write_problem(exc)}") from exc
    finally:
        shutil.rmtree(str(work), ignore_errors=True)


def _run(command: List[str], work: Path, environment: Dict[str, str], log_path: Path) -> Tuple[int, str]:
    """Run ATC, its output going line by line to our log and to `log_path`; returns exit code and output."""
    _LOG.info("ATC: %s", " ".join(command))
    try:
        process = subprocess.Popen(
            command,
            cwd=str(work),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as exc:
        raise ToolchainError(f"ATC: cannot start {command[0]} ({exc.strerror}); check the CANN installation") from exc
    output = cast(IO[bytes], process.stdout)
    lines: List[str] = []
    size = 0
    try:
        with open(str(log_path), "w", encoding="utf-8") as log, _heartbeat():
            for raw in output:
                line = raw.decode("utf-8", "replace").rstrip()
                log.write(line + "\n")
                log.flush()
                if line:
                    _LOG.info("ATC| %s", line)
                size += len(line)
                if size < _MAX_LOG_CHARS:
                    lines.append(line)
        return process.wait(), "\n".join(lines)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        output.close()


@contextmanager
def _heartbeat() -> Iterator[None]:
    """A compiler can be silent for minutes; log at intervals that it is still running."""
    done = threading.Event()
    started = time.monotonic()

    def beat() -> None:
        while not done.wait(_HEARTBEAT_SECONDS):
            _LOG.info("ATC: still compiling, %.0f s", time.monotonic() - started)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _check_run(code: int, log: str, work: Path) -> Path:
    """The file that ATC made, under any name; raises AtcError unless exit code, last output and file agree on success."""
    made = sorted(work.glob(_STEM + ".om")) or sorted(work.glob(_STEM + "_*.om"))
    if code == 0 and _FAILED_LINE not in log and len(made) == 1:
        return made[0]
    if code == 0 and _FAILED_LINE not in log:
        raise AtcError(
            f"ATC: ended without error but left {len(made)} offline models, expected 1; its output:\n{tail(log)}",
            None,
            log,
        )
    found = diagnose(log, code)
    shown = f"{found.code}: {found.message}" if found.code else "no error code"
    who = f"; operators: {name_operators(found.operators)}" if found.operators else ""
    text = found.explanation
    summary = f"ATC failed (exit code {code}), {shown}{who}; cause: {text.cause}; do this: {text.next_step}"
    raise AtcError(f"{summary}; its last output:\n{tail(log)}", found.code, log)


def _check_model(path: Path, contract: GraphContract, log: str) -> None:
    """Reload the model; one that cannot be read, or has another chip or other tensors, is a failure of this run."""
    from vxm_convert.formats.om import read_om

    try:
        model = read_om(path)
    except FormatError as exc:
        raise AtcError(f"ATC: reported success, but wrote an invalid offline model: {exc}", None, log) from exc
    wanted = canonical(contract.soc_version)
    if canonical(model.soc_version) != wanted:
        raise ContractError(
            f"{OM_NAME}: compiled for {model.soc_version or 'an unnamed chip'}, the contract says "
            f"{contract.soc_version}"
        )
    found = {op.name: op.output_descs[0].logical_shape for op in model.graph if op.type == "Data" and op.output_descs}
    _check_inputs(found, contract.inputs)
    names = [str(n) for n in model.attrs.get("attr_model_out_nodes_name") or []]
    expected = [t.tensor_name for t in contract.outputs]
    if names != expected:
        raise ContractError(f"{OM_NAME}: outputs are {names}, the contract says {expected}")


def _check_inputs(found: Dict[str, Tuple[int, ...]], expected: Tuple[TensorSpec, ...]) -> None:
    wanted = {t.node: t.shape for t in expected}
    if {name: tuple(shape) for name, shape in found.items()} != wanted:
        raise ContractError(f"{OM_NAME}: inputs are {found}, the contract says {wanted}; export the model again")


def _manifest(
    command: List[str], contract: GraphContract, toolchain: Toolchain, folder: Path, seconds: float
) -> Dict[str, Any]:
    files = [name for name in (OM_NAME,) + _READ_BY_ATC if (folder / name).exists()]
    banks = {name: _folder_sha256(Path(contract.atc_flags[name])) for name in _BANKS if name in contract.atc_flags}
    return {
        "schema": 1,
        "command": command,
        "seconds": round(seconds, 3),
        "toolchain": toolchain.describe(),
        "soc_version": contract.soc_version,
        "precision": contract.precision.to_dict(),
        "atc_flags": dict(sorted(contract.atc_flags.items())),
        **({"banks": banks} if banks else {}),
        "environment": {k: v for k, v in sorted(toolchain.environment.items()) if k.startswith(_RECORDED)},
        "sha256": {name: sha256_of(folder / name) for name in files},
    }


def _folder_sha256(folder: Path) -> str:
    """One hash of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
