# SPDX-License-Identifier: Apache-2.0
"""How long the comparer takes: one pair of flows, and the precision report of a cohort whose results are stored
already.

The report runs through om_runner's own code, with the references taken from its cache, so that neither a device nor
TensorFlow takes part; hashing and copying out of the cache are in the measured seconds. Figures of the synthetic data
mean nothing, only the seconds count.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from export.contracts import build_contract
from om_runner.device.offline_model import OfflineModel
from om_runner.precision.reference import Reference
from om_runner.precision.reference_cache import CachedReference
from om_runner.precision.report import ReportRequest, write_precision_report
from om_runner.precision.store import MOVING, REFERENCE_FLOW, REFERENCE_MOVED, CompareStore
from scripts.benchmark.common import GIB, machine
from vxm_convert.artifacts.files import check_output_folder, sha256_of, write_bytes, write_json
from vxm_convert.artifacts.names import CONTRACT_NAME, FROZEN_PB_NAME, OM_NAME, PRECISION_FOLDER
from vxm_convert.ascend.chips import DEFAULT_SOC
from vxm_convert.cliargs import LOG_FORMAT, run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, SpecError
from vxm_convert.geometry.reference_warp import warp_linear
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, label_set
from vxm_convert.metrics.tensors import compare_tensors
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec, parse_shape
from vxm_convert.profiles.profile import DEFAULT_PROFILE, load_profile
from vxm_convert.toolchain.find import find_toolchain

RESULT_NAME = "comparer.json"
#: what rounding to fp16 leaves in a flow, voxels (docs/precision.md): gives the percentiles something to do
_NOISE_VOX, _NOISE_IMAGE = 2e-3, 1e-4

Subject = Dict[str, np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    """Options of the comparer's benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.comparer",
        description="Times the comparison of two flows and a precision report; no device, no TensorFlow.",
        epilog="exit codes: 0 within the limits, 1 something to fix, 2 usage, 3 beyond a limit",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/comparer"),
        metavar="DIR",
        help=f"folder for {RESULT_NAME} and a temporary folder, 0.3 GB per scan at full size (default: %(default)s)",
    )
    parser.add_argument(
        "--shape",
        default="160,192,224",
        metavar="X,Y,Z",
        help="grid of the scans in voxels, sides multiples of 16 (default: %(default)s)",
    )
    parser.add_argument("--scans", type=int, default=8, metavar="N", help="scans in the report (default: %(default)s)")
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        metavar="N",
        help="comparisons of the pair, of which the median counts (default: %(default)s)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-compare-seconds",
        type=float,
        default=3.0,
        metavar="S",
        help="one pair of flows, seconds (default: %(default)s)",
    )
    limits.add_argument(
        "--max-report-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="the whole report, seconds (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the benchmark."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=LOG_FORMAT)
    return run_main(lambda: _bench(args), "comparer")


def _bench(args: argparse.Namespace) -> int:
    if args.scans < 1 or args.repeats < 1:
        raise SpecError(f"--scans {args.scans} and --repeats {args.repeats}: expected whole numbers of at least 1")
    spec = ModelSpec("vm2", parse_shape(args.shape), 1)
    out = check_output_folder(args.out)
    image, seg = anatomy(spec.volume_shape)
    pair = time_pair(stored_subject(image, 0), args.repeats)
    with tempfile.TemporaryDirectory(prefix=".comparer-", dir=str(out)) as work:
        report = time_report(Path(work), spec, image, seg, args.scans)
    result = {
        "schema": 1,
        "kind": "comparer benchmark",
        "shape": list(spec.volume_shape),
        "pair": pair,
        "report": report,
        "limits": {"pair_seconds": args.max_compare_seconds, "report_seconds": args.max_report_seconds},
        "machine": machine(),
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
    }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    within = pair["seconds"] <= args.max_compare_seconds and report["seconds"] <= args.max_report_seconds
    return EXIT_OK if within else EXIT_TOLERANCE


def table(result: Dict[str, Any]) -> str:
    """The figures as text."""
    pair, report, limits = result["pair"], result["report"], result["limits"]
    return (
        f"comparison of {pair['elements']} elements: {pair['seconds']:.2f} s, {pair['cpu_seconds']:.2f} CPU-s "
        f"(medians, n = {pair['n']}; limit {limits['pair_seconds']:g} s)\n"
        f"report of {report['scans']} scans: {report['seconds']:.1f} s, {report['cpu_seconds']:.1f} CPU-s "
        f"(n = {report['n']}; limit {limits['report_seconds']:g} s), references from the cache\n"
        f"peak memory {result['peak_memory_gib']:.2f} GiB; load {result['machine']['load_per_cpu']:.2f} per CPU "
        "before the end\n"
    )


def anatomy(shape: Tuple[int, ...]) -> Tuple[np.ndarray, np.ndarray]:
    """An image (X, Y, Z), float32 in 0..1, bright inside an ellipsoid, and a segmentation with every structure of the
    default label set.
    """
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    radius = sum(axis * axis for axis in axes)
    image = np.where(
        radius < 0.7, 0.4 + 0.1 * np.sin(9 * axes[0]) * np.sin(8 * axes[1]) * np.sin(7 * axes[2]), 0
    ).astype(np.float32)
    labels = np.asarray(label_set(DEFAULT_LABEL_SET), np.int16)
    sector = np.floor((np.arctan2(axes[1], axes[0]) / (2 * np.pi) + 0.5) * len(labels)).astype(np.intp) + np.zeros(
        shape, np.intp
    )
    return image, np.where(radius < 0.7, labels[np.minimum(sector, len(labels) - 1)], 0).astype(np.int16)


def stored_subject(image: np.ndarray, number: int) -> Subject:
    """What a run leaves of one scan: images, flow in voxels, and TensorFlow's side of both, which differ by some
    noise.
    """
    rng = np.random.RandomState(number)
    shape = image.shape
    axes = np.meshgrid(*(np.linspace(0, 2 * np.pi, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    waves = [3 * np.sin(axes[k] + number) * np.cos(2 * axes[(k + 1) % 3]) for k in range(3)]
    flow = np.stack([np.broadcast_to(wave, shape) for wave in waves], axis=-1).astype(np.float32)
    moved = warp_linear(image, flow).astype(np.float32)
    return {
        "moving": image,
        REFERENCE_FLOW: flow,
        REFERENCE_MOVED: moved,
        "flow": flow + _NOISE_VOX * rng.standard_normal(flow.shape).astype(np.float32),
        "moved": np.where(moved > 0, moved + _NOISE_IMAGE * rng.standard_normal(shape), 0).astype(np.float32),
    }


def time_pair(subject: Subject, repeats: int) -> Dict[str, Any]:
    """Median seconds of comparing the subject's flow with its reference."""
    seconds, cpu = [], []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        compare_tensors(subject["flow"], subject[REFERENCE_FLOW])
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    return {
        "elements": int(subject["flow"].size),
        "seconds": median(seconds),
        "cpu_seconds": median(cpu),
        "all_seconds": seconds,
        "n": repeats,
    }


class _Prepared(Reference):
    """Takes TensorFlow's place while the cache is filled; what it is asked for has been computed before."""

    @property
    def tensorflow_version(self) -> str:
        return "none: benchmark"

    def __init__(self, store: CompareStore, subject: Subject) -> None:
        self._store, self._subject = store, subject

    def run(self, subjects: List[str]) -> float:
        for what in (REFERENCE_MOVED, REFERENCE_FLOW):
            np.save(str(self._store.path(subjects[0], what)), self._subject[what])
        return 0.0

    def close(self) -> None:
        """Nothing was opened."""


def time_report(work: Path, spec: ModelSpec, fixed: np.ndarray, seg: np.ndarray, scans: int) -> Dict[str, Any]:
    """Seconds of one precision report of `scans` stored scans: comparison, verdict, pictures, JSON, CSV, page."""
    model = _model(work, spec)
    with CompareStore(work, None) as store:
        store.put_fixed(fixed)
        for number in range(scans):
            _store(store, work, model, f"scan{number}", stored_subject(np.roll(fixed, number, axis=0), number), seg)
        start, cpu = time.perf_counter(), time.process_time()
        profile = load_profile(DEFAULT_PROFILE)
        request = ReportRequest(sys.executable, work, seg, np.eye(4), DEFAULT_LABEL_SET, scans, profile, work / "cache")
        done = write_precision_report(store, model, request)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    pages = sorted((work / PRECISION_FOLDER).iterdir())
    return {
        "scans": len(done["rows"]),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "n": 1,
        "references": "from the cache",
        "files": {path.name: path.stat().st_size for path in pages},
    }


def _model(work: Path, spec: ModelSpec) -> OfflineModel:
    """A model of which the report reads names and hashes only: the graph itself is empty."""
    folder = check_output_folder(work / "model")
    write_bytes(folder / FROZEN_PB_NAME, b"")
    contract = build_contract(spec, PLANS["balanced"], DEFAULT_SOC)
    contract.hashes.update(frozen_pb=sha256_of(folder / FROZEN_PB_NAME), om="0" * 64)
    contract.save(folder / CONTRACT_NAME)
    return OfflineModel(folder / OM_NAME, folder / CONTRACT_NAME, contract, find_toolchain("sim"), True)


def _store(store: CompareStore, work: Path, model: OfflineModel, name: str, subject: Subject, seg: np.ndarray) -> None:
    """Put one scan into the store and its reference into the cache."""
    store.put(name, subject[MOVING], seg, subject["moved"], subject["flow"])
    prepared = _Prepared(store, subject)
    with CachedReference(work / "cache", lambda: prepared, model.contract.hashes["frozen_pb"], 1, store) as reference:
        reference.run([name])
    for what in (REFERENCE_MOVED, REFERENCE_FLOW):
        store.path(name, what).unlink()


if __name__ == "__main__":
    sys.exit(main())
