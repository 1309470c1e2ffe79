# SPDX-License-Identifier: Apache-2.0
"""``make precision-table``: the measured errors of every plan, for any weights, on any scans, as the table that the
docs show.

Runs export and om_runner as a user would and reads their reports; owns no measurement of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from scripts.stages import StageFailed, fresh_folder, run_stage
from vxm_convert.artifacts.files import write_json, write_text
from vxm_convert.artifacts.names import OM_NAME, PRECISION_FOLDER, REPORT_JSON
from vxm_convert.cliargs import add_model_group, run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, ArtifactError
from vxm_convert.model.precision import PLANS

LOG = logging.getLogger(__name__)
TABLE_NAME = "precision_table.md"
JSON_NAME = "precision_table.json"


class Column(NamedTuple):
    """One column: heading, dotted figure of a report's row, how the cohort's worst is picked, format."""

    heading: str
    figure: str
    worst: Union[str, Callable[[Sequence[float]], float]]
    form: str


#: what a reader wants to compare: flow in voxels, moved image on its 0..1 scale, labels, folds
COLUMNS = (
    Column("end-point error p99.9, voxel", "epe_voxel.p999", max, ".4f"),
    Column("max, voxel", "epe_voxel.max", max, ".3f"),
    Column("moved max", "moved.max_abs", max, ".1e"),
    Column("moved PSNR, dB", "moved.psnr_db", min, ".1f"),
    Column("Dice change, mean", "dice.mean_change", "largest", "+.5f"),
    Column("worst structure", "dice.min_change", min, "+.4f"),
    Column("folding change, % of voxels", "folding.change", "largest", "+.4%"),
)


def build_parser() -> argparse.ArgumentParser:
    """Options of the table."""
    parser = argparse.ArgumentParser(
        prog="make precision-table",
        description="Export with every plan, register, compare every scan with TensorFlow, print one table.",
        epilog="exit codes: 0 done and the default plan passed, 1 something to fix, 2 usage, 3 the default plan did "
        "not pass its profile",
    )
    parser.add_argument(
        "--checkpoints",
        required=True,
        nargs="+",
        type=Path,
        metavar="CKPT",
        help="weights, as export takes them (required)",
    )
    parser.add_argument(
        "--input", required=True, type=Path, metavar="DIR", help="folder of scans on the network grid (required)"
    )
    parser.add_argument("--atlas", required=True, type=Path, metavar="FILE", help="fixed image (required)")
    parser.add_argument(
        "--plans", nargs="+", default=list(PLANS), choices=sorted(PLANS), help="plans to measure (default: all)"
    )
    parser.add_argument(
        "--profile", default="research", metavar="NAME|FILE", help="acceptance profile (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/precision_table"),
        metavar="DIR",
        help="where everything goes (default: %(default)s)",
    )
    add_model_group(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the table."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_main(lambda: _table(args), "precision-table")


def _table(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out)
    rows = []
    for checkpoint in args.checkpoints:
        for plan in args.plans:
            report = _measure(checkpoint, plan, args, out / checkpoint.stem / plan)
            rows.append(
                {
                    "weights": checkpoint.stem,
                    "plan": plan,
                    "n": report["n_samples"],
                    "verdict": report["verdict"],
                    "figures": {column.figure: _worst(report["rows"], column) for column in COLUMNS},
                }
            )
            LOG.info("%s, %s: %s", checkpoint.stem, plan, report["verdict"])
    head = {
        "toolchain": report["toolchain"],
        "simulated": report["simulated"],
        "profile": report["profile"],
        "volume_shape": report["model"]["volume_shape"],
        "tensorflow": report["reference"]["tensorflow"],
    }
    write_json(out / JSON_NAME, {**head, "rows": rows})
    text = _markdown(head, rows)
    write_text(out / TABLE_NAME, text)
    print(f"\n{text}\n{out / TABLE_NAME}")
    return EXIT_OK if all(row["verdict"] == "ok" for row in rows if row["plan"] == "balanced") else EXIT_TOLERANCE


def _measure(checkpoint: Path, plan: str, args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    """The report of one plan; a cohort out of tolerance is a result, any other failure ends the run."""
    model = folder / "model"
    run_stage(
        [
            "export",
            "--checkpoint",
            str(checkpoint),
            "--variant",
            args.variant,
            "--shape",
            args.shape,
            "--precision",
            plan,
            "--skip-onnx",
            "--out",
            str(model),
            "--quiet",
        ]
    )
    try:
        run_stage(
            [
                "om_runner",
                "--input",
                str(args.input),
                "--atlas",
                str(args.atlas),
                "--model",
                str(model / OM_NAME),
                "--compare",
                "all",
                "--profile",
                args.profile,
                "--out",
                str(folder / "registered"),
                "--quiet",
            ]
        )
    except StageFailed as exc:
        if exc.exit_code != EXIT_TOLERANCE:
            raise
    path = folder / "registered" / PRECISION_FOLDER / REPORT_JSON
    try:
        report: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return report
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{path}: cannot read the runner's report ({exc}); see its messages above") from exc


def _worst(rows: Sequence[Mapping[str, Any]], column: Column) -> Optional[float]:
    """The cohort's worst value of a figure: the largest, the smallest, or the one farthest from zero; None
    without any.
    """
    values = [value for value in (_dig(row, column.figure) for row in rows) if value is not None]
    if not values:
        return None
    return max(values, key=abs) if isinstance(column.worst, str) else column.worst(values)


def _dig(row: object, figure: str) -> Optional[float]:
    for key in figure.split("."):
        row = row.get(key) if isinstance(row, Mapping) else None
    return row if isinstance(row, (int, float)) else None


def _markdown(head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    kind = "simulated" if head["simulated"] else "real"
    grid = "×".join(str(n) for n in head["volume_shape"])
    version = head["toolchain"].get("version")
    lines = [
        f"Worst values over the scans; {grid}, {kind} toolchain {version}, TensorFlow {head['tensorflow']} on the CPU.",
        "",
    ]
    lines += _line(["weights", "plan", "n"] + [column.heading for column in COLUMNS] + [f"`{head['profile']['name']}`"])
    lines += _line(["---"] * (4 + len(COLUMNS)))
    for row in rows:
        cells = ["n/a" if value is None else format(value, column.form) for value, column in _paired(row)]
        named = [f"`{row['weights']}`", f"`{row['plan']}`", str(row["n"])]
        lines += _line(named + cells + ["passes" if row["verdict"] == "ok" else "fails"])
    return "\n".join(lines) + "\n"


def _paired(row: Mapping[str, Any]) -> List[Tuple[Optional[float], Column]]:
    return [(row["figures"][column.figure], column) for column in COLUMNS]


def _line(cells: Sequence[str]) -> List[str]:
    return ["| " + " | ".join(cells) + " |"]


if __name__ == "__main__":
    sys.exit(main())
