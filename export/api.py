# SPDX-License-Identifier: Apache-2.0
"""Export for Python programs; the command line is a parser in front of it."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Sequence, Tuple, Union

from export.autobatch import AUTO, choose_batch
from export.contracts import build_contract
from export.pipeline import ExportRequest, run_export
from export.plans import load_plan
from vxm_convert.artifacts.names import CONTRACT_NAME, OM_NAME
from vxm_convert.ascend import atc_flags as known_flags
from vxm_convert.ascend.chips import DEFAULT_SOC
from vxm_convert.errors import SpecError
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import DEFAULT_PLAN, PLANS, PrecisionPlan, plan_for
from vxm_convert.model.spec import ModelSpec, Shape3
from vxm_convert.toolchain.cann_versions import too_old_for
from vxm_convert.toolchain.find import Toolchain, find_toolchain
from vxm_convert.weights.box import checkpoint_or_box
from vxm_convert.weights.files import find_checkpoint
from vxm_convert.weights.keras_h5 import INDEXINGS

LOG = logging.getLogger(__name__)

PathLike = Union[str, Path]


@dataclass(frozen=True)
class Exported:
    """An export: its folder, the contract as written there, and the toolchain that compiled the model."""

    folder: Path
    contract: GraphContract
    toolchain: Toolchain

    @property
    def model(self) -> Path:
        """The offline model; the contract is beside it."""
        return self.folder / OM_NAME

    @property
    def contract_path(self) -> Path:
        """The contract's file."""
        return self.folder / CONTRACT_NAME

    @property
    def simulated(self) -> bool:
        """Whether the simulated toolchain compiled it: then no device loads it."""
        return self.toolchain.simulated


def export_model(
    checkpoint: PathLike,
    out: PathLike,
    *,
    variant: str = "vm2",
    shape: Sequence[int] = (160, 192, 224),
    batch: Union[int, str] = 1,
    precision: Union[str, PrecisionPlan] = DEFAULT_PLAN,
    soc_version: str = DEFAULT_SOC,
    h5_indexing: str = "ij",
    onnx: bool = True,
    strict_preflight: bool = True,
    toolchain: str = "",
    atc_flags: Sequence[str] = (),
    tune_kernels: bool = False,
    check_determinism: bool = False,
) -> Exported:
    """Turn a checkpoint into an offline model with its contract and reports. Needs TensorFlow.

    Parameters
    ----------
    checkpoint : str or Path — TensorFlow checkpoint (prefix, or folder whose newest is taken), Keras ``.h5``, or ``box``
        for the weights that come with the package.
    out : str or Path — folder for the artefacts; on failure it is as it was before.
    shape : three ints — network grid in voxels, each side a multiple of 16.
    batch : int or ``auto`` — pairs per run; auto takes what the estimate for the chip recommends.
    precision : str or PrecisionPlan — ``fast``, ``balanced``, ``accurate``, the file of a plan that ``export tune``
        wrote, or a plan.
    soc_version : str — chip, as ATC names it.
    h5_indexing : str — ``ij`` or ``xy``, axis convention of a .h5 network.
    onnx : bool — also write ``vxm.onnx``.
    strict_preflight : bool — stop when preflight finds errors.
    toolchain : str — ``auto``, ``cann`` or ``sim``; empty: ``$VXM_TOOLCHAIN``, else ``auto``.
    atc_flags : sequence of str — further flags for ATC, ``NAME=VALUE``.
    tune_kernels : bool — have CANN's AOE tune kernels on the device first, which can take hours.
    check_determinism : bool — also freeze twice, and run ``frozen.pb`` itself twice in TensorFlow.

    Returns
    -------
    Exported

    Raises
    ------
    SpecError, CheckpointError, FormatError
        For wrong values, weights or plans, before anything slow.
    ToolchainError
        If preflight or ATC refuses the graph.
    PrecisionError
        If an artefact does not compute what the checkpoint computes.

    Examples
    --------
    >>> from export import export_model                                            # doctest: +SKIP
    >>> done = export_model("box", "build/vxm", shape=(160, 192, 224))             # doctest: +SKIP
    >>> done.model, done.simulated                                                 # doctest: +SKIP
    (PosixPath('build/vxm/vxm.om'), True)
    """
    # Cheap checks first, which need neither TensorFlow nor minutes.
    spec = ModelSpec(variant, _three(shape), 1 if batch == AUTO else batch)  # type: ignore[arg-type]
    plan = _plan(precision, soc_version)
    if not soc_version.replace("_", "").replace("-", "").isalnum():
        raise SpecError(
            f"soc version: got {soc_version!r}, expected a chip name such as {DEFAULT_SOC}; `npu-smi info` shows it"
        )
    if h5_indexing not in INDEXINGS:
        raise SpecError(f"h5 indexing: got {h5_indexing!r}, expected one of {', '.join(INDEXINGS)}")
    passed, flag_files = _atc_flags(atc_flags, plan)
    files = find_checkpoint(checkpoint_or_box(Path(checkpoint), variant))
    compiler = find_toolchain(toolchain or None)
    _log_toolchain(compiler)
    choice = None
    if batch == AUTO:
        choice = choose_batch(spec, plan, soc_version, files, h5_indexing)
        spec = replace(spec, batch=choice.batch)
        LOG.info("--batch auto, ESTIMATE for %s: %s", soc_version, choice.why)
    contract = run_export(
        ExportRequest(
            replace(build_contract(spec, plan, soc_version, files), atc_flags=passed),
            files,
            h5_indexing,
            compiler,
            Path(out),
            onnx,
            strict_preflight,
            None if choice is None else choice.to_dict(),
            flag_files,
            tune_kernels,
            check_determinism,
        )
    )
    return Exported(Path(out), contract, compiler)


def _three(shape: Sequence[int]) -> Shape3:
    if len(shape) != 3:
        raise SpecError(f"shape: got {tuple(shape)}, expected three sides; pass (160, 192, 224)")
    x, y, z = (int(n) for n in shape)
    return x, y, z


def _plan(precision: Union[str, PrecisionPlan], soc_version: str) -> PrecisionPlan:
    if isinstance(precision, PrecisionPlan):
        return precision
    if precision in PLANS:
        return plan_for(precision, soc_version)
    if not Path(precision).is_file():
        raise SpecError(f"precision: got {precision!r}, expected one of {', '.join(PLANS)}, or the file of a plan")
    return load_plan(Path(precision))


def _atc_flags(words: Sequence[str], plan: PrecisionPlan) -> Tuple[Dict[str, str], Dict[str, Path]]:
    """Flags for the contract, and the files that they name, by their names beside the model."""
    flags: Dict[str, str] = {}
    files: Dict[str, Path] = {}
    for word in words:
        name, value = known_flags.split_flag(word)
        if name in flags:
            raise SpecError(f"--atc-flag {name}: passed twice; pass it once")
        kind = known_flags.ALLOWED[name]
        if kind.suffix and not Path(value).is_file() or kind.folder and not Path(value).is_dir():
            raise SpecError(f"--atc-flag {name}: {value} is no {'folder' if kind.folder else 'file'}")
        if kind.suffix:
            files[known_flags.kept_name(name)] = Path(value)
            value = known_flags.kept_name(name)
        flags[name] = str(Path(value).resolve()) if kind.folder else value
    known_flags.check_flags(flags, plan.mode, bool(plan.fp32_results))
    if flags:
        LOG.info("passed to ATC: %s; preflight and the estimate do not know what these change", ", ".join(flags))
    return flags, files


def _log_toolchain(toolchain: Toolchain) -> None:
    if toolchain.simulated:
        LOG.warning(
            "SIMULATED toolchain %s: the offline model will run only in the simulator, not on a device",
            toolchain.version,
        )
        return
    LOG.info("CANN %s at %s", toolchain.version, toolchain.root)
    for need in too_old_for(toolchain.version, sys.version_info[:2]):
        if need.what == "export":
            LOG.warning("CANN %s is older than %s, %s", toolchain.version, need.minimum, need.why)
