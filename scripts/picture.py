# SPDX-License-Identifier: Apache-2.0
"""The README's picture, from what ``make demo`` left behind: synthetic scans only. Refuses folders that the demo did
not make.

matplotlib's Agg canvas through the object interface: no display, no global state.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from om_runner.names import MOVED_NAME
from vxm_convert.artifacts.files import write_bytes
from vxm_convert.artifacts.names import CONTRACT_NAME, RUN_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, ArtifactError

MAX_BYTES = 150_000
DEFAULT_OUT = Path("docs") / "pictures" / "demo.png"
_FULL_SCALE = 255.0
_DPI = 84
_WIDTH_INCHES = 11.0

Images = Dict[str, np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    """Options of the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.picture", description="Draws the README's picture from the demo's results."
    )
    parser.add_argument(
        "--demo",
        type=Path,
        default=Path("build/demo"),
        metavar="DIR",
        help="what make demo wrote (default: %(default)s)",
    )
    parser.add_argument("--subject", default="sub-01", metavar="NAME", help="which scan (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="FILE", help="PNG to write (default: %(default)s)"
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the command."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _make(args), "picture")


def _make(args: argparse.Namespace) -> int:
    images = load_images(args.demo, args.subject)
    data = draw(images, _caption(args.demo, args.subject))
    if len(data) > MAX_BYTES:
        raise ArtifactError(
            f"{args.out}: the picture has {len(data)} bytes, expected at most {MAX_BYTES}; draw fewer dots"
        )
    write_bytes(args.out, data)
    print(f"{args.out}: {len(data)} bytes")
    return EXIT_OK


def load_images(demo: Path, subject: str) -> Images:
    """Moving, fixed and moved volume of one demo subject, (X, Y, Z) float32 on 0..1; raises ArtifactError where one is
    missing.
    """
    sources = {
        "moving": demo / "cohort" / "scans" / f"{subject}.npz",
        "fixed": demo / "cohort" / "atlas.npz",
        "moved": demo / "registered" / subject / MOVED_NAME,
    }
    missing = [str(path) for path in [demo / "cohort" / "phantom.json", *sources.values()] if not path.is_file()]
    if missing:
        raise ArtifactError(f"{', '.join(missing)}: not there; run `make demo` first, or name its folder with --demo")
    return {name: _volume(path) / np.float32(_FULL_SCALE) for name, path in sources.items()}


def _volume(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        with np.load(str(path), allow_pickle=False) as stored:
            return stored["vol"].astype(np.float32)
    return np.asarray(nib.load(str(path)).dataobj, dtype=np.float32)


def _caption(demo: Path, subject: str) -> str:
    """Who made it: synthetic scan, grid, precision plan, toolchain; as the run recorded it."""
    try:
        run = json.loads((demo / "registered" / RUN_NAME).read_text(encoding="utf-8"))
        contract = json.loads((demo / "vxm" / CONTRACT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{demo}: run.json or contract.json cannot be read ({exc}); run `make demo` again") from exc
    badge = "SIMULATED" if run["simulated"] else "REAL"
    grid = "×".join(str(n) for n in contract["model"]["volume_shape"])
    model = contract["model"]["variant"]
    return (
        f"Synthetic head {subject} of make demo, {grid} voxels, {model} after a brief training, precision "
        f"{contract['precision']['name']}, {badge} toolchain {run['toolchain']['version']}"
    )


def draw(images: Images, caption: str) -> bytes:
    """PNG: three orthogonal slices (rows) of moving, fixed, moved, and both differences to fixed (columns)."""
    before, after = (images[name] - images["fixed"] for name in ("moving", "moved"))
    columns: List[Tuple[str, np.ndarray]] = [
        ("moving", images["moving"]),
        ("fixed (atlas)", images["fixed"]),
        ("moved\n(offline model)", images["moved"]),
        (f"moving − fixed\nmean |difference| {np.abs(before).mean():.3f}", before),
        (f"moved − fixed\nmean |difference| {np.abs(after).mean():.3f}", after),
    ]
    scale = float(np.percentile(np.abs(before), 99.5))
    rows = _rows(images["fixed"].shape)
    ratios = [cut(images["fixed"]).shape[0] / cut(images["fixed"]).shape[1] for _, cut in rows]
    width = _WIDTH_INCHES / 5.55
    figure = Figure(figsize=(_WIDTH_INCHES, sum(ratios) * width + 1.0), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(rows), len(columns), squeeze=False, gridspec_kw={"height_ratios": ratios, "wspace": 0.03, "hspace": 0.04}
    )
    figure.subplots_adjust(left=0.03, right=0.915, top=0.935, bottom=0.05)
    for line, (title, cut) in zip(axes, rows):
        line[0].set_ylabel(title, fontsize=10)
        for axis, (_, volume) in zip(line, columns):
            signed = volume is before or volume is after
            look = (
                {"cmap": "RdBu_r", "vmin": -scale, "vmax": scale}
                if signed
                else {"cmap": "gray", "vmin": 0.0, "vmax": 0.5}
            )
            shown = axis.imshow(cut(volume), interpolation="nearest", **look)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, (title, _) in zip(axes[0], columns):
        axis.set_title(title, fontsize=10)
    bar = figure.colorbar(shown, cax=figure.add_axes([0.925, 0.2, 0.012, 0.55]))
    bar.set_label("intensity difference, full scale 1", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.text(0.03, 0.018, caption, fontsize=9, color="#444444")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _rows(shape: Tuple[int, ...]) -> List[Tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Upright views of an LIA volume a little beside its middle, where the phantom has ventricles and deep nuclei."""
    x, y, z = (side // 2 for side in shape)
    x += max(1, shape[0] // 8)
    return [
        ("sagittal", lambda a: a[x, :, :]),
        ("coronal", lambda a: a[:, :, z].T),
        ("axial", lambda a: a[:, y, :].T[::-1]),
    ]


if __name__ == "__main__":
    sys.exit(main())
