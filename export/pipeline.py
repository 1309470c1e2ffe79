# SPDX-License-Identifier: Apache-2.0
"""The export from checkpoint to offline model: steps in order; artefacts are built in a temporary folder and moved into
place together.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

import numpy as np

import vxm_convert
from export.atc import EVIDENCE_NAME, compile_om
from export.kernels import tune_kernels
from export.preflight.check import run_preflight, table, write_reports
from vxm_convert.artifacts.files import check_output_folder, sha256_of, sidecar_path, write_json, write_sidecar
from vxm_convert.artifacts.names import (
    ATC_LOG_NAME,
    ATC_MANIFEST_NAME,
    CONTRACT_NAME,
    CUSTOM_DTYPES_NAME,
    FROZEN_PB_NAME,
    KEEP_DTYPE_NAME,
    OM_NAME,
    ONNX_NAME,
    PARITY_NAME,
    PREFLIGHT_CSV,
    PREFLIGHT_JSON,
    SUMS_NAME,
)
from vxm_convert.artifacts.reports import report_head
from vxm_convert.artifacts.sha256sums import files_below, finish_manifest
from vxm_convert.artifacts.temporaries import clear_temporaries, temporary_prefix
from vxm_convert.ascend.atc_flags import KEPT_NAMES
from vxm_convert.cliargs import stop_if_asked
from vxm_convert.errors import ArtifactError, AtcError, ToolchainError
from vxm_convert.model.contract import GraphContract
from vxm_convert.toolchain.find import Toolchain
from vxm_convert.weights.files import CheckpointFiles

_LOG = logging.getLogger(__name__)

Arrays = Dict[str, np.ndarray]

FAILED_LOG_NAME = "atc-failed.log"
FAILED_PREFLIGHT_NAME = "preflight-failed.csv"
_NO_TOOLCHAIN = {"kind": "none"}
#: everything an export may write; files of an earlier run that this one does not make are removed, so that a folder
#: never mixes two exports
_ARTEFACTS = (
    FROZEN_PB_NAME,
    ONNX_NAME,
    OM_NAME,
    PARITY_NAME,
    ATC_LOG_NAME,
    ATC_MANIFEST_NAME,
    KEEP_DTYPE_NAME,
    CUSTOM_DTYPES_NAME,
    PREFLIGHT_CSV,
    PREFLIGHT_JSON,
) + KEPT_NAMES


@dataclass(frozen=True)
class ExportRequest:
    """An export to do.

    Parameters
    ----------
    contract : GraphContract — model, tensors, precision and chip; hashes and tools still empty.
    files : CheckpointFiles — the weights.
    h5_indexing : str — ``ij`` or ``xy``.
    toolchain : Toolchain — the compiler.
    out : Path — folder for the artefacts.
    with_onnx : bool
    strict_preflight : bool — stop when preflight finds errors.
    batch_choice : dict or None — how the batch was chosen, if not by the user; goes into ``parity.json`` and the
        contract.
    check_determinism : bool — freeze twice, and run ``frozen.pb`` itself twice in TensorFlow.
    """

    contract: GraphContract
    files: CheckpointFiles
    h5_indexing: str
    toolchain: Toolchain
    out: Path
    with_onnx: bool = True
    strict_preflight: bool = True
    batch_choice: Optional[Dict[str, Any]] = None
    #: name beside the model → file that a flag of ATC names
    flag_files: Mapping[str, Path] = field(default_factory=dict)
    #: have AOE tune kernels before ATC compiles
    tune_kernels: bool = False
    check_determinism: bool = False


def run_export(request: ExportRequest) -> GraphContract:
    """Run every step and put the artefacts into `request.out`; on any failure the folder is as it was before.

    Returns
    -------
    GraphContract — with hashes and tool versions, as written to ``contract.json``.

    Raises
    ------
    VxmError
        As raised by the failed step. After a failure of ATC its log is kept as ``atc-failed.log``, after errors of
        preflight its table as ``preflight-failed.csv``; what ATC left is in the folder ``atc-failed``.
    """
    with _staging(request.out) as stage:
        contract = _build(request, stage)
        _publish(stage, request.out)
    return contract


def _build(request: ExportRequest, stage: Path) -> GraphContract:
    """Make all artefacts in `stage`."""
    from export import freeze, parity
    from vxm_convert.network import restore

    contract = request.contract
    _step(1, f"reading {request.files.path}")
    weights = restore.load_weights(request.files, contract.model, request.h5_indexing)
    hashes = request.files.hashes()
    _step(2, f"freezing {contract.model.variant}, {sum(w.size for w in weights.values())} parameters")
    pb = stage / FROZEN_PB_NAME
    freeze.write_pb(freeze.freeze(contract, weights), pb)
    made_from = dict(hashes)
    hashes["frozen_pb"] = _describe(pb, made_from, _NO_TOOLCHAIN, h5_indexing=request.h5_indexing)
    contract.save(stage / CONTRACT_NAME)

    _step(3, f"preflight of {FROZEN_PB_NAME} for {contract.soc_version}")
    _preflight(request, stage)

    # One run of each side is enough: vxm.onnx is made from frozen.pb, and its engine is several times faster.
    in_tensorflow = request.check_determinism or not request.with_onnx
    _step(4, f"parity: the checkpoint's graph{' and frozen.pb' if in_tensorflow else ''} in TensorFlow")
    pair = parity.smooth_pair(contract.model)
    reference = parity.run_checkpoint_graph(contract, weights, pair)
    rows, tools = [], _tool_versions()
    if in_tensorflow:
        rows.append(_frozen_row(request, pb, weights, pair, reference))
    if request.with_onnx:
        _step(5, "ONNX: converting, checking, and running it for parity")
        rows.append(_add_onnx(stage, pair, reference, hashes, tools))
    else:
        _step(5, "ONNX: skipped")
    head = report_head("export parity", _NO_TOOLCHAIN, False, contract.model.batch)
    if request.batch_choice is not None:
        head["batch_choice"] = request.batch_choice
        tools["batch"] = f"auto; {request.batch_choice['why']}"
    write_json(
        stage / PARITY_NAME,
        {
            **head,
            "input": f"smooth random pair, seed {parity.PAIR_SEED}",
            "comparisons": rows,
            "not_checked": _not_checked(request),
        },
    )
    del pair, reference

    name = "the SIMULATED toolchain" if request.toolchain.simulated else "CANN"
    _step(6, f"ATC of {name} {request.toolchain.version}: precision {contract.precision.name}, {contract.soc_version}")
    bank = tune_kernels(stage, request.out, contract, request.toolchain) if request.tune_kernels else None
    om = _compile(request if bank is None else replace(request, toolchain=bank.used_by(request.toolchain)), stage)
    if bank is not None:
        bank.record(stage / ATC_MANIFEST_NAME)
    details = {"precision": contract.precision.to_dict(), "soc_version": contract.soc_version}
    hashes["om"] = _describe(om, {"frozen_pb": hashes["frozen_pb"]}, request.toolchain.describe(), **details)
    tools["atc"] = request.toolchain.version
    contract = replace(contract, hashes=hashes, tools=tools)
    contract.save(stage / CONTRACT_NAME)
    return contract


def _frozen_row(request: ExportRequest, pb: Path, weights: Arrays, pair: Arrays, reference: Arrays) -> Dict[str, Any]:
    """Parity of ``frozen.pb``, run in TensorFlow, with the checkpoint's graph; with `check_determinism`, also that a second
    freezing gives the same bytes and a second run the same bits.
    """
    from export import freeze, parity

    contract = request.contract
    kind = "frozen_pb_split" if contract.precision.split_weights else "frozen_pb"
    frozen = parity.run_pb(pb, contract, pair)
    row = parity.compare(kind, reference, frozen, ("checkpoint graph, TensorFlow", "frozen.pb, TensorFlow"))
    if request.check_determinism:
        again = pb.with_name(".again.pb")
        try:
            freeze.write_pb(freeze.freeze(contract, weights), again)
            parity.check_same_bytes(pb, again)
        finally:
            if again.exists():
                again.unlink()
        parity.check_same_bits(frozen, parity.run_pb(pb, contract, pair))
        row["determinism"] = {"frozen_twice": "same bytes", "run_twice": "same bits"}
    return row


def _not_checked(request: ExportRequest) -> List[str]:
    """What this export did not look at, for ``parity.json``."""
    if request.check_determinism:
        return []
    determinism = "determinism: frozen.pb was not frozen twice and not run twice; --check-determinism does both"
    if not request.with_onnx:
        return [determinism]
    own = "frozen.pb was not run itself: vxm.onnx, made from it, was compared instead; --check-determinism runs it in TensorFlow"
    return [own, determinism]


def _preflight(request: ExportRequest, stage: Path) -> None:
    """Check the graph, write the reports, log the findings; raises ToolchainError for errors unless they are only
    reported.
    """
    from export.preflight.view.shapes import tensorflow_shapes

    contract, pb = request.contract, stage / FROZEN_PB_NAME
    outputs = [tensor.tensor_name for tensor in contract.outputs]
    result = run_preflight(pb, contract.soc_version, contract.precision, outputs, tensorflow_shapes(pb))
    write_reports(result, stage, request.toolchain.describe())
    for line in table(result):
        _LOG.info("%s", line)
    try:
        result.check()
    except ToolchainError as exc:
        if not request.strict_preflight:
            _LOG.warning("%s\n(--preflight report: ATC decides)", exc)
            return
        kept = request.out / FAILED_PREFLIGHT_NAME
        os.replace(str(stage / PREFLIGHT_CSV), str(kept))
        raise ToolchainError(f"{exc}\n(the whole table: {kept}; --preflight report lets ATC decide)") from exc


def _describe(path: Path, made_from: Dict[str, str], toolchain: Dict[str, Any], **details: object) -> str:
    """Side-car for `path`; returns the file's sha256."""
    write_sidecar(path, made_from, toolchain, **details)
    return sha256_of(path)


def _add_onnx(
    stage: Path, pair: Arrays, reference: Arrays, hashes: Dict[str, str], tools: Dict[str, str]
) -> Dict[str, Any]:
    """Write the ONNX model, record its hash and tools; returns its parity row."""
    from export import onnx_model, parity

    path = stage / ONNX_NAME
    results = onnx_model.make_onnx(stage / FROZEN_PB_NAME, stage / CONTRACT_NAME, path, pair)
    tools.update(onnx_model.tool_versions(), onnx_engine=results["engine"])
    hashes["onnx"] = _describe(path, {"frozen_pb": hashes["frozen_pb"]}, _NO_TOOLCHAIN, opset=onnx_model.OPSET)
    names = ("checkpoint graph, TensorFlow", f"vxm.onnx, made from frozen.pb, {results['engine']}")
    return parity.compare("onnx", reference, results, names)


def _compile(request: ExportRequest, stage: Path) -> Path:
    for name, path in request.flag_files.items():
        try:
            shutil.copyfile(str(path), str(stage / name))
        except OSError as exc:
            raise ArtifactError(f"{path}: cannot read the file of --atc-flag ({exc.strerror})") from exc
    try:
        return compile_om(stage, request.contract, request.toolchain)
    except AtcError as exc:
        kept, evidence = request.out / FAILED_LOG_NAME, request.out / EVIDENCE_NAME
        shutil.rmtree(str(evidence), ignore_errors=True)
        words = ""
        if (stage / EVIDENCE_NAME).is_dir():
            os.replace(str(stage / EVIDENCE_NAME), str(evidence))
            words = f"; what the compiler left: {evidence}"
        if (stage / ATC_LOG_NAME).exists():
            os.replace(str(stage / ATC_LOG_NAME), str(kept))
            raise AtcError(f"{exc}\n(all of it: {kept}{words})", exc.code, exc.log) from exc
        raise


def _tool_versions() -> Dict[str, str]:
    from vxm_convert.network.tf1 import tf

    versions = {"vxm_convert": vxm_convert.__version__, "python": platform.python_version()}
    return {**versions, "tensorflow": tf.__version__, "numpy": np.__version__}


def _step(number: int, text: str) -> None:
    stop_if_asked()
    _LOG.info("[%d/6] %s", number, text)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A temporary folder inside `out`; removed afterwards, together with an `out` that did not exist before and is
    empty.
    """
    existed = out.exists()
    check_output_folder(out)
    clear_temporaries(out)
    stage = Path(tempfile.mkdtemp(prefix=temporary_prefix(), suffix="-export", dir=str(out)))
    try:
        yield stage
    finally:
        shutil.rmtree(str(stage), ignore_errors=True)
        if not existed and not any(out.iterdir()):
            out.rmdir()


def _publish(stage: Path, out: Path) -> None:
    """Move the artefacts into place. The contract is removed first and written last: every reader refuses a folder
    without it.
    """
    finish_manifest(stage, files_below(stage, "."), {})
    try:
        _remove(out / CONTRACT_NAME)
        _remove(out / SUMS_NAME)
        _remove(out / FAILED_LOG_NAME)
        _remove(out / FAILED_PREFLIGHT_NAME)
        shutil.rmtree(str(out / EVIDENCE_NAME), ignore_errors=True)
        for name in _ARTEFACTS:
            for old in (out / name, sidecar_path(out / name)):
                new = stage / old.name
                if new.exists():
                    os.replace(str(new), str(old))
                else:
                    _remove(old)
        os.replace(str(stage / SUMS_NAME), str(out / SUMS_NAME))
        os.replace(str(stage / CONTRACT_NAME), str(out / CONTRACT_NAME))
    except OSError as exc:
        raise ArtifactError(
            f"{out}: cannot move the artefacts there ({exc}); check its permissions and export again"
        ) from exc


def _remove(path: Path) -> None:
    if path.exists():
        path.unlink()
