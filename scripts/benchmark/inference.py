# SPDX-License-Identifier: Apache-2.0
"""One registration in every engine at hand, side by side: seconds, CPU-seconds, memory, and how far the results are
apart.

Each contender runs in a process of its own (`contenders`), in turns, so that what else the machine does meets all of
them. On a busy machine compare CPU-seconds. Seconds of the simulated device are those of this CPU and say nothing about
an Ascend device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Optional

import numpy as np

from scripts.benchmark.common import GIB, machine, spread
from scripts.benchmark.contenders import CONTENDERS, RESULT_MARK, obstacle
from vxm_convert.artifacts.files import check_output_folder, write_json
from vxm_convert.artifacts.names import CONTRACT_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, SpecError, ToolchainError
from vxm_convert.model.contract import GraphContract
from vxm_convert.synthetic.heads import PhantomSettings, make_atlas, make_subject

RESULT_NAME = "inference.json"
_SEED = 5
Arrays = Dict[str, np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.inference",
        description="Registers one phantom pair in every engine that is installed.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help="a simulated .om; contract.json, frozen.pb and vxm.onnx beside it (no default)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/inference"),
        metavar="DIR",
        help=f"folder for {RESULT_NAME} and for temporary files (default: %(default)s)",
    )
    parser.add_argument(
        "--n", type=int, default=3, metavar="N", help="measured runs of each, the median counts (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(CONTENDERS),
        default=list(CONTENDERS),
        metavar="NAME",
        help=f"some of {', '.join(CONTENDERS)}; ratios are to the first that runs (default: all)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "inference")


def _bench(args: argparse.Namespace) -> int:
    if args.n < 1:
        raise SpecError(f"n: got {args.n}, expected at least 1; pass --n 3")
    contract = GraphContract.load(args.model.with_name(CONTRACT_NAME))
    out = check_output_folder(args.out)
    missing = {
        name: why
        for name, why in ((name, obstacle(name, args.model)) for name in CONTENDERS if name in args.only)
        if why
    }
    names = [name for name in CONTENDERS if name in args.only and name not in missing]
    if not names:
        raise ToolchainError(
            f"inference: {'; '.join(missing.values())}; nothing is left to measure, see `python -m vxm_convert doctor`"
        )
    with tempfile.TemporaryDirectory(prefix=".inference-", dir=str(out)) as work:
        np.savez(os.path.join(work, "pair.npz"), **phantom_pair(contract))
        before = machine()
        runs = in_turns(names, args.n, args.model, Path(work))
        result = {
            "schema": 1,
            "kind": "inference benchmark",
            "simulated": True,
            "model": contract.model.to_dict(),
            "precision": contract.precision.name,
            "machine": before,
            "base": names[0],
            "rows": summary(names, runs, Path(work)),
            "not_run": missing,
        }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK


def phantom_pair(contract: GraphContract) -> Arrays:
    """``moving`` (a different phantom for every place of the batch) and ``fixed``, float32, 0..1, of the contract's
    shape.
    """
    batch = contract.model.batch
    settings = PhantomSettings(contract.model.volume_shape, batch, _SEED)
    moving = np.stack([make_subject(settings, index).vol for index in range(batch)])
    pair = {"moving": moving, "fixed": np.stack([make_atlas(settings).vol] * batch)}
    return {
        name: np.ascontiguousarray(value[..., np.newaxis], np.float32) / np.float32(255) for name, value in pair.items()
    }


def in_turns(names: List[str], count: int, model: Path, work: Path) -> Dict[str, List[Dict[str, Any]]]:
    """Figures of every run; each contender's results of the last round stay in `work`."""
    runs: Dict[str, List[Dict[str, Any]]] = {name: [] for name in names}
    for _ in range(count):
        for name in names:
            runs[name].append(_one_run(name, model, work))
    return runs


def _one_run(name: str, model: Path, work: Path) -> Dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "scripts.benchmark.contenders",
        name,
        "--model",
        str(model),
        "--pair",
        str(work / "pair.npz"),
        "--out",
        str(work / f"{name}.npz"),
    ]
    # What TensorFlow says about itself is not the user's business, unless the run fails.
    ended = subprocess.run(command, env={**os.environ, **CONTENDERS[name].environment}, capture_output=True)
    lines = [line for line in ended.stdout.decode("utf-8", "replace").splitlines() if line.startswith(RESULT_MARK)]
    if ended.returncode or not lines:
        said = ended.stderr.decode("utf-8", "replace").strip()
        advice = "leave it out with --only, or see what it said"
        raise ToolchainError(f"{name}: ended with exit code {ended.returncode}; {advice}:\n{said[-2000:]}")
    result: Dict[str, Any] = json.loads(lines[-1][len(RESULT_MARK) :])
    return result


def summary(names: List[str], runs: Dict[str, List[Dict[str, Any]]], work: Path) -> List[Dict[str, Any]]:
    """One row per contender; the first is what the others are compared with."""
    rows: List[Dict[str, Any]] = []
    reference = _outputs(work, names[0])
    for name in names:
        wall, cpu = ([run[key] for run in runs[name]] for key in ("wall_seconds", "cpu_seconds"))
        outputs = _outputs(work, name)
        first = rows[0] if rows else {"wall_seconds": spread(wall), "cpu_seconds": spread(cpu)}
        rows.append(
            {
                "name": name,
                "title": CONTENDERS[name].title,
                "version": runs[name][0]["version"],
                "wall_seconds": spread(wall),
                "cpu_seconds": spread(cpu),
                "peak_gib": round(max(run["peak_bytes"] for run in runs[name]) / GIB, 3),
                "wall_ratio": round(first["wall_seconds"]["median"] / median(wall), 2),
                "cpu_ratio": round(first["cpu_seconds"]["median"] / median(cpu), 2),
                "flow_difference_voxel": float(np.abs(outputs["flow"] - reference["flow"]).max()),
                "moved_difference": float(np.abs(outputs["moved"] - reference["moved"]).max()),
            }
        )
    return rows


def _outputs(work: Path, name: str) -> Arrays:
    with np.load(str(work / f"{name}.npz"), allow_pickle=False) as stored:
        return {key: stored[key] for key in ("moved", "flow")}


def table(result: Dict[str, Any]) -> str:
    """The figures as text."""
    grid, rows = "x".join(str(n) for n in result["model"]["volume_shape"]), result["rows"]
    lines = [
        f"{result['model']['variant']} {grid}, batch {result['model']['batch']}, plan {result['precision']}; median of "
        f"n = {rows[0]['wall_seconds']['n']} after a warm-up; ratios and differences to the first row",
        f"{'':38s}{'wall s':>8s}{'CPU-s':>8s}{'ratio':>7s}{'CPU':>7s}{'peak GiB':>10s}{'flow, voxel':>13s}{'moved, 0..1':>13s}",
    ]
    for row in rows:
        lines.append(
            f"{row['title']:38s}{row['wall_seconds']['median']:8.2f}{row['cpu_seconds']['median']:8.2f}{row['wall_ratio']:7.2f}"
            f"{row['cpu_ratio']:7.2f}{row['peak_gib']:10.2f}{row['flow_difference_voxel']:13.1e}{row['moved_difference']:13.1e}"
        )
    lines += [f"{CONTENDERS[name].title:38s}  {why}" for name, why in result["not_run"].items()]
    if not result["machine"]["idle"]:
        lines.append(
            f"The machine was busy before the start (load {result['machine']['load_per_cpu']:.2f} per CPU): compare "
            "CPU-seconds."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
