# SPDX-License-Identifier: Apache-2.0
"""``make box-table``: weights beside each other on given scans: Dice per structure, folding, and what a change of contrast
costs each of them.

Exports every set of weights, registers the scans and altered copies of them as a user would, and reads the results.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from scripts.intensity_table import write_changed
from scripts.stages import StageFailed, column_mean, fresh_folder, read_table, run_stage
from vxm_convert.artifacts.files import write_text
from vxm_convert.artifacts.names import FAILURES_NAME, METRICS_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_USER, SpecError, VolumeError
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, LabelSet, load_label_set
from vxm_convert.metrics.overlap import dice
from vxm_convert.model.spec import VARIANTS
from vxm_convert.scans.scan_file import ScanFile

LOG = logging.getLogger(__name__)
TABLE_NAME = "box_table.md"
#: network intensities of CSF, grey and white matter, and what T2-weighting makes of them
_T1, _T2 = (0.0, 0.12, 0.28, 0.42, 1.0), (0.95, 0.9, 0.55, 0.3, 0.25)
_NOISE, _NOISE_SEED = 0.03, 1


def _inside(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The same change of the brain alone, stored as 0..255."""

    def changed(values: np.ndarray) -> np.ndarray:
        brain = values > 0
        return np.where(brain, 255 * np.clip(change(values), 1e-3, 1), 0)

    return changed


#: name → change of network intensities (X, Y, Z); 0 outside the brain stays 0
CONTRASTS: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverted": _inside(lambda v: 0.75 - v),
    "T2-like": _inside(lambda v: np.interp(v, _T1, _T2)),
    "gamma 0.7": _inside(lambda v: v ** np.float32(0.7)),
    "gamma 1.4": _inside(lambda v: v ** np.float32(1.4)),
    "noise": _inside(lambda v: v + np.random.RandomState(_NOISE_SEED).normal(0, _NOISE, v.shape)),
}


class Network(NamedTuple):
    """Weights under the name that the tables show."""

    name: str
    checkpoint: Path
    variant: str


class Measured(NamedTuple):
    """Rows of metrics.tsv; per structure, mean Dice over the scans before and after."""

    rows: List[Dict[str, str]]
    structures: Dict[int, Tuple[float, float]]


def build_parser() -> argparse.ArgumentParser:
    """Options of the table."""
    parser = argparse.ArgumentParser(
        prog="make box-table",
        description="Register scans, and copies of another contrast, with several sets of weights; print Dice and folding.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument(
        "--input", required=True, type=Path, metavar="DIR", help="folder of .npz scans with `vol` 0..255 and `seg`"
    )
    parser.add_argument("--atlas", required=True, type=Path, metavar="FILE", help="fixed image with segmentation")
    parser.add_argument(
        "--checkpoints",
        required=True,
        nargs="+",
        type=network_from,
        metavar="NAME=FILE[:VARIANT]",
        help="weights; the variant is vm2 unless given",
    )
    parser.add_argument(
        "--contrasts",
        default=",".join(CONTRASTS),
        type=_contrasts,
        metavar="LIST",
        help="changes of contrast, separated by commas, or none (default: %(default)s)",
    )
    parser.add_argument("--shape", default="160,192,224", metavar="X,Y,Z", help="(default: %(default)s)")
    parser.add_argument("--precision", default="balanced", help="precision plan (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/box_table"), metavar="DIR", help="(default: %(default)s)"
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the table."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_main(lambda: _table(args), "box-table")


def network_from(text: str) -> Network:
    """``NAME=FILE[:VARIANT]``; raises ArgumentTypeError for anything else."""
    name, _, rest = text.partition("=")
    path, _, variant = rest.partition(":")
    if not name or not path or variant not in ("", *VARIANTS):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=FILE or NAME=FILE:VARIANT")
    return Network(name, Path(path), variant or "vm2")


def _contrasts(text: str) -> List[str]:
    names = [] if text == "none" else text.split(",")
    unknown = [name for name in names if name not in CONTRASTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"got {unknown[0]!r}, expected any of {', '.join(CONTRASTS)}")
    return names


def _table(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out)
    scans = [path for path in sorted(args.input.glob("*.npz")) if path.resolve() != args.atlas.resolve()]
    if not scans:
        raise SpecError(f"{args.input}: holds no .npz scan beside the atlas; pass the folder of the scans")
    labels, folders = load_label_set(DEFAULT_LABEL_SET), {"as they are": out / "scans"}
    folders.update({name: out / f"contrast_{n}" for n, name in enumerate(args.contrasts)})
    for name, folder in folders.items():
        folder.mkdir()
        for path in scans:
            write_changed(path, CONTRASTS.get(name, lambda v: v * 255), folder / path.name)
    found: Dict[str, Dict[str, Measured]] = {}
    for number, network in enumerate(args.checkpoints):
        model = _export(args, network, out / f"network_{number}")
        found[network.name] = {
            name: _register(args, folder, model, out / f"network_{number}" / folder.name, labels)
            for name, folder in folders.items()
        }
    text = markdown(found, labels)
    write_text(out / TABLE_NAME, text)
    sys.stdout.write(f"\n{text}\n{out / TABLE_NAME}\n")
    return EXIT_OK


def _export(args: argparse.Namespace, network: Network, out: Path) -> Path:
    words = ["export", "--checkpoint", str(network.checkpoint), "--variant", network.variant, "--shape", args.shape]
    run_stage([*words, "--precision", args.precision, "--skip-onnx", "--out", str(out / "vxm"), "--quiet"])
    return out / "vxm" / "vxm.om"


def _register(args: argparse.Namespace, folder: Path, model: Path, out: Path, labels: LabelSet) -> Measured:
    words = ["--input", str(folder), "--atlas", str(args.atlas), "--model", str(model), "--out", str(out)]
    try:
        run_stage(["om_runner", *words, "--compare", "none", "--outputs", "warp,seg", "--quiet"])
    except StageFailed as failed:
        # Scans that a network fails on are part of what is measured.
        if failed.exit_code != EXIT_USER or not (out / FAILURES_NAME).is_file():
            raise
    rows = read_table(out / METRICS_NAME)
    fixed = _labels_of(args.atlas)
    pairs = [
        [dice(one, fixed, labels.ids).per_label for one in (_labels_of(folder / row["source"]), _moved(out, row))]
        for row in rows
    ]
    means = {n: (_mean([p[0][n] for p in pairs]), _mean([p[1][n] for p in pairs])) for n in labels.ids}
    return Measured(rows, means)


def _moved(out: Path, row: Dict[str, str]) -> np.ndarray:
    return _labels_of(out / row["subject"] / "moved_seg.nii.gz", segmentation=True)


def _labels_of(path: Path, segmentation: bool = False) -> np.ndarray:
    scan = ScanFile(path)
    labels = scan.image() if segmentation else scan.labels()
    if labels is None:
        raise VolumeError(f"{path}: holds no array `seg`; expected a segmentation")
    return np.rint(labels.data).astype(np.int64)


def _mean(values: Sequence[float]) -> float:
    present = [value for value in values if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")


def markdown(found: Dict[str, Dict[str, Measured]], labels: LabelSet) -> str:
    """Three tables: per scan, per contrast, per structure; network name → contrast → what was measured."""
    plain = {name: measured["as they are"] for name, measured in found.items()}
    first = max(plain.values(), key=lambda measured: len(measured.rows))
    head = "| scan | before | " + " | ".join(f"{name} | folded, %" for name in plain) + " |"
    lines = [head, "|---|---|" + "---|---|" * len(plain)]
    for row in first.rows:
        cells = [_scan_cells(m.rows, row["subject"]) for m in plain.values()]
        lines.append(f"| {row['subject']} | {float(row['dice_before']):.3f} | {' | '.join(cells)} |")
    cells = [f"{_mean_dice(m.rows, len(first.rows))} | {_folded(m.rows)}" for m in plain.values()]
    lines.append(f"| mean | {column_mean(first.rows, 'dice_before'):.4f} | {' | '.join(cells)} |")
    lines += ["", f"| contrast | {' | '.join(found)} |", "|---|" + "---|" * len(found)]
    for contrast in next(iter(found.values())):
        cells = [_mean_dice(measured[contrast].rows, len(first.rows)) for measured in found.values()]
        lines.append(f"| {contrast} | {' | '.join(cells)} |")
    lines += ["", f"| structure | before | {' | '.join(plain)} |", "|---|---|" + "---|" * len(plain)]
    for label, name in labels.names.items():
        cells = [f"{m.structures[label][1]:.3f}" for m in plain.values()]
        lines.append(f"| {name} | {first.structures[label][0]:.3f} | {' | '.join(cells)} |")
    note = f"Dice over {DEFAULT_LABEL_SET}, n = {len(first.rows)} scans; toolchain: {first.rows[0]['toolchain']}."
    return "\n".join(lines + ["", note]) + "\n"


def _mean_dice(rows: List[Dict[str, str]], n: int) -> str:
    """Mean after registration of the scans that the runner accepted, with their number where some failed."""
    if not rows:
        return f"{n} of {n} refused"
    accepted = "" if len(rows) == n else f" ({n - len(rows)} of {n} refused)"
    return f"{column_mean(rows, 'dice_after'):.4f}{accepted}"


def _scan_cells(rows: List[Dict[str, str]], subject: str) -> str:
    found = [row for row in rows if row["subject"] == subject]
    return f"{float(found[0]['dice_after']):.3f} | {_folded(found)}" if found else "refused | –"


def _folded(rows: List[Dict[str, str]]) -> str:
    if not rows:
        return "–"
    return f"{100 * column_mean(rows, 'folding_fraction'):.3f}"


if __name__ == "__main__":
    sys.exit(main())
