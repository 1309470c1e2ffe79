# SPDX-License-Identifier: Apache-2.0
"""Puts weights into the box: the mean of one or more checkpoints of a training run becomes ``models/<variant>``.

Neighbouring checkpoints of a run differ by the noise of their last steps; their mean is a network with less of it. Owns the
files of the folder: the checkpoint with float32 weights and nothing else, ``spec.json``, a side-car with the hashes of what
it was made from, the curve of the runs, ``SHA256SUMS``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.artifacts.files import atomic_path, check_output_folder, read_bounded, write_sidecar
from vxm_convert.artifacts.sha256sums import begin_manifest, finish_manifest
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK
from vxm_convert.model.intensity import CONTRAST
from vxm_convert.model.spec import VARIANTS, ModelSpec, parse_shape
from vxm_convert.model.spec_file import write_spec
from vxm_convert.weights.files import find_checkpoint

NAME = "model"
CURVE_NAME = "curve.png"
_METRICS_NAME = "metrics.jsonl"
_SUFFIXES = (".index", ".data-00000-of-00001")
_MAX_LOG_BYTES = 64 << 20
#: points of the curve are means over so many steps
_BIN = 50


def build_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.box", description="Make models/<variant> from checkpoints of training runs."
    )
    parser.add_argument(
        "--checkpoints", required=True, nargs="+", type=Path, metavar="CKPT", help="checkpoints to average (required)"
    )
    parser.add_argument(
        "--runs", default=[], nargs="*", type=Path, metavar="DIR", help="training folders, in order, for the curve"
    )
    parser.add_argument("--variant", default="vm2", choices=sorted(VARIANTS), help="(default: %(default)s)")
    parser.add_argument(
        "--shape", default="160,192,224", metavar="X,Y,Z", help="grid in spec.json (default: %(default)s)"
    )
    parser.add_argument("--out", default=None, type=Path, metavar="DIR", help="(default: models/<variant>)")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _pack(args), "box")


def _pack(args: argparse.Namespace) -> int:
    from vxm_convert.network.restore import load_weights  # TensorFlow loads here, so that --help needs none

    spec = ModelSpec(args.variant, parse_shape(args.shape))
    files = [find_checkpoint(path) for path in args.checkpoints]
    weights = mean_weights([load_weights(one, spec) for one in files])
    made_from = {f"{role} of {one.path.name}": value for one in files for role, value in one.hashes().items()}
    out = check_output_folder(args.out or Path("models") / args.variant)
    begin_manifest(out)
    _save(weights, out)
    write_spec(out, spec, CONTRAST)
    names = [NAME + suffix for suffix in _SUFFIXES] + ["spec.json"]
    for name in names[:2]:
        write_sidecar(out / name, made_from, {"kind": "none"}, averaged=len(files))
    names += [name + ".json" for name in names[:2]]
    if args.runs:
        _draw([curve_of(run) for run in args.runs], out / CURVE_NAME)
        names.append(CURVE_NAME)
    finish_manifest(out, names, {})
    print(f"{out}: {sum(w.size for w in weights.values())} weights, mean of {len(files)} checkpoints")
    return EXIT_OK


def mean_weights(networks: Sequence[Dict[str, np.ndarray]]) -> Dict[str, np.ndarray]:
    """Variable → mean over networks of one architecture, taken in float64, float32."""
    return {
        name: np.mean([one[name] for one in networks], axis=0, dtype=np.float64).astype(np.float32)
        for name in networks[0]
    }


def curve_of(run: Path) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a training folder: steps and 1 − soft Dice of them (means over bins), and rows of (steps done, Dice in validation)."""
    text = read_bounded(run / _METRICS_NAME, _MAX_LOG_BYTES, "the metrics of the training", "name its folder")
    records = [json.loads(line) for line in text.decode("utf-8").splitlines()]
    steps = [r for r in records if "loss_dice" in r and "event" not in r]
    bins = [steps[i : i + _BIN] for i in range(0, len(steps), _BIN)]
    at = np.array([np.mean([r["step"] for r in one]) for one in bins])
    missed = np.array([np.mean([r["loss_dice"] for r in one]) for one in bins])
    closed = [r for r in records if r.get("event") == "epoch" and r.get("validation")]
    done = np.cumsum([r["steps"] for r in closed])
    rows = [(n, r["validation"]["dice_before"], r["validation"]["dice"]) for n, r in zip(done, closed)]
    return at, missed, np.array(rows).reshape(-1, 3)


def _draw(curves: Sequence[Tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    """Runs one after the other along the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.6))
    start = 0.0
    for number, (at, missed, validated) in enumerate(curves):
        label = {"soft": "soft Dice, training", "before": "Dice before, validation", "after": "Dice after, validation"}
        named: Dict[str, Optional[str]] = {key: text if number == 0 else None for key, text in label.items()}
        axes.plot(start + at, 1 - missed, color="0.6", label=named["soft"])
        axes.plot(start + validated[:, 0], validated[:, 1], "--", color="tab:orange", label=named["before"])
        axes.plot(start + validated[:, 0], validated[:, 2], "o-", markersize=3, color="tab:blue", label=named["after"])
        start += float(at[-1]) + _BIN / 2 if len(at) else 0.0
        axes.axvline(start, color="0.9", zorder=0)
    axes.set_xlabel("steps, runs one after the other")
    axes.set_ylabel("Dice")
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(str(temporary), dpi=100, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _save(weights: Dict[str, np.ndarray], out: Path) -> None:
    """A checkpoint ``model`` that names the network's variables alone."""
    from vxm_convert.network.tf1 import tf

    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=value) for name, value in sorted(weights.items())]
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(variables)
        saver.save(session, str(out / NAME), write_meta_graph=False, write_state=False)


if __name__ == "__main__":
    sys.exit(main())
