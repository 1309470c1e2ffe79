# SPDX-License-Identifier: Apache-2.0
"""A cohort from end to end: is the device kept busy, what bounds the wall time, does memory grow with the number of
scans.

Three runs of ``python -m om_runner``, each in a process of its own. The first registers .nii.gz scans and writes moved
scans, flows and labels as .nii.gz: its wall time is set against what no arrangement can beat, the larger of the
device's seconds and the host's processor seconds over the processors. The second has small scans and a device that
sleeps, so that only the arrangement counts. The third compares the peak memory of few small scans with that of many.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from scripts.benchmark.common import GIB, machine, make_checkpoint
from scripts.stages import fresh_folder, run_stage
from vxm_convert.artifacts.files import write_json
from vxm_convert.artifacts.names import CONTRACT_NAME, OM_NAME, RUN_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, ArtifactError
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.spec import VARIANTS
from vxm_convert.scans.header import MAX_VOLUME_BYTES
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.npz import NpzReader

RESULT_NAME = "cohort.json"
SLEEP_VARIABLE = "VXM_SIM_LATENCY"
_SMALL = "32,32,32"


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.cohort",
        description="End-to-end registration of a cohort: wall time, device, memory.",
        epilog="exit codes: 0 within the limits, 1 something to fix, 2 usage, 3 beyond a limit",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/cohort"),
        metavar="DIR",
        help=f"where everything goes, {RESULT_NAME} included (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=None,
        metavar="FILE",
        help="a .om with its contract.json beside it, for the first run (default: make one)",
    )
    parser.add_argument(
        "--variant", default="vm2", choices=sorted(VARIANTS), help="network variant (default: %(default)s)"
    )
    parser.add_argument(
        "--shape",
        default="160,192,224",
        metavar="X,Y,Z",
        help="grid of a model made here, voxels (default: %(default)s)",
    )
    parser.add_argument(
        "--scans", type=int, default=8, metavar="N", help="scans of the first run (default: %(default)s)"
    )
    parser.add_argument(
        "--sleep",
        type=float,
        default=0.3,
        metavar="S",
        help="seconds that the simulated device sleeps per small scan (default: %(default)s)",
    )
    parser.add_argument("--few", type=int, default=8, metavar="N", help="small scans, few (default: %(default)s)")
    parser.add_argument("--many", type=int, default=64, metavar="N", help="small scans, many (default: %(default)s)")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-over-bound",
        type=float,
        default=1.10,
        metavar="R",
        help="wall time of the first run over its bound (default: %(default)s)",
    )
    limits.add_argument(
        "--min-busy",
        type=float,
        default=0.90,
        metavar="R",
        help="share of the time in which the sleeping device is at work (default: %(default)s)",
    )
    limits.add_argument(
        "--max-growth",
        type=float,
        default=0.05,
        metavar="R",
        help="how far the peak memory of many scans may lie off that of few (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "cohort")


def _bench(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out)
    checkpoint = make_checkpoint(out, args.variant)
    model = args.model or export_model(checkpoint, args.variant, args.shape, out / "model")
    small = export_model(checkpoint, args.variant, _SMALL, out / "small_model")
    end_to_end = _end_to_end(out, model, args.scans)
    few, many = (_small_run(out, small, count) for count in (args.few, args.many))
    with environment(SLEEP_VARIABLE, f"{args.sleep:g}"):
        sleeping = _small_run(out, small, args.many, "sleeping")
    growth = many["peak_gib"] / few["peak_gib"] - 1
    result: Dict[str, Any] = {
        "schema": 1,
        "kind": "cohort benchmark",
        "machine": machine(),
        "end_to_end": end_to_end,
        "sleeping": {"seconds_per_scan": args.sleep, **sleeping},
        "memory": {"few": few, "many": many, "growth": round(growth, 4)},
        "limits": {"over_bound": args.max_over_bound, "busy": args.min_busy, "growth": args.max_growth},
    }
    result["within"] = {
        "over_bound": end_to_end["over_bound"] <= args.max_over_bound,
        "busy": sleeping["device_busy"] >= args.min_busy,
        "growth": abs(growth) <= args.max_growth,
    }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK if all(result["within"].values()) else EXIT_TOLERANCE


def export_model(checkpoint: Path, variant: str, shape: str, out: Path) -> Path:
    run_stage(
        [
            "export",
            "--checkpoint",
            str(checkpoint),
            "--variant",
            variant,
            "--shape",
            shape,
            "--skip-onnx",
            "--out",
            str(out),
            "--quiet",
        ]
    )
    return out / OM_NAME


def _end_to_end(out: Path, model: Path, scans: int) -> Dict[str, Any]:
    """The first run, with its trace; what bounds it."""
    shape = GraphContract.load(model.with_name(CONTRACT_NAME)).model.volume_shape
    cohort = _phantoms(out / "cohort", ",".join(str(n) for n in shape), scans)
    _as_nifti(cohort / "scans")
    made = _register(cohort, model, out / "registered", "--trace", str(out / "trace.json"))
    bound = max(made["device_seconds"], made["host_cpu_seconds"] / (os.cpu_count() or 1))
    return {"shape": list(shape), **made, "bound_seconds": bound, "over_bound": made["wall_seconds"] / bound}


def _small_run(out: Path, model: Path, scans: int, name: str = "small") -> Dict[str, Any]:
    cohort = _phantoms(out / f"{name}_{scans}", _SMALL, scans)
    return _register(cohort, model, out / f"{name}_{scans}_registered")


def _phantoms(folder: Path, shape: str, scans: int) -> Path:
    run_stage(["vxm_convert", "phantom", "--out", str(folder), "--shape", shape, "--subjects", str(scans), "--quiet"])
    return folder


def _as_nifti(folder: Path) -> None:
    """Every .npz as a scan and a segmentation in .nii.gz; the .npz goes."""
    for path in sorted(folder.glob("*.npz")):
        with NpzReader(path) as archive:
            arrays = {name: archive.read(name, MAX_VOLUME_BYTES) for name in ("vol", "seg")}
        affine = network_affine(arrays["vol"].shape)
        write_nifti(path.with_suffix(".nii.gz"), arrays["vol"], affine)
        write_nifti(path.with_name(path.stem + "_seg.nii.gz"), arrays["seg"], affine)
        path.unlink()


def _register(cohort: Path, model: Path, out: Path, *extra: str) -> Dict[str, Any]:
    ran = run_stage(
        [
            "om_runner",
            "--input",
            str(cohort / "scans"),
            "--atlas",
            str(cohort / "atlas.npz"),
            "--model",
            str(model),
            "--compare",
            "none",
            "--out",
            str(out),
            "--quiet",
            *extra,
        ]
    )
    try:
        run = json.loads((out / RUN_NAME).read_text(encoding="utf-8"))
        return {
            "simulated": run["simulated"],
            "peak_gib": ran.peak_bytes / GIB,
            "process_seconds": ran.seconds,
            **run["timing"],
        }
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ArtifactError(f"{out}: no timing in run.json ({exc}); see the messages of the run above") from exc


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def table(result: Dict[str, Any]) -> str:
    """The figures as text."""
    first, sleeping, memory, limits, within = (
        result[key] for key in ("end_to_end", "sleeping", "memory", "limits", "within")
    )
    words = {key: "within" if ok else "BEYOND" for key, ok in within.items()}
    device = "SIMULATED device" if first["simulated"] else "device"
    lines = [
        f"{first['scans']} scans of {'x'.join(map(str, first['shape']))}, .nii.gz in and out, "
        f"{result['machine']['cpus']} CPUs",
        f"  end to end {first['wall_seconds']:.2f} s, {first['scans_per_second']:.3g} scans/s; {device} "
        f"{first['device_seconds']:.2f} s, "
        f"busy {100 * first['device_busy']:.1f} %; host {first['host_cpu_seconds']:.2f} CPU-s",
        f"  apart: model loaded in {first['model_load_seconds']:.2f} s, first execution "
        f"{first['first_execution_seconds']:.2f} s",
        f"  wall over bound {first['over_bound']:.3f}, {words['over_bound']} the limit of {limits['over_bound']:g}",
        f"{sleeping['scans']} small scans, a {device} that sleeps {sleeping['seconds_per_scan']:g} s for each",
        f"  busy {100 * sleeping['device_busy']:.1f} % of the time, {words['busy']} the limit of "
        f"{100 * limits['busy']:g} %",
        f"peak memory of {memory['few']['scans']} small scans {memory['few']['peak_gib']:.3f} GiB, of "
        f"{memory['many']['scans']} "
        f"{memory['many']['peak_gib']:.3f} GiB",
        f"  {100 * memory['growth']:+.1f} %, {words['growth']} the limit of {100 * limits['growth']:g} %",
    ]
    if not result["machine"]["idle"]:
        lines.append(
            f"The machine was busy (load {result['machine']['load_per_cpu']:.2f} per CPU): compare ratios, not seconds."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
