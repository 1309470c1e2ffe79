# SPDX-License-Identifier: Apache-2.0
"""What a training bought, on scans with segmentations: ``make finetune-table`` and ``make shapes-table``.

Trains, exports and registers as a user would, and reads the tables that the stages write; owns no measurement of its
own. ``finetune`` goes on from given weights on the scans themselves; ``shapes`` trains on random shapes only (see
`vxm_convert.synthetic.shapes`), so the network meets a brain for the first time when it registers one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from scripts.stages import column_mean, fresh_folder, read_table, run_stage
from vxm_convert.artifacts.files import read_bounded, write_json, write_text
from vxm_convert.artifacts.names import CONTRACT_NAME, METRICS_NAME, OM_NAME, RUN_NAME, TRAIN_METRICS_NAME
from vxm_convert.cliargs import add_model_group, run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, VolumeError
from vxm_convert.model.contract import GraphContract

TABLE_NAME, JSON_NAME = "table.md", "table.json"
_MAX_LOG_BYTES = 64 << 20
#: A minute per step at 160x192x224 on two cores: three passes over a handful of scans show whether the loss falls.
_FINETUNE = {"epochs": 3, "lr": 1e-4}
#: Small cubes teach as much per voxel as full heads; the network is the same at any size. Large rate, little smoothing:
#: short training.
_SHAPES = {"epochs": 8, "steps": 40, "lr": 1e-3, "pairs": 60, "shape": "64,64,64"}


def build_parser() -> argparse.ArgumentParser:
    """Options of both tables."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.training_tables",
        description="Train, export, register, and tabulate the Dice before and after.",
        epilog="exit codes: 0 done and the scores rose, 1 something to fix, 2 usage, 3 the mean Dice did not rise",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    finetune = commands.add_parser(
        "finetune", help="go on from given weights on the scans; Dice with the weights as they came and after"
    )
    finetune.add_argument(
        "--init",
        required=True,
        type=Path,
        metavar="CKPT",
        help="weights to start from, as train --init takes them (required)",
    )
    finetune.add_argument(
        "--epochs",
        type=int,
        default=_FINETUNE["epochs"],
        metavar="N",
        help="passes over the scans (default: %(default)s)",
    )
    finetune.add_argument(
        "--lr", type=float, default=_FINETUNE["lr"], metavar="RATE", help="learning rate (default: %(default)s)"
    )
    shapes = commands.add_parser("shapes", help="train on random shapes alone, then register the scans")
    shapes.add_argument(
        "--epochs",
        type=int,
        default=_SHAPES["epochs"],
        metavar="N",
        help=f"epochs of {_SHAPES['steps']} steps (default: %(default)s)",
    )
    shapes.add_argument(
        "--lr", type=float, default=_SHAPES["lr"], metavar="RATE", help="learning rate (default: %(default)s)"
    )
    shapes.add_argument(
        "--pairs", type=int, default=_SHAPES["pairs"], metavar="N", help="pairs of shapes (default: %(default)s)"
    )
    shapes.add_argument(
        "--train-shape",
        default=_SHAPES["shape"],
        metavar="X,Y,Z",
        help="grid of the shapes, voxels (default: %(default)s)",
    )
    for command in (finetune, shapes):
        command.add_argument(
            "--input", required=True, type=Path, metavar="DIR", help="folder of scans with segmentations (required)"
        )
        command.add_argument(
            "--atlas", required=True, type=Path, metavar="FILE", help="fixed image with its segmentation (required)"
        )
        command.add_argument(
            "--out",
            type=Path,
            default=None,
            metavar="DIR",
            help="where everything goes (default: build/<command>_table)",
        )
        add_model_group(command)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the table."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _table(args), "training-tables")


def _table(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out if args.out is not None else Path(f"build/{args.command}_table"))
    trained = out / "train"
    if args.command == "finetune":
        columns = {"weights as they came": _dice(args.init, args, out / "before")}
        run_stage(
            [
                "train",
                "--data",
                str(_manifest(args, out)),
                "--atlas",
                str(args.atlas),
                "--init",
                str(args.init),
                "--variant",
                args.variant,
                "--epochs",
                str(args.epochs),
                "--lr",
                str(args.lr),
                "--out",
                str(trained),
            ]
        )
        columns["after fine-tuning"] = _dice(trained, args, out / "after")
    else:
        run_stage(
            [
                "vxm_convert",
                "phantom",
                "--kind",
                "shapes",
                "--out",
                str(out / "shapes"),
                "--shape",
                args.train_shape,
                "--subjects",
                str(args.pairs),
            ]
        )
        run_stage(
            [
                "train",
                "--data",
                str(out / "shapes" / "pairs.csv"),
                "--variant",
                args.variant,
                "--epochs",
                str(args.epochs),
                "--steps-per-epoch",
                str(_SHAPES["steps"]),
                "--lr",
                str(args.lr),
                "--out",
                str(trained),
            ]
        )
        columns = {"trained on shapes only": _dice(trained, args, out / "after")}
    contract = GraphContract.load(out / "after" / "model" / CONTRACT_NAME)
    document = {
        "command": args.command,
        "columns": columns,
        "losses": _epoch_losses(trained),
        "model": contract.model.to_dict(),
        "precision": contract.precision.name,
        "toolchain": _run_record(out / "after")["toolchain"],
    }
    write_json(out / JSON_NAME, document)
    text = _markdown(document)
    write_text(out / TABLE_NAME, text)
    print(f"\n{text}\n{out / TABLE_NAME}")
    means = _column_means(columns)
    return EXIT_OK if means[-1] > means[-2] else EXIT_TOLERANCE


def _manifest(args: argparse.Namespace, out: Path) -> Path:
    """The scans that the runner will register: the folder's without the atlas itself, whatever it is called."""
    names = [row["source"] for row in read_table(out / "before" / "registered" / METRICS_NAME)]
    write_text(out / "scans.txt", "".join(f"{(args.input / name).resolve()}\n" for name in names))
    return out / "scans.txt"


def _dice(checkpoint: Path, args: argparse.Namespace, folder: Path) -> Dict[str, Dict[str, float]]:
    """Scan → Dice before and after registration by the offline model made from the checkpoint."""
    run_stage(
        [
            "export",
            "--checkpoint",
            str(checkpoint),
            "--variant",
            args.variant,
            "--shape",
            args.shape,
            "--skip-onnx",
            "--out",
            str(folder / "model"),
            "--quiet",
        ]
    )
    run_stage(
        [
            "om_runner",
            "--input",
            str(args.input),
            "--atlas",
            str(args.atlas),
            "--model",
            str(folder / "model" / OM_NAME),
            "--compare",
            "none",
            "--out",
            str(folder / "registered"),
            "--quiet",
        ]
    )
    rows = read_table(folder / "registered" / METRICS_NAME)
    if not rows or not all(row["dice_after"] for row in rows):
        raise VolumeError(f"{args.input}: no Dice for some of {len(rows)} scans; scans and atlas need segmentations")
    keys = ("dice_before", "dice_after", "folding_fraction")
    return {row["subject"]: {key: float(row[key]) for key in keys} for row in rows}


def _epoch_losses(trained: Path) -> List[float]:
    """Mean loss of every epoch, from the run's metrics."""
    text = read_bounded(
        trained / TRAIN_METRICS_NAME, _MAX_LOG_BYTES, "the metrics of the training", "run it again"
    ).decode("utf-8")
    return [record["loss"] for record in map(json.loads, text.splitlines()) if record.get("event") == "epoch"]


def _run_record(folder: Path) -> Dict[str, Any]:
    path = folder / "registered" / RUN_NAME
    data = read_bounded(path, _MAX_LOG_BYTES, "the run's record", "run it again")
    record: Dict[str, Any] = json.loads(data.decode("utf-8"))
    return record


def _column_means(columns: Mapping[str, Mapping[str, Mapping[str, float]]]) -> List[float]:
    """Before registration, then after it with each network."""
    tables = [list(scans.values()) for scans in columns.values()]
    return [column_mean(tables[0], "dice_before")] + [column_mean(table, "dice_after") for table in tables]


def _markdown(document: Mapping[str, Any]) -> str:
    columns, toolchain = document["columns"], document["toolchain"]
    grid = "×".join(str(n) for n in document["model"]["volume_shape"])
    first = next(iter(columns.values()))
    lines = [
        f"Mean Dice; {document['model']['variant']} at {grid}, plan {document['precision']}, {toolchain['kind']} "
        "toolchain "
        f"{toolchain['version']}, n = {len(first)}. Mean loss of each epoch: "
        + ", ".join(f"{loss:.4g}" for loss in document["losses"])
        + ".",
        "",
    ]
    lines += [_line(["scan", "before registration"] + list(columns)), _line(["---"] * (2 + len(columns)))]
    for subject, row in first.items():
        lines.append(
            _line(
                [subject, f"{row['dice_before']:.4f}"]
                + [f"{scans[subject]['dice_after']:.4f}" for scans in columns.values()]
            )
        )
    lines.append(_line(["mean"] + [f"{mean:.4f}" for mean in _column_means(columns)]))
    folding = [100 * column_mean(list(scans.values()), "folding_fraction") for scans in columns.values()]
    lines.append(_line(["folded voxels, %", ""] + [f"{value:.3f}" for value in folding]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
