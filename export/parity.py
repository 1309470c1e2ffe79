# SPDX-License-Identifier: Apache-2.0
"""Shows that the artefacts compute what the checkpoint computes: checkpoint graph ↔ ONNX made from frozen.pb, or ↔
frozen.pb itself.

One deterministic pair of smooth random images goes through both sides; errors are taken in float64. The limits lie in
``parity_limits.json``: the pb is the same program and must agree almost to the bit; if a plan splits weights, it adds
the same terms in another order; ONNX runs on another engine that sums in another order everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Sequence

import numpy as np

from export.freeze import import_pb
from vxm_convert.errors import ArtifactError, PrecisionError
from vxm_convert.metrics.registration import end_point_error
from vxm_convert.metrics.tensors import error_stats
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.spec import ModelSpec
from vxm_convert.network.inference_graph import build_inference_graph
from vxm_convert.network.tf1 import tf

PAIR_SEED = 20
_COARSE = 8
_LIMITS_FILE = Path(__file__).with_name("parity_limits.json")

Arrays = Dict[str, np.ndarray]


def smooth_pair(spec: ModelSpec, seed: int = PAIR_SEED) -> Arrays:
    """``moving`` and ``fixed``, shape (B, X, Y, Z, 1), float32, 0..1: random blobs a few voxels wide, half of them
    shared.

    The images are smooth because a warp of white noise turns rounding of the flow into noise as large as the image.
    """
    rng = np.random.RandomState(seed)
    shared, own = _blobs(spec, rng), [_blobs(spec, rng) for _ in range(2)]
    return {name: (0.5 * (shared + mine))[..., None].astype(np.float32) for name, mine in zip(("moving", "fixed"), own)}


def _blobs(spec: ModelSpec, rng: np.random.RandomState) -> np.ndarray:
    """Uniform noise on a grid `_COARSE` times coarser, interpolated linearly along each axis; (B, X, Y, Z)."""
    coarse = [n // _COARSE + 1 for n in spec.volume_shape]
    values = rng.uniform(size=[spec.batch] + coarse)
    for axis, side in enumerate(spec.volume_shape):
        position = np.linspace(0, coarse[axis] - 1, side)
        low = np.minimum(position.astype(int), coarse[axis] - 2)
        weights = np.zeros((side, coarse[axis]))
        weights[np.arange(side), low] = 1 - (position - low)
        weights[np.arange(side), low + 1] = position - low
        values = np.moveaxis(np.tensordot(values, weights, (axis + 1, 1)), -1, axis + 1)
    return values


def run_checkpoint_graph(contract: GraphContract, weights: Arrays, pair: Arrays) -> Arrays:
    """The inference graph with its variables loaded from the checkpoint, on the CPU."""
    graph = build_inference_graph(contract.model)
    with graph.as_default(), tf.Session(graph=graph) as session:
        for variable in tf.global_variables():
            variable.load(weights[variable.op.name], session)
        return _run(session, contract, pair)


def run_pb(path: Path, contract: GraphContract, pair: Arrays) -> Arrays:
    """The frozen graph, on the CPU."""
    with tf.Session(graph=import_pb(path)) as session:
        return _run(session, contract, pair)


def _run(session: tf.Session, contract: GraphContract, pair: Arrays) -> Arrays:
    fetches = {t.meaning: t.tensor_name for t in contract.outputs}
    results: Arrays = session.run(fetches, {t.tensor_name: pair[t.meaning] for t in contract.inputs})
    return results


def compare(kind: str, reference: Arrays, test: Arrays, names: Sequence[str]) -> Dict[str, Any]:
    """Errors of `test` against `reference` ("moved" and "flow"), checked against the limits of `kind`.

    Parameters
    ----------
    kind : str — entry of the limits file: ``frozen_pb``, ``frozen_pb_split`` or ``onnx``.
    names : two str — descriptions of reference and test, for the record.

    Returns
    -------
    dict — a row for parity.json.

    Raises
    ------
    PrecisionError
        For NaN or Inf on either side, or an error above its limit.
    """
    limits = load_limits()[kind]
    moved, flow = error_stats(test["moved"], reference["moved"]), error_stats(test["flow"], reference["flow"])
    for name, stats in (("moved", moved), ("flow", flow)):
        if not stats.finite:
            bad = f"{stats.nan_count} NaN and {stats.inf_count} Inf"
            raise PrecisionError(
                f"parity {names[0]} vs {names[1]}: {name} has {bad}, expected none; check the checkpoint"
            )
    distance = end_point_error(test["flow"], reference["flow"])
    found = {"moved_max_abs": moved.max_abs, "flow_max_voxel": distance.max}
    exceeded = [
        f"{name} {found[name]:.3g}, at most {limit:g}" for name, limit in limits.items() if not found[name] <= limit
    ]
    if exceeded:
        raise PrecisionError(
            f"parity {names[0]} vs {names[1]}: {'; '.join(exceeded)} is allowed; the two do not compute the same; do "
            "not use the export"
        )
    return {
        "reference": names[0],
        "test": names[1],
        "limits": limits,
        "passed": True,
        "moved": moved.to_dict(),
        "flow": flow.to_dict(),
        "flow_end_point_error": distance.to_dict(),
    }


def check_same_bytes(first: Path, second: Path) -> None:
    """Raise PrecisionError unless two frozen graphs are equal files."""
    if first.read_bytes() != second.read_bytes():
        raise PrecisionError(
            f"determinism: {first.name} frozen twice from one checkpoint has different bytes; expected equal ones; please "
            "report this with the versions of TensorFlow and protobuf"
        )


def check_same_bits(first: Arrays, second: Arrays) -> None:
    """Raise PrecisionError unless two runs of one graph gave equal results."""
    for name, values in first.items():
        if values.tobytes() != second[name].tobytes():
            largest = float(np.abs(values.astype(np.float64) - second[name]).max())
            raise PrecisionError(
                f"determinism: {name} of two runs of frozen.pb differs by up to {largest:.3g}, expected equal bits; set "
                "TF_NUM_INTRAOP_THREADS=1 and try again"
            )


def load_limits() -> Dict[str, Dict[str, float]]:
    """The limits, from the file beside this module."""
    try:
        limits: Dict[str, Dict[str, float]] = json.loads(_LIMITS_FILE.read_text(encoding="utf-8"))
        return limits
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{_LIMITS_FILE}: cannot read the parity limits ({exc}); reinstall the package") from exc
