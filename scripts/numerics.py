# SPDX-License-Identifier: Apache-2.0
"""``make numerics``: errors of every precision plan on fixed phantoms and fixed weights, held against
tests/numerics.yaml.

Everything goes through the product: a TensorFlow checkpoint, export with its compiler, the device through pyACL; the
reference is TensorFlow on the checkpoint's graph. Weights are drawn by NumPy from a seed, as training would not give
the same bits on every machine; scans are phantoms. `scripts/ratchet.py` owns the file and the comparison.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from scripts.ratchet import SCHEMA, bound, compare, improved, read_baseline, tightened, write_baseline
from vxm_convert.artifacts.names import OM_NAME
from vxm_convert.ascend.chips import DEFAULT_SOC
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, PrecisionError, ToolchainError
from vxm_convert.metrics.registration import end_point_error
from vxm_convert.metrics.tensors import error_stats
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PLANS, PrecisionPlan
from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.variables import expected_variables
from vxm_convert.synthetic.heads import PhantomSettings, make_atlas, make_subject
from vxm_convert.toolchain.doctor import installed_version
from vxm_convert.toolchain.find import Toolchain, find_toolchain

LOG = logging.getLogger(__name__)

BASELINE = Path(__file__).resolve().parents[1] / "tests" / "numerics.yaml"
#: figure → unit and slack. Another CPU sums in another order, which flips fp16 roundings: tails move more than means.
FIGURES: Dict[str, Dict[str, Any]] = {
    "epe_voxel.max": {"unit": "voxel", "slack": 0.4},
    "epe_voxel.p999": {"unit": "voxel", "slack": 0.2},
    "epe_voxel.mean": {"unit": "voxel", "slack": 0.1},
    "moved.max_abs": {"unit": "of 0..1", "slack": 0.4},
    "moved.psnr_db": {"unit": "dB", "slack": 0.1},
}

#: of the fixed weights: size of the first layer, the share in which its two images differ, size of the flow layer
_GAIN, _OWN, _REACH = 8.0, 0.05, 4.0

Arrays = Dict[str, np.ndarray]


@dataclass(frozen=True)
class Setup:
    """What is measured; a baseline of another setup is refused."""

    variant: str = "vm2"
    shape: Tuple[int, int, int] = (32, 32, 32)
    scans: int = 2
    cohort_seed: int = 5
    weights_seed: int = 11
    soc_version: str = DEFAULT_SOC

    def to_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}


def build_parser() -> argparse.ArgumentParser:
    """Options of the ratchet."""
    parser = argparse.ArgumentParser(
        prog="make numerics",
        description="Measure every precision plan against TensorFlow and hold the errors against the baseline.",
        epilog="exit codes: 0 no figure is worse, 1 something to fix, 2 usage, 3 a figure is worse than the baseline "
        "allows",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        default=BASELINE,
        metavar="FILE",
        help="the committed figures (default: tests/numerics.yaml)",
    )
    parser.add_argument(
        "--update", action="store_true", help="write what was measured into the baseline (default: compare only)"
    )
    parser.add_argument(
        "--allow-worse",
        default="",
        metavar="WHY",
        help="with --update, let figures get worse; the reason is kept in the file (default: refuse)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the ratchet."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.allow_worse and not args.update:
        parser.error("argument --allow-worse: needs --update")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return run_main(lambda: run(args.baseline, args.update, args.allow_worse), "numerics")


def run(path: Path, update: bool = False, allow_worse: str = "", plans: Mapping[str, PrecisionPlan] = PLANS) -> int:
    """Measure and compare, or measure and rewrite; prints a table.

    Raises
    ------
    PrecisionError
        A figure is worse than allowed, or the baseline is of another setup.
    """
    setup = Setup()
    baseline = read_baseline(path) if path.exists() or not update else _empty(setup)
    if baseline["setup"] != setup.to_dict() and not update:
        raise PrecisionError(
            f"{path}: is of setup {baseline['setup']}, this script measures {setup.to_dict()}; rewrite it with --update"
        )
    measured = measure(setup, plans)
    made_with = versions()
    if update:
        write_baseline(path, tightened(baseline, measured, allow_worse, made_with, setup.to_dict(), FIGURES))
        print(f"written: {path}")
        return EXIT_OK
    print(table(baseline, measured))
    if made_with != baseline["made_with"]:
        print(f"note: measured with {made_with}, the baseline with {baseline['made_with']}")
    worse = compare(baseline, measured)
    if worse:
        raise PrecisionError("worse than the baseline: " + "; ".join(map(str, worse)) + f"; the limits are in {path}")
    better = improved(baseline, measured)
    print(
        "no figure is worse"
        + (f"; better by more than the slack, --update holds that: {', '.join(better)}" if better else "")
    )
    return EXIT_OK


def measure(setup: Setup, plans: Mapping[str, PrecisionPlan]) -> Dict[str, Dict[str, float]]:
    """Plan → `n` and the worst of every figure over the scans."""
    toolchain = find_toolchain("sim")
    spec = ModelSpec(setup.variant, setup.shape)
    weights = fixed_weights(spec, setup.weights_seed)
    pairs = phantom_pairs(setup)
    folder = Path(tempfile.mkdtemp(prefix="numerics-"))
    try:
        prefix = _write_checkpoint(folder / "checkpoint" / "model", weights)
        reference: List[Arrays] = []
        found = {}
        for name, plan in plans.items():
            contract = _export(prefix, spec, plan, setup.soc_version, toolchain, folder / name)
            reference = reference or _tensorflow(contract, weights, pairs)
            offline = _device(contract, toolchain, folder / name, pairs)
            found[name] = worst_figures(offline, reference)
        return found
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)


def fixed_weights(spec: ModelSpec, seed: int) -> Arrays:
    """Random weights, the same on every machine, as sensitive to rounding as trained ones: flows of some voxels, first
    layer decisive.

    A registration network looks at differences of two nearly equal images. So does this one: the first layer takes
    almost the negative of its weights of `moving` for `fixed`, and is loud; what fp16 does to each of the two does not
    cancel.
    """
    draw = np.random.RandomState(seed)
    weights = {}
    for name, shape in expected_variables(spec).items():
        scale = np.sqrt(2.0 / np.prod(shape[:-1])) if name.endswith("kernel") else 0.1
        weights[name] = scale * draw.standard_normal(shape)
    first = weights["conv3d/kernel"]
    first[..., 1, :] = _OWN * first[..., 1, :] - first[..., 0, :]
    first *= _GAIN
    weights["flow/kernel"] *= _REACH
    return {name: value.astype(np.float32) for name, value in weights.items()}


def phantom_pairs(setup: Setup) -> List[Arrays]:
    """``moving`` and ``fixed`` of every scan, shape (1, X, Y, Z, 1), float32, 0..1."""
    settings = PhantomSettings(setup.shape, setup.scans, setup.cohort_seed)

    def image(volume: np.ndarray) -> np.ndarray:
        return (volume.astype(np.float32) / np.float32(255))[np.newaxis, ..., np.newaxis]

    fixed = image(make_atlas(settings).vol)
    return [{"moving": image(make_subject(settings, index).vol), "fixed": fixed} for index in range(setup.scans)]


def worst_figures(offline: List[Arrays], reference: List[Arrays]) -> Dict[str, float]:
    """The worst of every figure over the scans, and how many scans those are."""
    rows = []
    for mine, theirs in zip(offline, reference):
        distance, moved = (
            end_point_error(mine["flow"][0], theirs["flow"][0]),
            error_stats(mine["moved"], theirs["moved"], peak=1.0),
        )
        if not moved.finite or not error_stats(mine["flow"], theirs["flow"]).finite:
            raise PrecisionError("numerics: NaN or Inf in an output, expected none")
        psnr = float("inf") if moved.psnr_db is None else moved.psnr_db
        rows.append(
            {
                "epe_voxel.max": distance.max,
                "epe_voxel.p999": distance.p999,
                "epe_voxel.mean": distance.mean,
                "moved.max_abs": moved.max_abs,
                "moved.psnr_db": psnr,
            }
        )
    worst = {name: (min if rule["unit"] == "dB" else max)(row[name] for row in rows) for name, rule in FIGURES.items()}
    return {"n": len(rows), **worst}


def table(baseline: Mapping[str, Any], measured: Mapping[str, Mapping[str, float]]) -> str:
    """Measured, baseline and limit of every figure."""
    lines = [f"{'plan':10s} {'figure':16s} {'measured':>11s} {'baseline':>11s} {'limit':>11s} unit, n"]
    for plan, row in baseline["plans"].items():
        for figure, rule in baseline["figures"].items():
            values = measured.get(plan, {}).get(figure, float("nan")), row[figure], bound(row[figure], rule)
            numbers = " ".join(f"{value:11.5g}" for value in values)
            lines.append(f"{plan:10s} {figure:16s} {numbers} {rule['unit']}, n = {row['n']}")
    return "\n".join(lines)


def versions() -> Dict[str, str]:
    """What has a part in the figures."""
    engine = os.environ.get("VXM_SIM_ENGINE") or ("openvino" if installed_version("openvino") else "onnxruntime")
    engine = "openvino" if engine == "auto" and installed_version("openvino") else engine
    return {
        "toolchain": "SIMULATED " + find_toolchain("sim").version,
        "engine": f"{engine} {installed_version(engine)}",
        "tensorflow": str(installed_version("tensorflow")),
        "numpy": np.__version__,
    }


def _empty(setup: Setup) -> Dict[str, Any]:
    return {
        "schema": SCHEMA,
        "setup": setup.to_dict(),
        "made_with": {},
        "figures": FIGURES,
        "plans": {},
        "accepted": [],
    }


def _write_checkpoint(prefix: Path, weights: Arrays) -> Path:
    tf = _tf()
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.Variable(value, name=name) for name, value in weights.items()]
        session.run([v.initializer for v in variables])
        prefix.parent.mkdir(parents=True)
        tf.train.Saver(variables).save(session, str(prefix), write_meta_graph=False)
    return prefix


def _export(
    prefix: Path, spec: ModelSpec, plan: PrecisionPlan, soc: str, toolchain: Toolchain, out: Path
) -> GraphContract:
    from export.contracts import build_contract
    from export.pipeline import ExportRequest, run_export
    from vxm_convert.weights.files import find_checkpoint

    return run_export(
        ExportRequest(build_contract(spec, plan, soc), find_checkpoint(prefix), "ij", toolchain, out, with_onnx=False)
    )


def _tensorflow(contract: GraphContract, weights: Arrays, pairs: List[Arrays]) -> List[Arrays]:
    from export.parity import run_checkpoint_graph

    return [run_checkpoint_graph(contract, weights, pair) for pair in pairs]


def _device(contract: GraphContract, toolchain: Toolchain, folder: Path, pairs: List[Arrays]) -> List[Arrays]:
    from om_runner.device.acl_runtime import AclRuntime

    with AclRuntime(toolchain.load_acl(), folder / OM_NAME, contract) as runtime:
        return [runtime.run(pair).outputs for pair in pairs]


def _tf() -> Any:
    try:
        from vxm_convert.network.tf1 import tf
    except ImportError as exc:
        raise ToolchainError(
            f"numerics: needs TensorFlow 1.15, which is not here ({exc}); run it with the Python of `make setup`"
        ) from exc
    return tf


if __name__ == "__main__":
    sys.exit(main())
