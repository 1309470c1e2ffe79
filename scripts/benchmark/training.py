# SPDX-License-Identifier: Apache-2.0
"""What a training step costs: the existing recipe's graph against `python -m train`, on the same scan and from the same
weights.

Every way is a process of its own (`scripts.benchmark.training_step`); they take turns step by step, so that other work
on the machine disturbs all alike. Owns the scans, the turns and the table. Losses stand beside the seconds: they show
that all ways compute the same.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, cast

import nibabel
import numpy as np

from scripts.benchmark.common import GIB, machine, spread
from scripts.benchmark.training_step import ATLAS, MARK, SCANS, WAYS
from scripts.stages import fresh_folder
from vxm_convert.artifacts.files import write_json
from vxm_convert.cliargs import add_model_group, run_main
from vxm_convert.errors import EXIT_OK, ArtifactError, SpecError
from vxm_convert.model.spec import ModelSpec, parse_shape
from vxm_convert.synthetic.heads import ATLAS_FILE, SCANS_FOLDER, PhantomSettings, write_cohort

RESULT_NAME = "training.json"
_WARM_UP = 1
#: relative; single precision and another order of sums, after some steps
_LOSS_TOLERANCE = 1e-2
_SHOWN_CHARACTERS = 200
_NAME_WIDTH = 72


class Contender(NamedTuple):
    """A way to train, and the Python that does it."""

    way: str
    python: str


def build_parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.training",
        description="Seconds, CPU-seconds and memory of a training step, side by side.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/training"),
        metavar="DIR",
        help="where scans and figures go (default: %(default)s)",
    )
    add_model_group(parser, "80,96,112")
    parser.add_argument(
        "--steps",
        type=int,
        default=3,
        metavar="N",
        help="steps to measure, after one to warm up (default: %(default)s)",
    )
    parser.add_argument(
        "--ways",
        default=",".join(WAYS),
        metavar="NAMES",
        help=f"of {', '.join(WAYS)}, separated by commas; ratios are against the first (default: all)",
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads of TensorFlow; 0: all (default: %(default)s)"
    )
    parser.add_argument(
        "--other-python",
        type=Path,
        default=None,
        metavar="FILE",
        help="a Python with another build of TensorFlow 1.15, which trains each way as well (default: none)",
    )
    parser.add_argument(
        "--max-memory-gib",
        type=float,
        default=20.0,
        metavar="GIB",
        help="address space of each process, GiB, beyond which it fails; 0: no limit (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the benchmark."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "training benchmark")


def _bench(args: argparse.Namespace) -> int:
    ways = [name.strip() for name in args.ways.split(",") if name.strip()]
    for way in ways:
        if way not in WAYS:
            raise SpecError(f"ways: got {way!r}, expected some of {', '.join(WAYS)}; pass --ways recipe,blocks")
    if not ways or args.steps < 1:
        raise SpecError(f"steps: got {args.steps} of {len(ways)} ways, expected at least 1 of each; pass --steps 3")
    if args.other_python is not None and shutil.which(str(args.other_python)) is None:
        raise ArtifactError(f"{args.other_python}: cannot be started; pass the path of a Python with --other-python")
    spec = ModelSpec(args.variant, parse_shape(args.shape))
    before = machine()
    out = fresh_folder(args.out)
    _write_scans(out, spec)
    pythons = [sys.executable] + ([str(args.other_python)] if args.other_python is not None else [])
    rows = take_turns([Contender(way, python) for python in pythons for way in ways], out, args)
    result = {
        "model": spec.to_dict(),
        "machine": before,
        "steps": args.steps,
        "threads": args.threads,
        "reference": ways[0],
        "rows": rows,
        "losses_agree": _losses_agree(rows),
    }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK


def _write_scans(out: Path, spec: ModelSpec) -> None:
    """One phantom and its atlas as float32 .nii.gz: every way then sees the same pair in every step."""
    write_cohort(out / "phantom", PhantomSettings(spec.volume_shape, subjects=1))
    (out / SCANS).mkdir()
    scan = next((out / "phantom" / SCANS_FOLDER).iterdir())
    for source, target in ((scan, out / SCANS / "scan.nii.gz"), (out / "phantom" / ATLAS_FILE, out / ATLAS)):
        with np.load(str(source), allow_pickle=False) as stored:
            image = stored["vol"].astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image / max(1.0, float(image.max())), np.eye(4)), str(target))


class _Process:
    """One contender at work; after a failure it only says why."""

    def __init__(self, contender: Contender, data: Path, args: argparse.Namespace) -> None:
        self.contender, self.failure = contender, ""
        self.answers: List[Dict[str, Any]] = []
        self._errors = open(str(data / f"errors-{contender.way}-{Path(contender.python).parent.parent.name}.txt"), "w+")
        command = [
            contender.python,
            "-m",
            "scripts.benchmark.training_step",
            contender.way,
            "--data",
            str(data),
            "--shape",
            args.shape,
            "--variant",
            args.variant,
            "--threads",
            str(args.threads),
            "--max-memory-gib",
            str(args.max_memory_gib),
        ]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, universal_newlines=True
        )
        self._asked, self._answered = cast(IO[str], self._child.stdin), cast(IO[str], self._child.stdout)

    def answer(self) -> Optional[Dict[str, Any]]:
        """The next line of figures; None, and `failure`, when the process has ended instead."""
        for line in self._answered:
            if line.startswith(MARK):
                figures: Dict[str, Any] = json.loads(line[len(MARK) :])
                return figures
        code = self._child.wait()
        self._errors.seek(0)
        said = [line.strip() for line in self._errors if line.strip()]
        self.failure = f"ended with {code}: {said[-1][:_SHOWN_CHARACTERS] if said else 'nothing said'}"
        return None

    def step(self) -> None:
        if self.failure:
            return
        try:
            self._asked.write("step\n")
            self._asked.flush()
        except OSError:
            pass  # it is gone; its end is read next
        found = self.answer()
        if found is not None:
            self.answers.append(found)

    def close(self) -> None:
        """End it, whatever it is at."""
        self._child.kill()
        self._child.wait()
        self._errors.close()


def take_turns(contenders: Sequence[Contender], data: Path, args: argparse.Namespace) -> List[Dict[str, Any]]:
    """A row of figures per contender, or its failure."""
    running: List[_Process] = []
    builds = []
    try:
        # One after the other: graphs are built in turns as well.
        for contender in contenders:
            running.append(_Process(contender, data, args))
            builds.append((running[-1].answer() or {}).get("tensorflow", ""))
        for number in range(_WARM_UP + args.steps):
            print(
                f"step {number + 1} of {_WARM_UP + args.steps}{' (warm-up)' if number < _WARM_UP else ''}",
                file=sys.stderr,
                flush=True,
            )
            for process in running:
                process.step()
    finally:
        for process in running:
            process.close()
    return [_row(process, build) for process, build in zip(running, builds)]


def _row(process: _Process, build: str) -> Dict[str, Any]:
    contender, measured = process.contender, process.answers[_WARM_UP:]
    row: Dict[str, Any] = {"way": contender.way, "title": WAYS[contender.way], "tensorflow": build}
    if process.failure:
        return {**row, "failure": process.failure}
    seconds = {key: spread([answer[key] for answer in measured]) for key in ("wall_seconds", "cpu_seconds")}
    return {
        **row,
        **seconds,
        "peak_gib": round(measured[-1]["peak_bytes"] / GIB, 3),
        "losses": [a["loss"] for a in process.answers],
    }


def _losses_agree(rows: Sequence[Dict[str, Any]]) -> bool:
    """Over all steps and all rows that have losses."""
    losses = np.array([row["losses"] for row in rows if "losses" in row])
    return bool(losses.size) and bool(np.all(np.abs(losses - losses[0]) <= _LOSS_TOLERANCE * np.abs(losses[0])))


def _figures(row: Dict[str, Any]) -> Tuple[float, float, float]:
    return row["wall_seconds"]["median"], row["cpu_seconds"]["median"], row["peak_gib"]


def table(result: Dict[str, Any]) -> str:
    """The figures as text; ratios are against the first row: how many times less seconds, CPU-seconds and memory."""
    model, rows, machine_then = result["model"], result["rows"], result["machine"]
    grid = "x".join(str(n) for n in model["volume_shape"])
    lines = [
        f"training step, {model['variant']} {grid}, batch {model['batch']}; {machine_then['cpus']} CPUs, n = "
        f"{result['steps']} after "
        f"{_WARM_UP} to warm up, median",
        f"  {'':{_NAME_WIDTH}s}{'seconds':>9s}{'ratio':>7s}{'CPU s':>8s}{'ratio':>7s}{'GiB':>7s}{'ratio':>7s}",
    ]
    first = rows[0] if "failure" not in rows[0] else None
    for row in rows:
        name = f"{row['title']}, {row['tensorflow']}"
        if "failure" in row:
            lines.append(f"  {name:{_NAME_WIDTH}s} {row['failure']}")
            continue
        shown = ""
        for value, base, width in zip(_figures(row), _figures(first) if first else (None,) * 3, (9, 8, 7)):
            shown += f"{value:{width}.2f}{f'{base / value:.2f}' if base else '-':>7s}"
        lines.append(f"  {name:{_NAME_WIDTH}s}{shown}")
    if not result["losses_agree"]:
        lines.append("  The losses DIFFER by more than rounding: the ways do not compute the same.")
    if not machine_then["idle"]:
        lines.append(
            f"  The machine was busy before the start (load {machine_then['load_per_cpu']:.2f} per CPU): "
            "compare ratios, not seconds."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
