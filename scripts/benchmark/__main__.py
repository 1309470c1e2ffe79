# SPDX-License-Identifier: Apache-2.0
"""``make bench``: every part of the benchmark in one run, on one machine, side by side; a table, JSON, a plot, and the
page in docs/.

Owns the order of the parts and the page; each part measures for itself and is a command of its own (``python -m
scripts.benchmark.PART``). Where the toolchain is simulated, seconds say how long a user waits here, and nothing about
an Ascend device.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Sequence

from scripts.benchmark import (
    beside,
    cohort,
    comparer,
    compiling,
    exporting,
    files,
    host,
    inference,
    raw,
    scaling,
    training,
)
from scripts.benchmark.common import BUSY, machine, make_checkpoint
from scripts.benchmark.plot import draw
from scripts.stages import StageFailed, fresh_folder, run_stage
from vxm_convert.artifacts.files import read_bounded, write_json, write_text
from vxm_convert.artifacts.names import OM_NAME
from vxm_convert.cliargs import add_model_group, run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, SpecError

RESULT_NAME, PAGE_NAME, PLOT_NAME = "bench.json", "benchmarks.md", "benchmarks.svg"
_MAX_BYTES = 16 << 20


class Part(NamedTuple):
    """One part: what it is called, its heading, the module that measures it, arguments beyond --out, and its figures as
    text.
    """

    name: str
    title: str
    module: ModuleType
    arguments: Callable[[argparse.Namespace, Path], List[str]]

    @property
    def table(self) -> Callable[[Mapping[str, Any]], str]:
        table: Callable[[Mapping[str, Any]], str] = self.module.table
        return table

    def command(self, args: argparse.Namespace, model: Path) -> List[str]:
        return [f"scripts.benchmark.{self.name}", *self.arguments(args, model)]


def _with_model(args: argparse.Namespace, model: Path) -> List[str]:
    return ["--model", str(model)]


def _with_shape(args: argparse.Namespace, model: Path) -> List[str]:
    return ["--shape", args.shape]


PARTS = (
    Part("inference", "One registration", inference, lambda args, model: ["--model", str(model), "--n", str(args.n)]),
    Part(
        "training",
        "One training step",
        training,
        lambda args, model: (
            ["--shape", args.training_shape, "--variant", args.variant]
            + (["--other-python", str(args.other_python)] if args.other_python is not None else [])
        ),
    ),
    Part("cohort", "A cohort from end to end", cohort, _with_model),
    Part(
        "scaling",
        "Growth with scans and volume",
        scaling,
        lambda args, model: (
            ["--variant", args.variant] + (["--shapes", *args.scaling_shapes] if args.scaling_shapes else [])
        ),
    ),
    Part("compiling", "Compilation of the loops", compiling, lambda args, model: []),
    Part("host", "One raw scan on the host", host, _with_shape),
    Part("raw", "Raw scans from end to end", raw, _with_model),
    Part("beside", "Beside SimpleITK and ANTs", beside, _with_shape),
    Part("comparer", "Comparison and report", comparer, _with_shape),
    Part("files", "Reading and writing", files, _with_shape),
    Part("exporting", "Export", exporting, lambda args, model: ["--shape", args.shape, "--variant", args.variant]),
)


def build_parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="Measures inference, training, a cohort, scaling, compilation, raw scans on the host and from end to end, "
        "other programs beside, comparison, files and export; 20 to 40 minutes.",
        epilog="exit codes: 0 within the limits of every part, 1 something to fix, 2 usage, 3 beyond a limit",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench"),
        metavar="DIR",
        help="where everything goes (default: %(default)s)",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=names,
        default=names,
        metavar="PART",
        help=f"some of {', '.join(names)} (default: all)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=None,
        metavar="FILE",
        help="a .om with contract.json, frozen.pb and vxm.onnx beside it (default: make one)",
    )
    add_model_group(parser)
    parser.add_argument(
        "--n", type=int, default=3, metavar="N", help="measured registrations in each engine (default: %(default)s)"
    )
    parser.add_argument(
        "--training-shape",
        default="80,96,112",
        metavar="X,Y,Z",
        help="grid of the training step, voxels (default: %(default)s)",
    )
    parser.add_argument(
        "--scaling-shapes",
        nargs="+",
        default=None,
        metavar="X,Y,Z",
        help=f"grids of the scaling, voxels (default: {' '.join(scaling.SHAPES)})",
    )
    parser.add_argument(
        "--other-python",
        type=Path,
        default=None,
        metavar="FILE",
        help="a Python with another build of TensorFlow 1.15, which trains as well (default: none)",
    )
    parser.add_argument(
        "--min-speedup",
        type=float,
        default=4.0,
        metavar="R",
        help="how many times the simulated device must be faster than the existing recipe's graph (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--min-training-speedup",
        type=float,
        default=1.3,
        metavar="R",
        help="how many times our training step must be faster than the recipe's (default: %(default)s)",
    )
    parser.add_argument(
        "--docs",
        type=Path,
        default=None,
        metavar="DIR",
        help=f"also write {PAGE_NAME}, and {PLOT_NAME} in pictures/, there; refused on a busy machine (default: only in "
        "--out)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the benchmark."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "bench")


def _bench(args: argparse.Namespace) -> int:
    before = machine()
    if args.docs is not None and not before["idle"]:
        raise SpecError(
            f"--docs: the machine is busy (load {before['load_per_cpu']:.2f} per CPU, expected at most {BUSY:g}), and "
            "readers compare these figures; wait until it is idle, or leave out --docs"
        )
    out = fresh_folder(args.out)
    model = args.model if args.model is not None else _make_model(out, args)
    parts = [part for part in PARTS if part.name in args.parts]
    results, beyond = {}, []
    for number, part in enumerate(parts, start=1):
        print(f"\n[{number}/{len(parts)}] {part.title}", flush=True)
        if not _run(part, args, model, out / part.name):
            beyond.append(part.name)
        figures = read_bounded(
            out / part.name / part.module.RESULT_NAME, _MAX_BYTES, "the part's figures", "run it again"
        )
        results[part.name] = json.loads(figures.decode("utf-8"))
    beyond += slow_ratios(results, args.min_speedup, args.min_training_speedup)
    write_json(
        out / RESULT_NAME,
        {"schema": 2, "kind": "benchmark", "machine": before, "beyond_limits": beyond, "parts": results},
    )
    write_text(out / PLOT_NAME, draw(results))
    page = build_page(parts, results, before, PLOT_NAME)
    write_text(out / PAGE_NAME, page)
    if args.docs is not None:
        write_text(args.docs / PAGE_NAME, build_page(parts, results, before, f"pictures/{PLOT_NAME}"))
        write_text(args.docs / "pictures" / PLOT_NAME, draw(results))
    print(f"\n{page}\n{out / PAGE_NAME}\n{out / RESULT_NAME}")
    for text in beyond:
        print(f"BEYOND a limit: {text}", file=sys.stderr)
    return EXIT_TOLERANCE if beyond else EXIT_OK


def _make_model(out: Path, args: argparse.Namespace) -> Path:
    work = out / "model"
    run_stage(
        [
            "export",
            "--checkpoint",
            str(make_checkpoint(work, args.variant)),
            "--variant",
            args.variant,
            "--shape",
            args.shape,
            "--out",
            str(work / "vxm"),
            "--quiet",
        ]
    )
    return work / "vxm" / OM_NAME


def _run(part: Part, args: argparse.Namespace, model: Path, folder: Path) -> bool:
    """False where the part kept to the end and was beyond one of its limits; any other failure ends the benchmark."""
    try:
        run_stage(part.command(args, model) + ["--out", str(folder)])
    except StageFailed as exc:
        if exc.exit_code != EXIT_TOLERANCE:
            raise
        return False
    return True


def slow_ratios(results: Mapping[str, Any], inference_limit: float, training_limit: float) -> List[str]:
    """The ratios to the existing recipe's graph that are below their limits, in words."""
    found = []
    for row in results.get("inference", {}).get("rows", []):
        if row["name"] == "device" and row["wall_ratio"] < inference_limit:
            found.append(
                f"registration {row['wall_ratio']:.2f} x the recipe's graph, expected at least {inference_limit:g}"
            )
    rows = [row for row in results.get("training", {}).get("rows", []) if "failure" not in row]
    if len(rows) > 1 and rows[0]["way"] == "recipe":
        best = max(rows[0]["wall_seconds"]["median"] / row["wall_seconds"]["median"] for row in rows[1:])
        if best < training_limit:
            found.append(f"training step {best:.2f} x the recipe's graph, expected at least {training_limit:g}")
    return found


def build_page(parts: Sequence[Part], results: Mapping[str, Any], before: Mapping[str, Any], plot: str) -> str:
    """The Markdown page: the plot, then every part's command and figures."""
    idle = (
        "idle before the start"
        if before["idle"]
        else f"not idle before the start (load {before['load_per_cpu']:.2f} per CPU)"
    )
    lines = [
        "# Benchmarks",
        "",
        f"Made by `make bench` in one run: {before['cpus']} CPUs ({before['machine']}), Python {before['python']},",
        f"NumPy {before['numpy']}, {idle}. Where a part calls the machine busy, its load is an average over a minute, to",
        "which the part before belongs. The toolchain is **simulated**: device seconds are seconds of this CPU and say",
        'nothing about an Ascend 910. Compare ratios, not seconds. We rebuilt "the existing recipe\'s graph" from its',
        "description (`scripts/benchmark/recipe.py`): map_fn around the warp, Split and Concat for upsampling, feed_dict.",
        "",
        f"![Seconds of one registration and one training step in every engine]({plot})",
        "",
    ]
    for part in parts:
        lines += [f"## {part.title}", "", f"`python -m scripts.benchmark.{part.name}`", ""]
        lines += ["```", part.table(results[part.name]).strip("\n"), "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
