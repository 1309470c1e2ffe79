# SPDX-License-Identifier: Apache-2.0
"""One way to train, in a process of its own: makes a step whenever a line comes in, answers with a line of figures.

Started by `scripts.benchmark.training`, which thereby lets several ways take turns step by step. Owns how each way
loads its scans and builds its graph. The CPU-seconds of a step are all that the process used since the step before,
readers included.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.cliargs import add_model_group, run_main
from vxm_convert.errors import EXIT_OK
from vxm_convert.model.spec import ModelSpec, parse_shape
from vxm_convert.model.variables import expected_variables

if TYPE_CHECKING:
    from vxm_convert.network.tf1 import tf

#: way → what the table calls it
WAYS: Dict[str, str] = {
    "recipe": "existing recipe's graph, scan read in the step",
    "direct": "train --convolutions direct",
    "blocks": "train --convolutions blocks",
}
SCANS, ATLAS = "scans", "atlas.nii.gz"
#: in front of every answer; whatever TensorFlow prints is not meant
MARK = "step: "
LEARNING_RATE, SMOOTHNESS = 1e-4, 0.01


def build_parser() -> argparse.ArgumentParser:
    """Options of one process."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.training_step",
        description="Train one way; a step per line on stdin.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument("way", choices=list(WAYS), help="which one")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help=f"folder with {SCANS}/ and {ATLAS} (no default)"
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads of TensorFlow; 0: all (default: %(default)s)"
    )
    parser.add_argument(
        "--max-memory-gib",
        type=float,
        default=0.0,
        metavar="GIB",
        help="address space it may take, GiB; 0: all (default: %(default)s)",
    )
    add_model_group(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code; figures are the marked lines on stdout."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _serve(args), "training_step")


def _serve(args: argparse.Namespace) -> int:
    if args.max_memory_gib:
        limit = int(args.max_memory_gib * (1 << 30))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from vxm_convert.network.tf1 import tf

    spec = ModelSpec(args.variant, parse_shape(args.shape))
    with tf.Graph().as_default():
        step, config, start = _recipe(spec, args) if args.way == "recipe" else _ours(spec, args)
        with tf.Session(config=config) as session:
            session.run(tf.global_variables_initializer())
            _same_weights(session, spec)
            start(session)
            _say({"ready": True, "tensorflow": _build_of_tensorflow()})
            before = time.process_time()
            for _ in sys.stdin:
                wall = time.perf_counter()
                loss = step(session)
                wall, now = time.perf_counter() - wall, time.process_time()
                _say({"wall_seconds": wall, "cpu_seconds": now - before, "loss": float(loss), "peak_bytes": _peak()})
                before = now
    return EXIT_OK


Step = Callable[["tf.Session"], float]


def _recipe(spec: ModelSpec, args: argparse.Namespace) -> Tuple[Step, tf.ConfigProto, Callable[[tf.Session], None]]:
    """Scans one after the other, each read in its step, by hand into the graph."""
    import nibabel

    from scripts.benchmark.recipe import build_training
    from vxm_convert.network.tf1 import tf

    built = build_training(spec, LEARNING_RATE, SMOOTHNESS)
    paths = sorted((args.data / SCANS).iterdir())
    count = [0]

    def read(path: Path) -> np.ndarray:
        return np.asarray(nibabel.load(str(path)).get_fdata(), np.float32)[np.newaxis, ..., np.newaxis]

    fixed = read(args.data / ATLAS)

    def step(session: tf.Session) -> float:
        moving = read(paths[count[0] % len(paths)])
        count[0] += 1
        feeds = {built.inputs["moving"]: moving, built.inputs["fixed"]: fixed}
        loss: float = session.run([built.loss, built.update], feeds)[0]
        return loss

    config = tf.ConfigProto(intra_op_parallelism_threads=args.threads, inter_op_parallelism_threads=args.threads)
    return step, config, lambda session: None


def _ours(spec: ModelSpec, args: argparse.Namespace) -> Tuple[Step, tf.ConfigProto, Callable[[tf.Session], None]]:
    """Graph, pipeline and session configuration of `python -m train`."""
    from train.data.cohort import read_cohort
    from train.data.dataset import build_pipeline
    from train.data.loading import Loader
    from train.data.pairs import PairOrder
    from train.devices.open import open_backend
    from train.graph.training_graph import build_training_graph
    from train.settings.run import DataSettings, TrainSettings

    data = DataSettings(args.data / SCANS, args.data / ATLAS)
    settings = TrainSettings(
        data, args.data / "unused", spec, learning_rate=LEARNING_RATE, threads=args.threads, convolutions=args.way
    )
    backend = open_backend(settings)
    order = PairOrder(read_cohort(data, settings.seed).train, data.pairing, settings.seed)
    pipeline = build_pipeline(order, Loader(spec, data.atlas), 1 << 20)
    built = build_training_graph(settings, pipeline.inputs, backend)
    fetches = [built.scalars["loss"], built.train_op]
    return lambda session: session.run(fetches)[0], backend.session_config(), lambda session: pipeline.start(session, 0)


def _same_weights(session: tf.Session, spec: ModelSpec) -> None:
    """Every way starts from these: He-normal kernels, an almost zero flow."""
    from vxm_convert.network.tf1 import tf

    variables = {v.op.name: v for v in tf.trainable_variables()}
    random = np.random.RandomState(0)
    for name, shape in expected_variables(spec).items():
        deviation = 1e-5 if name.startswith("flow/") else np.sqrt(2.0 / np.prod(shape[:-1]))
        variables[name].load(
            (deviation * random.standard_normal(shape) if len(shape) > 1 else np.zeros(shape)).astype(np.float32),
            session,
        )


def _build_of_tensorflow() -> str:
    from vxm_convert.toolchain.doctor import tensorflow_builds

    return ", ".join(" ".join(build) for build in tensorflow_builds()) or "unknown"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _say(figures: Dict[str, Any]) -> None:
    print(MARK + json.dumps(figures), flush=True)


if __name__ == "__main__":
    sys.exit(main())
